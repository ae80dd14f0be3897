"""The process that makes a snapshot, so that the loop of its node never stalls for it.

Rules: the child only reads the node's files and writes one new one; it holds no lock and renames
nothing. It ends with its parent: the order comes as one line of JSON on stdin, which stays open,
and its end means that nobody waits any more. Lines on stdout: `progress TEXT`, then `made`,
`failed TEXT`, or `damaged TEXT` where the node must not go on. Low priority: the node's own work
goes first.

Elsewhere: the state itself (rebuild.py), the parent's side (snapshotprocess.py).
"""

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

_NICENESS = 19


def encode_order(directory: str, config: Config, order: SnapshotOrder) -> bytes:
    """The line that the child reads."""
    return json.dumps({
        "directory": directory, "name": order.name, "index": order.index, "digest": order.digest,
        "cluster_id": order.cluster_id.hex(), "machine": asdict(config.machine),
        "wire": asdict(config.wire)}).encode() + b"\n"


def main() -> None:
    """The child process."""
    os.nice(_NICENESS)
    gc.disable()                # no cycles are built, and collecting would walk all messages
    values = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = Config(machine=MachineConfig(**values["machine"]), wire=WireConfig(**values["wire"]))
    order = SnapshotOrder(values["name"], values["index"], values["digest"],
                          bytes.fromhex(values["cluster_id"]))
    try:
        make_snapshot(Disk(values["directory"]), config, order, _report)
    except CorruptFileError as error:
        print(f"damaged {error}", flush=True)
    except RaftnetError as error:
        print(f"failed {error}", flush=True)
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
