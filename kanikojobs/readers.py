"""A few threads that make slow calls beside the watching: logs, Events, deletions.

Threads of our own making, because the standard library's executor joins its threads at exit: a process that is asked to
end while the API server hangs would hang with it. These are left behind.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

from kanikojobs.feeds import Act, Inbox

log = structlog.get_logger(__name__)


class Readers:
    """Each call runs in one of the threads and returns what is then to be done in the thread of the inbox."""

    def __init__(self, *, count: int, inbox: Inbox, name: str) -> None:
        self._inbox = inbox
        self._calls: SimpleQueue[Callable[[], Act] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], Act], *, otherwise: Act) -> None:
        """Have a call made. `otherwise` is done if it fails in a way that nobody has thought of."""
        self._calls.put(lambda: self._guarded(call, otherwise))

    @staticmethod
    def _guarded(call: Callable[[], Act], otherwise: Act) -> Act:
        try:
            return call()
        except Exception:
            log.exception("reader-failed")
            return otherwise

    def close(self) -> None:
        for _ in self._threads:
            self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            self._inbox.put(call())
