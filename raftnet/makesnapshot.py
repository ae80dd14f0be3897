"""The process that makes a snapshot, so that the loop of its node never stalls for it.

Rules: the child only reads the node's files and writes one new one, which it removes where it
fails; it holds no lock and renames nothing. It ends with its parent: the order comes as one line of
JSON on stdin, which stays open, and its end means that nobody waits any more. Lines on stdout:
`progress TEXT`, then `made`, `failed TEXT`, or `damaged TEXT` where the node must not go on.

Elsewhere: the state itself (rebuild.py), the parent's side and the priority (snapshotprocess.py).
"""

import contextlib
import gc
import json
import os
import sys
import threading
from dataclasses import asdict

from raftnet.config import Config, MachineConfig, WireConfig
from raftnet.errors import CorruptFileError, RaftnetError
from raftnet.rebuild import SnapshotOrder, make_snapshot
from raftnet.storage.disk import Disk


def encode_order(directory: str, config: Config, order: SnapshotOrder) -> bytes:
    """The line that the child reads."""
    values = asdict(order) | {"cluster_id": order.cluster_id.hex()}
    return json.dumps({"directory": directory, "order": values, "machine": asdict(config.machine),
                       "wire": asdict(config.wire)}).encode() + b"\n"


def main() -> None:
    """The child process."""
    gc.disable()                # no cycles are built, and collecting would walk all messages
    values = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = Config(machine=MachineConfig(**values["machine"]), wire=WireConfig(**values["wire"]))
    fields = values["order"]
    order = SnapshotOrder(**fields | {"cluster_id": bytes.fromhex(fields["cluster_id"])})
    disk = Disk(values["directory"])
    try:
        make_snapshot(disk, config, order, _report)
    except RaftnetError as error:
        # What failed first is to be told; the node removes what stays here.
        with contextlib.suppress(RaftnetError):
            if disk.exists(order.name):
                disk.remove(order.name)
        word = "damaged" if isinstance(error, CorruptFileError) else "failed"
        print(f"{word} {error}", flush=True)
    else:
        print("made", flush=True)
    os._exit(0)                 # not through a collection of everything that was built


def _report(text: str) -> None:
    print(f"progress {text}", flush=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
