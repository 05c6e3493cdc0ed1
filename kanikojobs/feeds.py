"""Following one kind of object at the API server: list, then watch from there, and again when that breaks.

Each feed is a thread that only reads and reduces; what it has read goes to an inbox in the order of the server.
A watch that ends in good order or falls silent is resumed; a broken one, a version that is forgotten (410) and the
timer mean a list.
"""

import random
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import structlog

from kanikojobs import kube_watch
from kanikojobs.errors import CreationError, TransientError
from kanikojobs.kube_watch import Broken, Expired, Watch

log = structlog.get_logger(__name__)

Act = Callable[[], None]
Inbox = SimpleQueue[Act]
T = TypeVar("T")

WATCH_SECONDS = 290  # the API server's own upper end is 5 to 10 minutes
# Bookmarks come about every minute, but only where something has changed since the watch began (apiserver,
# storage/cacher). A stream that is silent for longer may be dead (a half-open connection): it is asked for anew.
QUIET_SECONDS = 100.0
LONGEST_BACKOFF = 5.0  # seconds
SETTLED = 1.0  # seconds after which a watch has held for a while


def _backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(LONGEST_BACKOFF, 0.05 * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class Feed(Generic[T]):
    """`read` makes a value of an object; `seen`, `gone` and `listed` are called in the thread that empties the inbox.

    `listed` gets all names there are, and the time (monotonic) before which a name that is not among them was gone.
    """

    def __init__(
        self,
        *,
        path: str,
        inbox: Inbox,
        read: Callable[[kube_watch.Json], T],
        seen: Callable[[T], None],
        gone: Callable[[T], None],
        listed: Callable[[set[str], float], None],
        resync: float,
    ) -> None:
        self._path = path
        self._inbox = inbox
        self._read = read
        self._seen = seen
        self._gone = gone
        self._listed = listed
        self._resync = resync
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self.lists = 0
        self._thread = threading.Thread(target=self._run, name=f"feed {path.rpartition('/')[2]}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the stream and the thread; it may still be in a call for a moment, and is left behind then."""
        self._closed.set()
        if watch := self._watch:
            watch.close()

    def join(self, within: float) -> None:
        self._thread.join(within)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            asked: float | None = None
            watching_since = None
            try:
                version = self._list()
                watching_since = time.monotonic()
                self._follow(version)
                failures = 0
                continue
            except (Expired, Broken) as problem:
                if self._closed.is_set():
                    return
                log.info(f"watch-{type(problem).__name__.lower()}", path=self._path, problem=str(problem))
            except CreationError as error:
                asked = error.retry_after if isinstance(error, TransientError) else None
                log.warning("watch-cannot-begin", path=self._path, reason=error.reason, failures=failures)
            except Exception:
                # A bug in here must not end the watching for good, and silently.
                log.exception("feed-failed", path=self._path)
            # A watch that broke after a while is begun anew at once, because each moment without one is a moment in
            # which nothing is learnt. A server that ends each at once, or forgets each list, is asked ever less often.
            held = watching_since is not None and time.monotonic() - watching_since > SETTLED
            failures = 0 if held else failures + 1
            self._closed.wait(max(_backoff(failures), min(asked or 0.0, LONGEST_BACKOFF)))

    def _list(self) -> str:
        began = time.monotonic()
        names: set[str] = set()
        version = ""
        for objects, version in kube_watch.list_pages(self._path):
            values = [self._read(obj) for obj in objects]
            names.update(str(obj["metadata"]["name"]) for obj in objects)
            self._put(lambda values=values: [self._seen(value) for value in values])  # type: ignore[misc]
            if self._closed.is_set():
                return version
        self._put(lambda: self._listed(names, began))
        self.lists += 1
        return version

    def _follow(self, version: str) -> None:
        """Watch on from a version until it is time for a fresh list. Raises `Expired` and `Broken`."""
        until = time.monotonic() + self._resync * random.uniform(0.9, 1.1)  # noqa: S311
        while not self._closed.is_set() and (left := until - time.monotonic()) > 0:
            seconds = max(1, min(WATCH_SECONDS, round(left)))
            self._watch = Watch(path=self._path, seconds=seconds, quiet=min(QUIET_SECONDS, seconds + 15.0))
            began = time.monotonic()
            for kind, obj in self._watch.events(version):
                if kind != "BOOKMARK":
                    value = self._read(obj)
                    act = self._gone if kind == "DELETED" else self._seen
                    self._put(lambda act=act, value=value: act(value))  # type: ignore[misc]
                version = str(obj["metadata"]["resourceVersion"])
                if self._closed.is_set():
                    return
            if time.monotonic() - began < 1.0:
                # A server that ends every watch at once must not be asked without end.
                self._closed.wait(1.0)

    def _put(self, act: Callable[[], Any]) -> None:
        self._inbox.put(act)
