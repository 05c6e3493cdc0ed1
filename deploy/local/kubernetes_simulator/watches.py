"""Watches: who wants to hear of which writes, and from which version on."""

import asyncio
from collections import deque

from deploy.local.kubernetes_simulator.answers import ApiError, expired
from deploy.local.kubernetes_simulator.resources import Resource
from deploy.local.kubernetes_simulator.selectors import Selection
from deploy.local.kubernetes_simulator.store import Change, Store, to_json

_MAX_WAITING = 200_000
_EMPTY: dict[str, dict[str, object]] = {
    "Job": {"spec": {"template": {"metadata": {}, "spec": {"containers": None}}}, "status": {}},
    "Pod": {"spec": {"containers": None}, "status": {}},
}


class Watch:
    """One open watch: the lines that wait to be sent, and how it ends."""

    def __init__(self, *, resource: Resource, selection: Selection) -> None:
        self.resource = resource
        self.selection = selection
        self.waiting: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.ended = False
        self.broken = False

    def offer(self, change: Change) -> None:
        kind = change.told_as(self.selection)
        if kind:
            self.push(change.event(kind))

    def push(self, line: bytes) -> None:
        if len(self.waiting) >= _MAX_WAITING:
            self.end(broken=True)
            return
        self.waiting.append(line)
        self.wake.set()

    def end(self, *, broken: bool) -> None:
        """Ends the stream: in good order, or by cutting the connection."""
        self.ended = True
        self.broken = broken
        self.wake.set()

    def take(self) -> bytes:
        """Everything that waits, to be sent in one write."""
        lines = b"".join(self.waiting)
        self.waiting.clear()
        self.wake.clear()
        return lines


def bookmark(resource: Resource, *, version: int, initial_end: bool = False) -> bytes:
    """A BOOKMARK event: an empty object of the kind that carries only the version reached."""
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    empty = _EMPTY.get(resource.kind, {})
    obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, **empty}
    return to_json({"type": "BOOKMARK", "object": obj}) + b"\n"


def error_line(error: ApiError) -> bytes:
    """A refusal within a stream that already began: an ERROR event that holds the Status."""
    return to_json({"type": "ERROR", "object": error.status()}) + b"\n"


class Watches:
    """All open watches. Hears of every write and hands it only to those whom it concerns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[Resource, set[Watch]] = {}
        store.listeners.append(self._hear)

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._open.values())

    def _hear(self, change: Change) -> None:
        for watch in self._open.get(change.after.resource, ()):
            watch.offer(change)

    def open(
        self, *, resource: Resource, selection: Selection, version: int | None, send_initial: bool = False
    ) -> Watch:
        """Starts a watch after `version`; with None, or where the initial events are asked for, from the state now.

        A version that history does not reach back to gives a stream with one ERROR event of code 410, not an
        HTTP error: so the watch cache does it (apiserver storage/cacher).
        """
        watch = Watch(resource=resource, selection=selection)
        if version is None or send_initial:
            for record in self._store.select(resource, selection=selection):
                watch.push(b'{"type":"ADDED","object":%b}\n' % record.full())
            if send_initial:
                watch.push(bookmark(resource, version=self._store.version, initial_end=True))
        elif version < self._store.compacted:
            watch.push(error_line(expired(f"too old resource version: {version} ({self._store.compacted})")))
            watch.end(broken=False)
            return watch
        else:
            for change in self._store.changes_since(resource, version=version):
                watch.offer(change)
                change.forget_encoding()
        self._open.setdefault(resource, set()).add(watch)
        return watch

    def close(self, watch: Watch) -> None:
        self._open.get(watch.resource, set()).discard(watch)

    def break_all(self, *, broken: bool = True) -> int:
        """Ends every open watch; gives how many there were."""
        watches = [watch for group in self._open.values() for watch in group]
        for watch in watches:
            watch.end(broken=broken)
        return len(watches)
