"""A small disk that can be filled: a tmpfs of its own, on Linux and for root."""

import os
import subprocess
import sys
import tempfile

from tools.processes import wait_until

BYTES = 16 * 1024 * 1024
_FILLER = "filler"
_PIECE = bytes(4096)
_BUSY_S = 20.0


def unavailable() -> str:
    """Why there can be none; "" where there can."""
    if sys.platform != "linux":
        return "a small disk is a tmpfs, of Linux"
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    with tempfile.TemporaryDirectory() as directory:
        found = subprocess.run(_mount(directory), capture_output=True, text=True)
        if found.returncode:
            return f"no small disk can be mounted: {found.stderr.strip()}"
        subprocess.run(["umount", directory], check=True)
    return ""


def _mount(directory: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "raftnet-test", directory]


class SmallDisk:
    """`directory` lies on it. A context manager; whoever uses the disk must have ended before."""

    def __init__(self):
        self._parent = tempfile.TemporaryDirectory(prefix="raftnet-disk-")
        self.directory = os.path.join(self._parent.name, "mounted")

    def __enter__(self) -> "SmallDisk":
        os.mkdir(self.directory)
        try:
            subprocess.run(_mount(self.directory), check=True)
        except BaseException:
            self._parent.cleanup()
            raise
        return self

    def __exit__(self, *_) -> None:
        # What makes a snapshot for a node that was killed ends a moment after it.
        wait_until(lambda: subprocess.run(["umount", self.directory], stderr=subprocess.DEVNULL
                                          ).returncode == 0, _BUSY_S, f"umount {self.directory}")
        self._parent.cleanup()

    def fill(self) -> None:
        """Not a byte is left, except in blocks that belong to files already."""
        with open(os.path.join(self.directory, _FILLER), "ab", buffering=0) as file:
            try:
                while True:
                    file.write(_PIECE)
            except OSError:
                return      # that is what full means

    def free(self) -> None:
        """There is room again."""
        os.remove(os.path.join(self.directory, _FILLER))
