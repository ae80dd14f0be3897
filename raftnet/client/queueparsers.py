"""The words and options of mqclient's commands about queues and keys.

Rules: `command` makes the parser of one command (commandline.py), with `-q` where asked: QUEUE for
one that has a default, QUEUE_NEEDED for one that changes or removes a whole queue. The tools use
the same parsers.
"""

import argparse

from raftnet.client import actions, arguments, kvactions, queueactions
from raftnet.wire.kvcommands import ConditionKind

QUEUE, QUEUE_NEEDED = 1, 2
_STDIN = "- reads it from stdin, all of it, a newline at its end included; behind -- it is a -"
_JSON = """\
FILE holds a list of operations, or {"when": [conditions], "do": [operations]}: all of them are
done, where all conditions hold, or none. Times are in seconds, texts UTF-8.

operations:
  {"enqueue": QUEUE, "messages": [TEXT, ...]}   "priority", "delay", "ttl", "dedup": [ID, ...]
  {"dequeue": QUEUE}                            "count"
  {"lease": QUEUE, "seconds": S}                "count", "consumer"
  {"ack": RECEIPT}                              or a list of receipts, here and below
  {"nack": RECEIPT}                             "delay": S or "backoff", "reason" (of
                                                which at most 255 bytes are kept)
  {"extend": RECEIPT, "seconds": S}
  {"put": KEY, "value": TEXT}                   "ttl"
  {"get": KEY}  {"delete": KEY}
  {"peek": QUEUE}                               "count"
  {"size": QUEUE}
  {"purge": QUEUE}                              "limit": of messages, at most 10000, which all
                                                purges and leases of a list may take together

conditions:
  {"kv": KEY, "equals": TEXT}    {"kv": KEY, "version": N}      (0: it is absent)
  {"kv": KEY, "absent": true}    {"kv": KEY, "present": true}
  {"queue": QUEUE, "at_least": N, "at_most": N}     messages that are ready
  {"leased": RECEIPT}                               that lease has not ended

exit status 1 where a condition does not hold, a receipt is stale or a queue is full: then nothing
was done, and the line says which one it was; also where the list would do too much at once. A purge
that did not reach all messages is done all the same
"""


def add_queue_commands(command) -> None:
    """Those about messages and queues, in the order of --help."""
    enqueue = command("enqueue", actions.enqueue,
                      "append messages to a queue; prints a message id a line", queue=QUEUE)
    enqueue.add_argument("message", metavar="MESSAGE", nargs="+",
                         help="a message; a single - reads a message per line of stdin. Behind "
                         "-- every word is a message, whatever it begins with")
    _add_enqueue_options(enqueue)
    dequeue = command("dequeue", actions.dequeue, "take messages from the head of a queue; prints "
                      "a message a line, with --lease: receipt, tab, message", queue=QUEUE)
    dequeue.add_argument("--wait", metavar="S", type=arguments.wait, default=0.0,
                         help="wait up to S seconds for a first message. Those who wait are served "
                         "in the order of asking; after each hour it is asked anew, at the end")
    dequeue.add_argument("--lease", metavar="S", type=arguments.lease, default=None,
                         help="take them for S seconds only: what is not acknowledged (ack) until "
                         "then is delivered again, at its old place")
    dequeue.add_argument("--consumer", metavar="NAME", default=None, help="with --lease: the name "
                         "that leases and histories show (default: host:pid)")
    peek = command("peek", actions.peek, "show the first messages of a queue that are ready, and "
                   "leave them there", queue=QUEUE)
    for added in (dequeue, peek):
        added.add_argument("-n", dest="count", metavar="COUNT", type=arguments.message_count,
                           default=1, help="at most so many messages (default: 1)")
    for added in (enqueue, dequeue):
        _add_resume(added)
    _add_receipt_commands(command)
    size = command("size", actions.size, "print how many messages of a queue are ready",
                   queue=QUEUE)
    queues = command("queues", actions.queues, "print the queues that hold messages (ready, "
                     "delayed or leased) or were configured, and how many messages are ready")
    describe, *timed = _add_inspecting_commands(command)
    for added in (peek, size, queues, describe):
        _add_local(added)
    for added in timed:
        _add_local(added, ". Its time is that of the entry at that index, and stands still while "
                   "nothing is written (without --local, the question is an entry itself)")
    _add_whole_queue_commands(command)
    execute = command("execute", actions.execute, "perform a list of operations on any queues and "
                      "keys atomically, all or none, given as JSON", epilog=_JSON)
    execute.add_argument("file", metavar="FILE", help="a JSON file; - for stdin")
    _add_resume(execute)


def _add_resume(added: argparse.ArgumentParser) -> None:
    """To a command that changes something in one request."""
    added.add_argument("--resume", metavar="TOKEN", type=arguments.resumed, default=None,
                       help="learn the outcome of an earlier request: the token that the line "
                       "without an outcome named, with the same arguments as then")


def _add_enqueue_options(enqueue: argparse.ArgumentParser) -> None:
    enqueue.add_argument("--priority", metavar="0..7", type=arguments.priority, default=0,
                         help="higher ones are delivered first (default: 0)")
    enqueue.add_argument("--delay", metavar="S", type=arguments.delay, default=0.0,
                         help="deliver it S seconds from now at the earliest")
    enqueue.add_argument("--ttl", metavar="S", type=arguments.ttl, default=0.0,
                         help="drop it when it was not taken within S seconds, counted from when "
                         "it is ready: with --delay, from the end of that (default: 0, which means "
                         "the queue's setting; a message cannot be freed of that)")
    enqueue.add_argument("--dedup", metavar="ID", type=arguments.dedup_id, help="an id of yours: "
                         "the same one again within the queue's window adds nothing, and prints "
                         "the id of the earlier message")


def _add_receipt_commands(command) -> None:
    ack = command("ack", queueactions.ack, "the messages are done with, and gone; prints what was "
                  "done, a line each. Exit status 1 where a receipt is stale: that lease has ended")
    nack = command("nack", queueactions.nack, "give messages back: they return to their old place "
                   "at once, or with --delay or --backoff to the tail, then; at the queue's "
                   "delivery limit they go to the dead letters. Exit status 1 where a receipt is "
                   "stale")
    later = nack.add_mutually_exclusive_group()
    later.add_argument("--delay", metavar="S", type=arguments.delay, default=0.0,
                       help="to the tail, S seconds from now (default: 0, at once and to their "
                       "old place)")
    later.add_argument("--backoff", action="store_true", help="to the tail, after the queue's "
                       "back-off, which doubles with every delivery")
    nack.add_argument("--reason", metavar="TEXT", type=arguments.reason, default="",
                      help="what its history shows, cut where it has more than 255 bytes")
    extend = command("extend", queueactions.extend, "have leases end S seconds from now. Exit "
                     "status 1 where a receipt is stale")
    extend.add_argument("--lease", metavar="S", type=arguments.lease, required=True,
                        help="seconds from now")
    for added in (ack, nack, extend):
        added.add_argument("receipt", metavar="RECEIPT", nargs="+", type=arguments.receipt,
                           help="ID:DELIVERY, as dequeue --lease printed it")
        _add_resume(added)


def _add_inspecting_commands(command) -> list[argparse.ArgumentParser]:
    describe = command("describe", queueactions.describe, "print what a queue holds (ready, "
                       "delayed, leased, waiting consumers) and its settings", queue=QUEUE)
    leases = command("leases", queueactions.leases, "print the oldest deliveries under way: "
                     "receipt, when it ends, when it was taken, which delivery it is, consumer",
                     queue=QUEUE)
    inspect = command("inspect", queueactions.inspect, "print the first messages that are ready, "
                      "with priority, deliveries and origin, and under each its history, as dead "
                      "letters have one", queue=QUEUE)
    for added, default in ((leases, 100), (inspect, 10)):
        added.add_argument("-n", dest="count", metavar="COUNT", type=arguments.shown_count,
                           default=default, help=f"at most so many (default: {default})")
    return [describe, leases, inspect]


def _add_whole_queue_commands(command) -> None:
    configure = command("configure", queueactions.configure, "change what is given of a queue's "
                        "settings, and print it; without any option, print all of them",
                        queue=QUEUE_NEEDED)
    for option, metavar, kind, text in (
            ("--dead-letter", "QUEUE", str, "where its dead letters go (\"\": to QUEUE.dead)"),
            ("--delivery-limit", "N", arguments.number, "a message that came back after so many "
             "deliveries is a dead letter (0: never; default: 20)"),
            ("--ttl", "S", arguments.ttl, "drop messages that are ready for so long, or send "
             "them to the queue that --dead-letter names (0: never)"),
            ("--max-messages", "N", arguments.number, "it holds no more (0: any number)"),
            ("--max-bytes", "N", arguments.number, "it holds no more (0: any number)"),
            ("--overflow", None, None, "beyond these: refuse new messages (the default), or send "
             "the oldest to the dead letters"),
            ("--dedup-window", "S", arguments.ttl, "how long ids of enqueue --dedup are "
             "remembered (0: not at all; default: 300)"),
            ("--backoff", "S", arguments.delay, "delay of nack --backoff after the first delivery, "
             "doubling with each (default: 1)"),
            ("--backoff-max", "S", arguments.delay, "and no longer than this (default: 600)")):
        name = next(setting for setting, word in queueactions.SETTING_OPTIONS.items()
                    if option == f"--{word}")
        if option == "--overflow":
            configure.add_argument(option, choices=queueactions.OVERFLOWS, help=text)
        else:
            configure.add_argument(option, dest=name, metavar=metavar, type=kind, help=text)
    purge = command("purge", queueactions.purge, "remove all messages of a queue that nobody holds "
                    "under a lease; prints how many", queue=QUEUE_NEEDED)
    delete = command("delete", queueactions.delete, "forget an empty queue's settings. Exit status "
                     "1 while it holds messages or consumers wait, 3 where there is none",
                     queue=QUEUE_NEEDED)
    redrive = command("redrive", queueactions.redrive, "send the messages of a dead-letter queue "
                      "back to where they came from, to the tail; prints how many. What came from "
                      "no other queue stays, and hides what is behind more than 10,000 of it, or "
                      "ten times COUNT",
                      queue=QUEUE_NEEDED)
    redrive.add_argument("--to", metavar="QUEUE", default="", help="to this queue instead")
    redrive.add_argument("-n", dest="count", metavar="COUNT", type=arguments.positive,
                         help="so many of them, the first (default: all)")
    for added in (configure, purge, delete, redrive):
        _add_resume(added)


def _add_local(added: argparse.ArgumentParser, more: str = "") -> None:
    added.add_argument("--local", metavar="ADDRESS", type=arguments.node_address, help="what this "
                       "node has applied, whoever leads: perhaps old; stderr says up to which "
                       f"index{more}")


def add_kv_commands(command) -> None:
    """kv get, put, delete, list, cas."""
    kv = command("kv", None, "the key-value store: kv get, put, delete, list, cas")
    words = kv.add_subparsers(metavar="WORD", title="words", required=True)
    get = command("get", kvactions.get, "print a key's value; exit status 3 where it is absent",
                  within=words)
    put = command("put", kvactions.put, "set a key; prints its new version. With a condition that "
                  "does not hold: the value that it has, and exit status 1", within=words)
    delete = command("delete", kvactions.delete, "remove a key; prints the version of the "
                     "deletion; exit status 3 where it is absent. With a condition that does not "
                     "hold: the value that it has, and exit status 1", within=words)
    listing = command("list", kvactions.list_keys, "print key, tab, value of all keys that begin "
                      "with PREFIX, in byte order; exit status 3 where there are none",
                      within=words)
    listing.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="default: all")
    cas = command("cas", kvactions.cas, "set a key to NEW where its value is OLD; prints its new "
                  "version, or, with exit status 1, the value that it has instead", within=words)
    for added in (put, delete, cas):
        _add_resume(added)
    for added in (get, put, delete, cas):
        added.add_argument("key", metavar="KEY", type=arguments.key, help="1 to 255 bytes")
    put.add_argument("value", metavar="VALUE", help=f"may be empty; {_STDIN}")
    cas.add_argument("old", metavar="OLD", action=_Value, help=f"the value that it must have; "
                     f"{_STDIN}")
    cas.add_argument("new", metavar="NEW", action=_Value, help="the value that it gets; - as "
                     "there, one of the two")
    for added in (put, cas):
        added.add_argument("--ttl", metavar="S", type=arguments.ttl, default=0.0,
                           help="the key vanishes after S seconds (default: it stays)")
    _add_conditions(put, delete)
    _add_verbose(get, listing)
    for added in (get, listing):
        _add_local(added)


def _add_conditions(put: argparse.ArgumentParser, delete: argparse.ArgumentParser) -> None:
    only = put.add_mutually_exclusive_group()
    only.add_argument("--if-absent", action=_Where, nargs=0, kind=ConditionKind.ABSENT,
                      perform=kvactions.put_where, help="only where there is no such key")
    only.add_argument("--if-version", metavar="N", action=_Where, type=arguments.number,
                      kind=ConditionKind.VERSION, perform=kvactions.put_where,
                      help="only where it has this version (0: where there is no such key)")
    only = delete.add_mutually_exclusive_group()
    only.add_argument("--if-value", metavar="V", action=_Where, kind=ConditionKind.EQUALS,
                      perform=kvactions.delete_where, help="only where it has this value; "
                      f"{_STDIN}")
    only.add_argument("--if-version", metavar="N", action=_Where, type=arguments.positive,
                      kind=ConditionKind.VERSION, perform=kvactions.delete_where,
                      help="only where it has this version")


def _add_verbose(get: argparse.ArgumentParser, listing: argparse.ArgumentParser) -> None:
    get.add_argument("--verbose", action="store_true", help="print version, time to live that is "
                     "left, and value, a line each, and on stderr the log index of all this, from "
                     "which watch --from goes on without a gap. Of a key that expires, this and "
                     "--json ask the time, which costs an entry in the log")
    listing.add_argument("--verbose", action="store_true", help="print on stderr the log index "
                         "from which watch --from goes on without a gap; with --json: an object "
                         "of index and keys")


class _Value(argparse.Action):
    """A value, - for all of stdin. The prompt, which has none to give, refuses a - that it finds
    as `value`."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        if arguments.means_stdin(values):
            namespace.value = values


class _Where(argparse.Action):
    """A condition: the command is another one then, so that nobody performs it without."""

    def __init__(self, kind: ConditionKind, perform, **rest):
        super().__init__(**rest)
        self._kind = kind
        self._perform = perform

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.condition = self._kind, values if self._kind != ConditionKind.ABSENT else None
        namespace.action = self._perform
        if arguments.means_stdin(values):
            namespace.value = values
