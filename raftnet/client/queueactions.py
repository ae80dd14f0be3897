"""What mqclient's commands about leases, dead letters and whole queues do. The same form as in
actions.py, with the same rules.
"""

import argparse

from raftnet.client.client import Client
from raftnet.client.operations import STALE_MEANING, check_receipt_count, to_bytes
from raftnet.client.output import Output, leased_object, printable, seconds_text, text_object
from raftnet.client.queue import Moved, Queue, setting_value
from raftnet.client.receipts import format_receipt
from raftnet.config import MachineConfig, WireConfig
from raftnet.errors import MalformedError
from raftnet.wire.queuecommands import Overflow, Setting
from raftnet.wire.queueresults import Event, Inspected, Outcome, Reason

DONE, REFUSED, NOTHING_THERE = 0, 1, 3
_DEAD = b".dead"            # protocol.md, Life of a message
_TIMES = (Setting.TTL_MS, Setting.DEDUP_WINDOW_MS, Setting.BACKOFF_MS, Setting.BACKOFF_MAX_MS)
# The options of `configure`, by the names that Queue.configure has for them.
SETTING_OPTIONS = {
    "dead_letter": "dead-letter", "delivery_limit": "delivery-limit", "ttl_s": "ttl",
    "messages_max": "max-messages", "bytes_max": "max-bytes", "overflow": "overflow",
    "dedup_window_s": "dedup-window", "backoff_s": "backoff", "backoff_max_s": "backoff-max"}
OVERFLOWS = {"refuse": int(Overflow.REFUSE), "dead-letter": int(Overflow.DEAD_LETTER)}


def lease(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """dequeue --lease: take messages for a time."""
    messages = client.queue(arguments.queue).lease(
        arguments.lease, arguments.count, arguments.wait, arguments.consumer)
    if output.as_json:
        output.document([leased_object(message) for message in messages])
    else:
        output.lines([f"{message.receipt}\t".encode() + message.data for message in messages])
    return DONE if messages else NOTHING_THERE


def ack(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """The messages are done with."""
    check_receipt_count(len(arguments.receipt))
    return _tell(arguments, client.ack(arguments.receipt), "acknowledged", output)


def nack(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """The messages are to be delivered again."""
    check_receipt_count(len(arguments.receipt))
    delay = None if arguments.backoff else arguments.delay
    outcomes = client.nack(arguments.receipt, delay, arguments.reason)
    return _tell(arguments, outcomes, "returned", output)


def extend(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """The leases are to end later."""
    check_receipt_count(len(arguments.receipt))
    return _tell(arguments, client.extend(arguments.receipt, arguments.lease), "extended", output)


def _tell(arguments: argparse.Namespace, outcomes: list[Outcome], done: str,
          output: Output) -> int:
    words = {Outcome.DONE: done, Outcome.STALE: "stale", Outcome.DEAD_LETTERED: "dead-lettered"}
    told = list(zip(arguments.receipt, outcomes))
    if output.as_json:
        output.document([{"receipt": receipt, "outcome": outcome.name.lower()}
                         for receipt, outcome in told])
    else:
        output.lines([f"{receipt} {words[outcome]}" for receipt, outcome in told])
    stale = outcomes.count(Outcome.STALE)
    if stale:
        output.say(f"{stale} of {len(told)} receipts {'is' if stale == 1 else 'are'} stale: "
                   f"{STALE_MEANING}; take a longer lease, or extend it in time")
    return REFUSED if stale else DONE


# --- a queue as a whole


def purge(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Remove what nobody holds under a lease."""
    removed = client.queue(arguments.queue).purge()
    return _count("removed", removed, output)


def redrive(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Send dead letters back."""
    moved = client.queue(arguments.queue).redrive(arguments.to, arguments.count)
    if not arguments.to and moved.in_vain:
        output.say(_stay_text(moved))
    return _count("moved", moved, output, {"left": moved.left})


def _stay_text(moved: Moved) -> str:
    """Why a redrive moved no more."""
    if moved.in_vain == moved.left:
        return (f"the messages that are left ({moved.left}) came from no other queue, and are no "
                "dead letters to be sent back; --to QUEUE moves them there")
    further = "" if moved.in_vain == MachineConfig().purge_count_max else \
        "without -n, or with a larger one, more are looked at; "
    return (f"there is no dead letter among the first {moved.in_vain} of {moved.left} messages, "
            f"and those behind were not looked at: {further}--to QUEUE moves all messages there, "
            "dead letters or not")


def _count(word: str, count: int, output: Output, more: dict | None = None) -> int:
    if output.as_json:
        output.document({word: count} | (more or {}))
    else:
        output.line(str(count))
    return DONE if count else NOTHING_THERE


def delete(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Forget an empty queue."""
    found = client.queue(arguments.queue).delete()
    if output.as_json:
        output.document({"deleted": found})
    return DONE if found else NOTHING_THERE


def configure(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Change settings; without any, print them."""
    settings = settings_given(arguments)
    if arguments.resume is not None and not settings:
        raise MalformedError("--resume needs the settings that were to be changed")
    queue = client.queue(arguments.queue)
    if settings:
        queue.configure(**settings)
        found = dict(setting_value(name, value) for name, value in settings.items())
        _warn_of_no_dead_letters(queue, settings, output)
    else:
        found = queue.describe().settings
    if output.as_json:
        output.document(_settings_object(found, arguments.queue))
    else:
        output.lines(_setting_lines(found, arguments.queue))
    return DONE


def _warn_of_no_dead_letters(queue: Queue, given: dict, output: Output) -> None:
    """Where settings were given that are of no use without a dead-letter queue, and there is none.
    """
    useless = [f"--{SETTING_OPTIONS[name]}" for name in ("delivery_limit", "overflow")
               if given.get(name)]
    if not useless or given.get("dead_letter") or default_dead_letter(to_bytes(queue.name)):
        return
    if "dead_letter" in given or not queue.describe().settings[Setting.DEAD_LETTER]:
        output.say(f"this queue has no dead-letter queue, as its name ends in .dead or has no room "
                   f"for that ending: {' and '.join(useless)} without effect until --dead-letter "
                   "names one")


def default_dead_letter(queue: bytes) -> bytes:
    """Where the dead letters of a queue go that was told of no place; empty: there is none, and
    they stay."""
    if queue.endswith(_DEAD) or len(queue) + len(_DEAD) > WireConfig().queue_name_bytes_max:
        return b""
    return queue + _DEAD


def settings_given(arguments: argparse.Namespace) -> dict:
    """What Queue.configure takes of these options."""
    given = {name: getattr(arguments, name) for name in SETTING_OPTIONS
             if getattr(arguments, name) is not None}
    if "overflow" in given:
        given["overflow"] = OVERFLOWS[given["overflow"]]
    return given


def describe(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print what a queue holds, and its settings."""
    found = client.queue(arguments.queue).describe(arguments.local)
    output.read_at(arguments.local, client.read_index)
    numbers = found._asdict()
    settings = numbers.pop("settings")
    if output.as_json:
        output.document({"queue": printable(to_bytes(arguments.queue))} | numbers
                        | {"settings": _settings_object(settings, arguments.queue)})
        return DONE
    numbers["configured"] = "yes" if found.configured else "no"
    output.lines([f"{name.replace('_', '-')}\t{value}" for name, value in numbers.items()]
                 + _setting_lines(settings, arguments.queue))
    return DONE


def _settings_object(settings: dict[int, int | bytes], queue: str) -> dict:
    """By the names of Setting; of the dead-letter queue the name that holds, or None."""
    found = {}
    for setting, value in sorted(settings.items()):
        if setting == Setting.DEAD_LETTER:
            value = value or default_dead_letter(to_bytes(queue))
            value = printable(value) if value else None
        elif setting == Setting.OVERFLOW:
            value = Overflow(value).name.lower()
        found[Setting(setting).name.lower()] = value
    return found


def _setting_lines(settings: dict[int, int | bytes], queue: str) -> list[bytes]:
    """As the options of `configure` have them: times in seconds."""
    lines = []
    for option, (setting, value) in zip(_options(settings), sorted(settings.items())):
        if setting == Setting.DEAD_LETTER:
            default = default_dead_letter(to_bytes(queue))
            value = value or (default + b" (default)" if default else b"none")
        elif setting == Setting.OVERFLOW:
            value = next(word for word, number in OVERFLOWS.items() if number == value).encode()
        else:
            value = (seconds_text(value) if setting in _TIMES else str(value)).encode()
        lines.append(option.encode() + b"\t" + value)
    return lines


def _options(settings: dict[int, int | bytes]) -> list[str]:
    names = list(SETTING_OPTIONS.values())          # in the order of their numbers, from 1
    return [names[setting - 1] for setting in sorted(settings)]


def leases(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print the oldest deliveries under way."""
    now_ms, found = client.queue(arguments.queue).leases(arguments.count, arguments.local)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document([{"receipt": format_receipt(lease.id, lease.delivery),
                          "ends_in_ms": max(lease.deadline_ms - now_ms, 0),
                          "taken_ms_ago": now_ms - lease.taken_ms, "deliveries": lease.deliveries}
                         | text_object("consumer", lease.consumer) for lease in found])
    else:
        output.lines([f"{format_receipt(lease.id, lease.delivery)}\tends in "
                      f"{seconds_text(max(lease.deadline_ms - now_ms, 0))} s\ttaken "
                      f"{seconds_text(now_ms - lease.taken_ms)} s ago\tdelivery "
                      f"{lease.deliveries}\t".encode() + lease.consumer for lease in found])
    return DONE if found else NOTHING_THERE


def inspect(client: Client, arguments: argparse.Namespace, output: Output) -> int:
    """Print the first messages with what is known of them, their history in lines under them."""
    now_ms, found = client.queue(arguments.queue).inspect(arguments.count, arguments.local)
    output.read_at(arguments.local, client.read_index)
    if output.as_json:
        output.document([_inspected_object(message, now_ms) for message in found])
    else:
        for message in found:
            output.lines(_inspected_lines(message, now_ms))
    return DONE if found else NOTHING_THERE


def _inspected_object(message: Inspected, now_ms: int) -> dict:
    return {"id": message.id, "priority": message.priority, "deliveries": message.deliveries,
            "expires_in_ms": max(message.expires_ms - now_ms, 0) if message.expires_ms else None,
            "origin": printable(message.origin) if message.origin else None,
            "history": [{"reason": _reason(event), "ms_ago": now_ms - event.ended_ms,
                         "taken_ms_ago": now_ms - event.taken_ms if event.taken_ms else None,
                         "index": event.index, "deliveries": event.deliveries,
                         "consumer": printable(event.consumer), "text": printable(event.text)}
                        for event in message.history]} | text_object("text", message.message)


def _inspected_lines(message: Inspected, now_ms: int) -> list[bytes]:
    words = f"{message.id}\tpriority {message.priority}\tdeliveries {message.deliveries}\t"
    if message.expires_ms:
        words += f"expires in {seconds_text(max(message.expires_ms - now_ms, 0))} s\t"
    head = words.encode()
    if message.origin:
        head += b"from " + message.origin + b"\t"
    return [head + message.message] + [_event_line(event, now_ms) for event in message.history]


def _event_line(event: Event, now_ms: int) -> bytes:
    line = (f"    {_reason(event)} {seconds_text(now_ms - event.ended_ms)} s ago, entry "
            f"{event.index}")
    if event.deliveries:
        line += f", delivery {event.deliveries}"
    if event.taken_ms:
        line += f", held {seconds_text(event.ended_ms - event.taken_ms)} s"
    return (line.encode() + (b", by " + event.consumer if event.consumer else b"")
            + (b": " + event.text if event.text else b""))


def _reason(event: Event) -> str:
    try:
        return Reason(event.reason).name.lower()
    except ValueError:
        return f"reason {event.reason}"
