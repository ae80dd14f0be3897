"""Names: looking up host names without holding up the loop.

Rules: numeric addresses are known at once; a name is looked up by a helper thread, as the system's
function blocks for as long as a DNS server does. One look-up per name is under way at a time, so
many names at once at most, a thread each: one that hangs holds up nobody else. An answer serves
those who waited for it and is not kept, so that a name that changes its address is followed. The
threads are daemons: a process does not wait for them at its end.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable

# (family, socket address with port 0), as socket.getaddrinfo gives them
Place = tuple[int, tuple]


class LookUp:
    """One question. `places` and `error` count once `done` is true; just one of them is set."""

    __slots__ = ("host", "places", "error", "done")

    def __init__(self, host: str):
        self.host = host
        self.places: list[Place] = []
        self.error = ""
        self.done = False


class Names:
    """Look-ups under way. `wake()` is called from a thread when one is done; `ask` is the
    system's getaddrinfo, unless a test replaces it."""

    def __init__(self, wake: Callable[[], None], threads_max: int, ask=None):
        self._wake = wake
        self._threads_max = threads_max
        self._ask = ask or socket.getaddrinfo
        self._lock = threading.Lock()
        self._under_way: dict[str, LookUp] = {}
        self._waiting: deque[LookUp] = deque()      # for a thread
        self._threads = 0
        self._closed = False

    def look_up(self, host: str) -> LookUp:
        """Ask for a name; the same question as long as an earlier one is without an answer. A
        numeric address is done on return."""
        if self._closed:
            raise AssertionError("look_up() after close()")
        numeric = _numeric(host)
        if numeric is not None:
            return numeric
        with self._lock:
            question = self._under_way.get(host)
            if question is None:
                question = self._under_way[host] = LookUp(host)
                self._waiting.append(question)
                if self._threads < self._threads_max:
                    self._threads += 1
                    threading.Thread(target=self._work, name="names", daemon=True).start()
            return question

    def close(self) -> None:
        """Wake nobody any more: the loop is about to close. Threads that hang are left alone."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                question = self._waiting.popleft()
            _answer(question, self._ask, 0)
            with self._lock:
                del self._under_way[question.host]
                question.done = True
                if not self._closed:
                    self._wake()


def _numeric(host: str) -> LookUp | None:
    """The answer, where the host is an address already."""
    question = LookUp(host)
    _answer(question, socket.getaddrinfo, socket.AI_NUMERICHOST)
    question.done = True
    return question if question.places else None


def _answer(question: LookUp, ask, flags: int) -> None:
    try:
        found = ask(question.host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:    # UnicodeError: no name that DNS could know
        question.error = getattr(error, "strerror", None) or str(error)
        return
    question.places = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    if not question.places:
        question.error = "it has no address"
