"""The part of the model (model.py) that only looks: commands that change nothing."""

from raftnet.wire import commands, queueresults
from raftnet.wire.commands import Status
from raftnet.wire.queueresults import Description

DEAD = 0                    # of a list of settings: the dead-letter queue


class Looking:
    """Commands on what Model holds."""

    def size(self, queue):
        if self.room < 16:
            return Status.REPLY_FULL, b""
        self.room -= 16
        ready = self.of(queue, "ready")
        return Status.OK, commands.encode_size_result(
            len(ready), sum(len(m.body) for m in ready))

    def peek(self, queue, count):
        ready = self.of(queue, "ready")
        if not ready:
            return Status.EMPTY, b""
        found = []
        for message in ready[:count]:
            if len(message.body) + 12 > self.room:
                break
            self.room -= len(message.body) + 12
            found.append((message.id, message.body))
        return (Status.OK, commands.encode_messages(found)) if found else (Status.REPLY_FULL, b"")

    def queues(self):
        found, room, last, cut = [], self.room - 4, b"", False
        for name in sorted(self.names()):
            if name not in self.settings and not any(m.queue == name for m in self.messages):
                if not self.moves:
                    cut = True
                    if last and not found and len(last) + 9 <= room:
                        found.append((last, 0))
                    break
                self.moves, last = self.moves - 1, name
                continue
            room -= len(name) + 9
            if room < 0:
                cut = True
                break
            found.append((name, len(self.of(name, "ready"))))
        if self.room < 4 or cut and not found:
            self.room = 0
            return Status.REPLY_FULL, b""
        payload = commands.encode_queue_list(found)
        self.room -= len(payload)
        return Status.OK, payload

    def describe(self, queue):
        settings = self.setting(queue)
        if 122 + len(settings[DEAD]) > self.room:
            return Status.REPLY_FULL, b""
        self.room -= 122 + len(settings[DEAD])
        ready = self.of(queue, "ready")
        held = [m for m in self.messages if m.queue == queue]
        return Status.OK, queueresults.encode_describe_result(Description(
            queue in self.settings, len(ready), sum(len(m.body) for m in ready),
            len(self.of(queue, "delayed")), len(self.of(queue, "leased")),
            sum(wait[2] == queue for wait in self.waits), sum(len(m.body) for m in held),
            sum(name == queue for name, _ in self.dedup), dict(enumerate(settings, 1))))

    def leases(self, queue, limit):
        return self.listed(12, queueresults.encode_leases_result, [
            (37 + len(m.lease[3]),
             (m.id, m.lease[0], m.lease[1], m.lease[2], m.deliveries, m.lease[3]))
            for m in self.of(queue, "leased")[:limit]])

    def inspect(self, queue, limit):
        return self.listed(12, queueresults.encode_inspect_result, [
            (27 + len(m.body) + len(m.origin)
             + sum(31 + len(event.consumer) + len(event.text) for event in m.history),
             (m.id, m.priority, m.deliveries, m.expires, m.origin, m.history, m.body))
            for m in self.of(queue, "ready")[:limit]])

    def listed(self, head, encode, rows):
        if not rows:
            return Status.EMPTY, b""
        room, found = self.room - head, []
        for size, row in rows:
            room -= size
            if room < 0:
                break
            found.append(row)
        if not found:
            self.room = 0
            return Status.REPLY_FULL, b""
        payload = encode(self.now, found)
        self.room -= len(payload)
        return Status.OK, payload
