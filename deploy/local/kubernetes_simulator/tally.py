"""What the server saw, for tests that check a promise from the server's side: creates, requests, activity."""

import time
from collections import Counter, deque
from typing import Any

from deploy.local.kubernetes_simulator.job_rules import is_finished
from deploy.local.kubernetes_simulator.resources import JOBS
from deploy.local.kubernetes_simulator.scripts import LABEL_PREFIX
from deploy.local.kubernetes_simulator.store import Change

Json = dict[str, Any]

_LOG_SIZE = 5_000
_SEQUENCE_SIZE = 100_000
_GROUPS = {"third_party": LABEL_PREFIX + "third-party-id", "parser": LABEL_PREFIX + "parser-id"}


def _identity(metadata: Json) -> str:
    """`source|event id|number`: what a Kubernetes Job of kanikojobs is for. Labels stand in for annotations."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    event_id = annotations.get(LABEL_PREFIX + "event-id") or labels.get(LABEL_PREFIX + "event-id", "")
    if not event_id:
        return ""
    number = labels.get(LABEL_PREFIX + "number") or annotations.get(LABEL_PREFIX + "number", "")
    return f"{annotations.get(LABEL_PREFIX + 'source', '')}|{event_id}|{number}"


def _groups(metadata: Json) -> dict[str, str]:
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    return {group: value for group, key in _GROUPS.items() if (value := annotations.get(key) or labels.get(key, ""))}


class Tally:
    """Counts by increments, so that a count costs the same at one Job and at 20,000. A Job is active from its creation
    until it is Complete, Failed or gone."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.cleared_at = time.monotonic()
        self.by_name: Counter[str] = Counter()
        self.by_identity: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.log: deque[Json] = deque(maxlen=_LOG_SIZE)
        self.sequence: deque[Json] = deque(maxlen=_SEQUENCE_SIZE)
        self.active: dict[str, dict[str, str]] = {}
        self.max_active = 0
        self.active_by: dict[str, Counter[str]] = {group: Counter() for group in _GROUPS}
        self.max_active_by: dict[str, Counter[str]] = {group: Counter() for group in _GROUPS}
        self.finished: Counter[str] = Counter()

    def hear(self, change: Change) -> None:
        record = change.after
        if record.resource is not JOBS:
            return
        if change.kind == "ADDED":
            self._start(record.metadata)
        elif change.kind == "DELETED" or is_finished(record.obj):
            self._end(record.uid, obj=record.obj)

    def _start(self, metadata: Json) -> None:
        name, identity, groups = metadata["name"], _identity(metadata), _groups(metadata)
        self.by_name[name] += 1
        if identity:
            self.by_identity[identity] += 1
        self.active[metadata["uid"]] = groups
        self.max_active = max(self.max_active, len(self.active))
        for group, value in groups.items():
            self.active_by[group][value] += 1
            self.max_active_by[group][value] = max(self.max_active_by[group][value], self.active_by[group][value])
        self.sequence.append({"at": time.time(), "do": "create", "name": name, "identity": identity, **groups})

    def _end(self, uid: str, *, obj: Json) -> None:
        groups = self.active.pop(uid, None)
        if groups is None:
            return
        for group, value in groups.items():
            self.active_by[group][value] -= 1
            if not self.active_by[group][value]:
                del self.active_by[group][value]
        metadata = obj["metadata"]
        conditions = obj.get("status", {}).get("conditions", [])
        ends = [found["type"] for found in conditions if found["type"] in ("Complete", "Failed")]
        end = ends[0] if ends else "Deleted"
        self.finished[end] += 1
        self.sequence.append(
            {"at": time.time(), "do": end, "name": metadata["name"], "identity": _identity(metadata), **groups}
        )

    def count_request(self, *, verb: str, path: str, status: int, agent: str, seconds: float) -> None:
        if time.monotonic() - seconds < self.cleared_at:
            # A watch, say, of somebody who was there before: it began in what is no longer counted.
            return
        self.requests[f"{verb} {status}"] += 1
        self.log.append(
            {"at": time.time(), "verb": verb, "path": path, "status": status, "agent": agent, "seconds": seconds}
        )

    def summary(self, *, detail: bool) -> Json:
        """The counts; with `detail` also every name, identity and the sequence of creations and ends."""
        told: Json = {
            "creates": {
                "total": self.by_name.total(),
                "names": len(self.by_name),
                "identities": len(self.by_identity),
                "repeated_names": {name: count for name, count in self.by_name.items() if count > 1},
                "repeated_identities": {name: count for name, count in self.by_identity.items() if count > 1},
            },
            "requests": dict(self.requests),
            "active": len(self.active),
            "max_active": self.max_active,
            "active_by": {group: dict(counts) for group, counts in self.active_by.items()},
            "max_active_by": {group: dict(counts) for group, counts in self.max_active_by.items()},
            "finished": dict(self.finished),
        }
        if detail:
            told["creates"] |= {"by_name": dict(self.by_name), "by_identity": dict(self.by_identity)}
            told["sequence"] = list(self.sequence)
        return told
