"""What etcd and the watch cache are to a real server: every object's last version, one counter, a bounded history.

A stored version is never changed. A write makes a new one that shares what stayed the same, so a write costs the
same at 10 objects and at 20,000, and JSON is made only when somebody reads.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from deploy.local.kubernetes_simulator.resources import EVENTS, PODS, Resource
from deploy.local.kubernetes_simulator.selectors import Selection

Json = dict[str, Any]
Key = tuple[str, str]

_FIRST_VERSION = 1000
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def to_json(value: Any) -> bytes:
    return _encode(value).encode()


class Record:
    """One version of one object."""

    __slots__ = ("_spec", "key", "metadata", "obj", "resource", "uid", "version")

    def __init__(self, *, resource: Resource, obj: Json, version: int, spec: bytes | None = None) -> None:
        self.resource = resource
        self.obj = obj
        self.version = version
        self._spec = spec
        self.metadata: Json = obj["metadata"]
        self.key: Key = (self.metadata.get("namespace", ""), self.metadata["name"])
        self.uid: str = self.metadata["uid"]

    @property
    def terminating(self) -> bool:
        return "deletionTimestamp" in self.metadata

    def next(self, *, obj: Json, version: int) -> "Record":
        """The version after this one; a spec that stayed the same is not encoded again."""
        kept = self._spec if obj.get("spec") is self.obj.get("spec") else None
        metadata = {**obj["metadata"], "resourceVersion": str(version)}
        return Record(resource=self.resource, obj={**obj, "metadata": metadata}, version=version, spec=kept)

    def item(self) -> bytes:
        """The object as lists hold it: without kind and apiVersion, which typed lists of a real server omit."""
        obj = self.obj
        spec = obj.get("spec")
        if spec is None:
            return to_json(obj)
        if self._spec is None:
            self._spec = to_json(spec)
        rest = to_json({key: value for key, value in obj.items() if key != "spec"})
        return b'%b,"spec":%b}' % (rest[:-1], self._spec)

    def full(self) -> bytes:
        """The object as a get, a create and a watch show it."""
        head = f'{{"kind":"{self.resource.kind}","apiVersion":"{self.resource.api_version}",'
        return head.encode() + self.item()[1:]

    def metadata_alone(self) -> bytes:
        """The object as a PartialObjectMetadata."""
        return to_json({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": self.metadata})


class Change:
    """One write, as watches tell it. `after` of a deletion is the last state with the deletion's version."""

    __slots__ = ("_told", "after", "before", "kind", "version")

    def __init__(self, *, kind: str, before: Record | None, after: Record) -> None:
        self.kind = kind
        self.before = before
        self.after = after
        self.version = after.version
        self._told: dict[str, bytes] = {}

    def told_as(self, selection: Selection) -> str:
        """The type of event that this write is to a selection; empty where it is none of its business.

        An object that a write moves into a selector is ADDED to it, one that is moved out is DELETED.
        """
        now = self.kind != "DELETED" and selection.matches(self.after.obj)
        was = self.before is not None and selection.matches(self.before.obj)
        if now:
            return "MODIFIED" if was else "ADDED"
        return "DELETED" if was else ""

    def event(self, kind: str) -> bytes:
        """One line of a watch's stream, encoded once however many watch."""
        line = self._told.get(kind)
        if line is None:
            shown = self.after
            if kind == "DELETED" and self.kind != "DELETED" and self.before is not None:
                shown = self.before.next(obj=self.before.obj, version=self.version)
            line = self._told[kind] = b'{"type":"%b","object":%b}\n' % (kind.encode(), shown.full())
        return line

    def forget_encoding(self) -> None:
        self._told.clear()


class Store:
    """All objects. Listeners hear of every write, in order, before the next one."""

    def __init__(self, *, history: int, max_events: int) -> None:
        self._history_size = history
        self._max_events = max_events
        self.listeners: list[Callable[[Change], None]] = []
        self.clear()

    def clear(self) -> None:
        """Forgets every object; versions go on rising, so watches from before are answered with 410."""
        self.version = getattr(self, "version", _FIRST_VERSION)
        self.compacted = self.version
        self._tables: dict[Resource, dict[Key, Record]] = {}
        self._history: dict[Resource, deque[Change]] = {}
        self._pods_of: dict[str, dict[Key, Record]] = {}
        self._events_of: dict[str, dict[Key, Record]] = {}

    def _next_version(self) -> int:
        self.version += 1
        return self.version

    def table(self, resource: Resource) -> dict[Key, Record]:
        return self._tables.setdefault(resource, {})

    def find(self, resource: Resource, *, namespace: str, name: str) -> Record | None:
        return self.table(resource).get((namespace, name))

    def pods_of(self, owner_uid: str) -> list[Record]:
        """The pods that name this owner, oldest first."""
        return list(self._pods_of.get(owner_uid, {}).values())

    def select(self, resource: Resource, *, selection: Selection) -> list[Record]:
        """The matching objects in the order of their keys, as etcd gives them."""
        records: Iterable[Record] = self.table(resource).values()
        if selection.namespace and (name := selection.exactly("metadata", "name")):
            found = self.find(resource, namespace=selection.namespace, name=name)
            records = [found] if found else []
        elif resource is EVENTS and (
            about := selection.exactly("involvedObject", "uid") or selection.exactly("involvedObject", "name")
        ):
            records = self._events_of.get(about, {}).values()
        return sorted((record for record in records if selection.matches(record.obj)), key=lambda found: found.key)

    def add(self, resource: Resource, *, obj: Json) -> Record:
        """Stores a new object. The caller has made sure that its name is free."""
        version = self._next_version()
        obj["metadata"]["resourceVersion"] = str(version)
        record = Record(resource=resource, obj=obj, version=version)
        self._put(record)
        self._tell(Change(kind="ADDED", before=None, after=record))
        if resource is EVENTS:
            self._drop_old_events()
        return record

    def replace(self, record: Record, *, obj: Json) -> Record:
        """Stores a new version; one that changes nothing writes nothing, as with etcd."""
        if obj == record.obj:
            return record
        after = record.next(obj=obj, version=self._next_version())
        self._put(after)
        self._tell(Change(kind="MODIFIED", before=record, after=after))
        return after

    def remove(self, record: Record) -> Record:
        """Removes an object; the answer is its last state."""
        after = record.next(obj=record.obj, version=self._next_version())
        self._take(record)
        self._tell(Change(kind="DELETED", before=record, after=after))
        return after

    def _put(self, record: Record) -> None:
        key = record.key
        self.table(record.resource)[key] = record
        for index, value in self._indexed(record):
            index.setdefault(value, {})[key] = record

    def _take(self, record: Record) -> None:
        key = record.key
        self.table(record.resource).pop(key, None)
        for index, value in self._indexed(record):
            kept = index.get(value, {})
            kept.pop(key, None)
            if not kept:
                index.pop(value, None)

    def forget_owners(self, pod: Record) -> None:
        """Before a pod's owners change: it is not to be found by the old ones any more."""
        for owner in pod.metadata.get("ownerReferences", []):
            self._pods_of.get(owner["uid"], {}).pop(pod.key, None)

    def _indexed(self, record: Record) -> Iterator[tuple[dict[str, dict[Key, Record]], str]]:
        if record.resource is PODS:
            for owner in record.metadata.get("ownerReferences", []):
                yield self._pods_of, owner["uid"]
        elif record.resource is EVENTS:
            about = record.obj.get("involvedObject", {})
            for value in (about.get("uid"), about.get("name")):
                if value:
                    yield self._events_of, value

    def _drop_old_events(self) -> None:
        """Events live an hour on a real server; here the oldest go when there are too many, without a word."""
        table = self.table(EVENTS)
        while len(table) > self._max_events:
            self._take(next(iter(table.values())))

    def _tell(self, change: Change) -> None:
        history = self._history.setdefault(change.after.resource, deque())
        history.append(change)
        if len(history) > self._history_size:
            self.compacted = max(self.compacted, history.popleft().version)
        for listener in self.listeners:
            listener(change)
        change.forget_encoding()

    def compact(self) -> int:
        """Forgets the history, so that whoever resumes from an earlier version is told 410. Gives the version."""
        self._history.clear()
        self._next_version()
        self.compacted = self.version
        return self.version

    def changes_since(self, resource: Resource, *, version: int) -> list[Change]:
        """The writes after a version, oldest first. The caller has compared the version with `compacted`."""
        newer: list[Change] = []
        for change in reversed(self._history.get(resource, ())):
            if change.version <= version:
                break
            newer.append(change)
        newer.reverse()
        return newer
