"""The thread that waits for Postgres, so that the one that speaks with RabbitMQ never does.

A thread of its own making, because the standard library's executor joins its threads at exit: a process that is asked
to end while Postgres hangs would hang with it. This one is left behind, and its transaction is rolled back.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")


class Writer:
    """Makes calls one after the other, with database connections of its own."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have a call made; what it returns or raises is in the future."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self, *, within: float) -> bool:
        """Let it finish and close its connections; return whether it did within so many seconds."""
        self._calls.put(None)
        self._thread.join(within)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while work := self._calls.get():
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del work, future, call  # lest a batch be held until the next one comes
        connections.close_all()
