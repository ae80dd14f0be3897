"""Snapshots for a client: have one made, and read it into a file (Client.snapshot, Client.backup).

Rules: the leader, or the node that is named, is asked for a snapshot, and the file is read from the
node that made it, in parts, several of them on their way. A lost connection to that node goes on
where it was. Where it holds the snapshot no more, or cannot be reached while another node leads,
all begins anew with whoever leads then. A time limit counts from the last byte; while a snapshot is
made, signs of life count too. The file appears whole, with the announced checksum, or not at all.

Elsewhere: the bodies (wire/snapshots.py), the file (partialfile.py).
"""

import heapq
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import crc32

from raftnet.client.connection import clock
from raftnet.client.link import Link, Read, ask_node
from raftnet.client.output import size_text
from raftnet.client.partialfile import PartialFile
from raftnet.client.session import Refusal
from raftnet.errors import ErrorCode, MalformedError, NoAnswerError, RefusedError, StorageError
from raftnet.wire import frames, requests
from raftnet.wire.address import format_address, parse_address
from raftnet.wire.frames import Kind
from raftnet.wire.snapshots import (Taken, decode_snapshot_part, decode_snapshot_taken,
                                    encode_read_snapshot, encode_take_snapshot)

PART_BYTES = 256 * 1024     # asked for at a time
PARTS_IN_FLIGHT = 16        # 4 MiB: above it, a node reads nothing more from its client
PROGRESS_S = 2.0            # between two texts for whoever waits
WORKING_S = 1.0             # a node that has the request for so long, and lives, is at work on it
STALL_S_MIN = 2.0           # without a byte: then it is asked whether another node leads
STARTS_MAX = 5              # without a byte from any of them
PAUSE_S = 0.2               # before all begins anew

# about a READ_SNAPSHOT: that node is of no use any more
_ANEW = frozenset((ErrorCode.NO_SNAPSHOT, ErrorCode.NOT_LEADER, ErrorCode.WRONG_CLUSTER,
                   ErrorCode.REMOVED))

Progress = Callable[[str], None]


class HeldSnapshot(NamedTuple):
    """A snapshot and the node that holds it: everything applied up to `index`."""

    address: str
    index: int              # of the last entry that is in it
    term: int
    size: int               # bytes of the file
    checksum: int           # CRC-32 of the file up to its last 4 bytes, which are the same
    digest: int             # of the state, as STATUS shows it at that index

    @property
    def text(self) -> str:
        """For people."""
        return (f"snapshot up to entry {self.index}: {size_text(self.size)}, "
                f"digest {self.digest:08x}")


class _Watch:
    """When something moved last, and when somebody was told so. Times in seconds."""

    def __init__(self, timeout_s: float, progress: Progress):
        self._timeout_s = timeout_s
        self._progress = progress
        self.moved = self._told = clock()
        self.working_s = min(WORKING_S, timeout_s / 4)

    @property
    def deadline(self) -> float:
        """When it is given up, if nothing moves until then."""
        return self.moved + self._timeout_s

    def tell(self, text: str) -> None:
        """Every now and then."""
        if clock() - self._told >= PROGRESS_S:
            self.say(text)

    def say(self, text: str) -> None:
        """At once."""
        self._told = clock()
        self._progress(text)


class _Take(Read):
    """An exchange of one TAKE_SNAPSHOT, asked again wherever it may be."""

    def __init__(self, local: bool, request_id: int):
        super().__init__(Kind.TAKE_SNAPSHOT, encode_take_snapshot(local), Kind.SNAPSHOT_TAKEN,
                         request_id)
        self.sent_at: float | None = None       # without a verdict since
        self.taken: Taken | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the reply is still missing."""
        return self.taken is None

    def output(self, now: float) -> bytes:
        """The request, where it must be sent (again)."""
        data = super().output(now)
        if data:
            self.sent_at = now
        return data

    def connection_lost(self) -> None:
        """It must be sent again."""
        super().connection_lost()
        self.sent_at = None

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; raises MalformedError for what does not answer that."""
        refusal = super().receive(kind, request_id, body)
        if refusal is not None:
            self.sent_at = None
        elif self.answer is not None:
            self.taken = decode_snapshot_taken(self.answer)
        return refusal


class Transfer:
    """An exchange that reads one snapshot, several parts on their way, each asked again after a
    loss; the bytes come out of take() in order. No I/O."""

    known = True
    resume = None
    overdue = False

    def __init__(self, index: int, size: int, request_ids: Iterator[int]):
        self.size = size
        self.received = 0               # bytes, in order or not
        self.changed = False            # the node has another one at that index
        self._index = index
        self._request_ids = request_ids
        self._to_ask: list[tuple[int, int]] = []    # a heap of (offset, count), again
        self._next = 0                  # nothing was asked for yet from here on
        self._asked: dict[int, tuple[int, int]] = {}        # by request id, on this connection
        self._early: dict[int, bytes] = {}                  # by offset
        self._given = 0                 # up to here

    @property
    def unanswered(self) -> bool:
        """Whether bytes are missing."""
        return self._given < self.size and not self.changed

    def output(self, now: float) -> bytes:
        """Requests for as many parts as may be on their way. The lowest one missing comes first, so
        that those that came before it never fill all places."""
        parts = []
        while len(self._asked) + len(self._early) < PARTS_IN_FLIGHT:
            if self._to_ask:
                offset, count = heapq.heappop(self._to_ask)
            elif self._next < self.size:
                offset, count = self._next, min(PART_BYTES, self.size - self._next)
                self._next += count
            else:
                break
            request_id = next(self._request_ids) & 0xFFFFFFFF
            self._asked[request_id] = offset, count
            parts.append(frames.encode_frame(Kind.READ_SNAPSHOT, request_id,
                                             encode_read_snapshot(self._index, offset, count)))
        return b"".join(parts)

    def connection_lost(self) -> None:
        """What was asked for must be asked for again."""
        self._to_ask += self._asked.values()
        heapq.heapify(self._to_ask)
        self._asked.clear()

    def receive(self, kind: int, request_id: int, body: bytes) -> Refusal | None:
        """Take one frame from the node; raises MalformedError for what is no such part."""
        asked = self._asked.get(request_id)
        if asked is None:
            return None
        offset, count = asked
        if kind == Kind.ERROR:
            code, leader, text = requests.decode_error(body)
            del self._asked[request_id]
            heapq.heappush(self._to_ask, asked)
            return Refusal(code, text, leader)
        if kind != Kind.SNAPSHOT_PART:
            raise MalformedError(f"a frame of kind {kind} does not answer that")
        part = decode_snapshot_part(body)
        if (part.index, part.offset) != (self._index, offset) or len(part.data) > count:
            raise MalformedError("SNAPSHOT_PART: not the part that was asked for")
        if part.size != self.size:
            self.changed = True
            return None
        del self._asked[request_id]
        found = len(part.data)
        if found < count:
            heapq.heappush(self._to_ask, (offset + found, count - found))
        self._early[offset] = part.data
        self.received += found
        return None

    def take(self) -> Iterator[bytes]:
        """The bytes that follow those given so far, as far as they have come."""
        while self._given in self._early:
            data = self._early.pop(self._given)
            self._given += len(data)
            yield data


class Backups:
    """The snapshots of one client. `link` knows the cluster; links of their own are used here."""

    def __init__(self, link: Link, request_ids: Iterator[int], timeout_s: float):
        self._link = link
        self._request_ids = request_ids
        self._timeout_s = timeout_s

    def snapshot(self, address: str | None, progress: Progress) -> HeldSnapshot:
        """Have a snapshot made; see Client.snapshot."""
        link = self._way(address)
        try:
            return self._take(link, address is not None, _Watch(self._timeout_s, progress))
        finally:
            link.close()

    def backup(self, path: str, local: str | None, force: bool,
               progress: Progress) -> HeldSnapshot:
        """Read one into a file; see Client.backup."""
        with PartialFile(path, force) as file:
            link = self._way(local)
            try:
                held = self._fill(file, link, local is not None, _Watch(self._timeout_s, progress))
            except NoAnswerError as error:
                raise NoAnswerError(f"no backup was made: {error}", True) from error
            finally:
                link.close()
            # the file ends with its own checksum, which does not cover itself
            if file.checksum != crc32(held.checksum.to_bytes(4, "big"), held.checksum):
                raise StorageError(
                    f"the bytes that {held.address} gave do not have the checksum that it announced"
                    f" ({held.checksum:08x}): its snapshot is damaged; ask another node with "
                    "--local")
            file.finish()
            return held

    def _way(self, address: str | None) -> Link:
        """A link to the leader, or to that node alone; raises NoAnswerError where none runs."""
        if address is not None:
            address = format_address(*parse_address(address))
            # a node that does not run is told of at once, and not tried until the time is up
            ask_node(address, Kind.STATUS, b"", Kind.STATUS_REPLY, clock() + self._timeout_s)
        return self._link.sibling(address)

    def _request_id(self) -> int:
        return next(self._request_ids) & 0xFFFFFFFF

    def _take(self, link: Link, local: bool, watch: _Watch) -> HeldSnapshot:
        began = clock()
        take = _Take(local, self._request_id())
        working = ""                # who lives and has had the request for a while
        while take.unanswered:
            link.turn(take, watch.deadline)
            since = take.sent_at
            if since is None:
                if working and take.unanswered:
                    watch.say(f"{working} does not finish it: beginning anew")
                working = ""
            elif link.alive_at - since > max(
                    watch.working_s, 2 * link.patience.round_trip_s(link.address)):
                working = link.address
                watch.moved = max(watch.moved, link.alive_at)
            if link.connection is not None:
                watch.tell(f"{link.address} makes a snapshot, for {clock() - began:.0f} s now")
        watch.moved = clock()
        taken = take.taken
        return HeldSnapshot(link.address, taken.index, taken.term, taken.size, taken.checksum,
                            taken.digest)

    def _fill(self, file: PartialFile, link: Link, local: bool, watch: _Watch) -> HeldSnapshot:
        """Have one made and read it, as often as it takes."""
        starts = 0
        while True:
            held = self._take(link, local, watch)
            reading = link.sibling(held.address)
            file.restart()
            try:
                why = self._read(file, held, reading,
                                 link if link.redirect and not local else None, watch)
            finally:
                reading.close()
            if not why:
                return held
            starts = 1 if file.size else starts + 1
            if starts >= STARTS_MAX:
                raise RefusedError(ErrorCode.NO_SNAPSHOT, f"tried {starts} times; last: {why}")
            watch.say(f"{why}: beginning anew")
            time.sleep(PAUSE_S)

    def _read(self, file: PartialFile, held: HeldSnapshot, reading: Link, link: Link | None,
              watch: _Watch) -> str:
        """Read all of it: "", or why all must begin anew. `link`: the way to whoever leads, where
        that matters."""
        transfer = Transfer(held.index, held.size, self._request_ids)
        most, looked = 0, 0.0
        while transfer.unanswered:
            stall_s = _stall_s(reading)
            try:
                reading.turn(transfer, min(watch.deadline, max(watch.moved, looked) + stall_s))
            except NoAnswerError:
                transfer.connection_lost()
                if clock() >= watch.deadline:
                    raise
                leader = self._leader(link, min(watch.deadline, clock() + stall_s))
                if leader and leader != held.address:
                    return f"{held.address} is not heard, and {leader} leads"
                looked = clock()            # the node is tried as long once more
            except RefusedError as error:
                if error.code not in _ANEW:
                    raise
                name = requests.describe_error(error.code)
                return f"{held.address} gives no more of its snapshot ({name})"
            came = transfer.received + (reading.connection.held if reading.connection else 0)
            for data in transfer.take():
                file.write(data)
            if came > most:
                most, watch.moved = came, clock()
            watch.tell(f"{size_text(file.size)} of {size_text(held.size)}")
        return f"{held.address} has another snapshot now" if transfer.changed else ""

    def _leader(self, link: Link | None, deadline: float) -> str:
        """The address of whoever leads; "" where that is not known."""
        if link is None:
            return ""
        look = Read(Kind.STATUS, b"", Kind.STATUS_REPLY, self._request_id(), of_leader=True)
        try:
            link.finish(look, deadline)
        except NoAnswerError:
            return ""
        return link.address


def _stall_s(link: Link) -> float:
    """How long no byte may come before somebody else is asked: a path of seconds has its time."""
    patience, address = link.patience, link.address
    return max(STALL_S_MIN, patience.quiet_s(address) + patience.answer_s(address)
               + patience.dial_s(address))
