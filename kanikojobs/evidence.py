"""Evidence of a build, kept before Kubernetes throws it away: digest, exit code, statuses, logs, Events.

What the statuses hold is written in the transaction of the state. Logs and Events are read after it by a few threads,
so that a slow kubelet never holds up the watching; a row that still waits for them says so (`captured_at`).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import connection
from django.db.models.functions import Now

from kanikojobs import kube_watch
from kanikojobs.errors import CreationError, PermanentError
from kanikojobs.models import ContainerLog, JobEvidence
from kanikojobs.observed import Pod
from kanikojobs.redaction import redact
from kanikojobs.storable import storable

MOST_LINES = 500
MOST_BYTES = 256 * 1024
MOST_EVENTS = 50
MOST_PODS = 5
_MOST_EVENT_MESSAGE = 1000
_CREATED_POD = re.compile(r"Created pod: ([a-z0-9][a-z0-9.-]*)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read of a Job: the logs of the containers, by pod, and the Events about it and its pods."""

    name: str
    uid: str
    containers: tuple[tuple[str, str], ...]
    pod_uids: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, name: str, uid: str, pods: Sequence[Pod]) -> "Wanted":
        latest = pods[-MOST_PODS:]
        # The one that ran last first: it tells most, and may be the next to go.
        containers = [(pod.name, c.name) for pod in latest for c in pod.containers if c.started]
        return cls(
            name=name,
            uid=uid,
            containers=tuple(reversed(containers)),
            pod_uids=tuple(pod.uid for pod in latest),
        )


@dataclass(slots=True)
class Captured:
    """What could be read. `again` says that another try may get what is `missing`."""

    logs: dict[tuple[str, str], kube_watch.LogTail] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    again: bool = False


def capture(wanted: Wanted) -> Captured:
    """Read logs and Events from the API server. Raises nothing that the API can cause; touches no database."""
    captured = Captured()
    for pod, container in wanted.containers:
        try:
            tail = kube_watch.log_tail(pod=pod, container=container, lines=MOST_LINES, most_bytes=MOST_BYTES)
            captured.logs[pod, container] = kube_watch.LogTail(redact(tail.text), tail.cut)
        except CreationError as error:
            _note(captured, f"log of {pod}/{container}", error)
    for uid in filter(None, (wanted.uid, *wanted.pod_uids)):
        _capture_events(captured, about=uid, read=partial(kube_watch.events_about, uid))
    if not wanted.pod_uids:
        for pod in _created_pods(captured.events)[-MOST_PODS:]:
            _capture_events(captured, about=pod, read=partial(kube_watch.events_about_pod, pod))
    captured.events.sort(key=lambda event: str(event["last_seen"]))
    del captured.events[:-MOST_EVENTS]
    return captured


def _capture_events(captured: Captured, *, about: str, read: Callable[[], list[kube_watch.Json]]) -> None:
    try:
        captured.events += map(_event, read())
    except CreationError as error:
        _note(captured, f"Events about {about}", error)


def _created_pods(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The pods that came and went while nobody watched: the Job controller wrote down their names."""
    texts = [event["message"] for event in events if event["reason"] == "SuccessfulCreate"]
    return [match[1] for text in texts if (match := _CREATED_POD.fullmatch(text))]


def _note(captured: Captured, what: str, error: CreationError) -> None:
    gone = isinstance(error, PermanentError) and error.http_status == 404
    captured.missing.append(f"{what}: " + ("it was gone" if gone else redact(f"{error.reason}: {error.message}"[:300])))
    captured.again = captured.again or not isinstance(error, PermanentError)


def _event(event: kube_watch.Json) -> dict[str, Any]:
    event = storable(event)
    about = event.get("involvedObject") or {}
    last = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    last = last or (event.get("metadata") or {}).get("creationTimestamp") or ""
    return {
        "object": f"{about.get('kind', '')}/{about.get('name', '')}",
        "type": str(event.get("type") or ""),
        "reason": str(event.get("reason") or ""),
        "message": redact(str(event.get("message") or "")[:_MOST_EVENT_MESSAGE]),
        "count": event.get("count") or 1,
        "first_seen": str(event.get("firstTimestamp") or last),
        "last_seen": str(last),
    }


@dataclass(frozen=True, slots=True)
class Note:
    """What the statuses say of a Kaniko Job that has ended."""

    kaniko_job: int
    digest: str
    exit_code: int | None
    pods: Sequence[Pod]


def note(notes: Iterable[Note]) -> None:
    """Write what the statuses say, in the transaction of the state."""
    rows = sorted(notes, key=lambda note: note.kaniko_job)
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO kanikojobs_jobevidence (kaniko_job_id, image_digest, exit_code, pods) VALUES (%s, %s, %s, %s)
            ON CONFLICT (kaniko_job_id) DO UPDATE SET
                image_digest = excluded.image_digest, exit_code = excluded.exit_code, pods = excluded.pods
            """,
            [
                [
                    note.kaniko_job,
                    note.digest,
                    note.exit_code,
                    json.dumps([_redacted(pod.as_json()) for pod in note.pods[-MOST_PODS:]], default=str),
                ]
                for note in rows
            ],
        )


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value) if len(value) > 8 else value
        case Mapping():
            return {key: _redacted(item) for key, item in value.items()}
        case list() | tuple():
            return [_redacted(item) for item in value]
    return value


def record(kaniko_job: int, captured: Captured, *, final: bool) -> None:
    """Keep what was read; with `final` nothing more is waited for. Call it in a transaction."""
    for (pod, container), tail in sorted(captured.logs.items()):
        # The longer one stays: a pod that is on its way out can give less than it gave before.
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO kanikojobs_containerlog AS log (kaniko_job_id, pod, container, text, cut)
                VALUES (%s, %s, %s, %s, %s)
                ON CONFLICT (kaniko_job_id, pod, container) DO UPDATE SET
                    text = excluded.text, cut = excluded.cut, captured_at = clock_timestamp()
                WHERE excluded.cut OR length(excluded.text) >= length(log.text)
                """,
                [kaniko_job, pod, container, tail.text, tail.cut],
            )
    if final:
        kept = {f"log of {log.pod}/{log.container}" for log in ContainerLog.objects.filter(kaniko_job=kaniko_job)}
        missing = [text for text in captured.missing if text.partition(": ")[0] not in kept]
        JobEvidence.objects.filter(kaniko_job=kaniko_job, captured_at=None).update(
            events=captured.events, missing="\n".join(missing), captured_at=Now()
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Evidence whose logs and Events nobody has read yet."""

    kaniko_job: int
    wanted: Wanted


def waiting(*, older_than: float, most: int) -> list[Waiting]:
    """What was noted so many seconds ago and not captured: by a watcher that has ended since, for example."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT job.id, job.name, job.job_uid, evidence.pods FROM kanikojobs_jobevidence evidence
            JOIN kanikojobs_kanikojob job ON job.id = evidence.kaniko_job_id
            WHERE evidence.captured_at IS NULL AND evidence.noted_at < clock_timestamp() - make_interval(secs => %s)
            ORDER BY evidence.kaniko_job_id LIMIT %s
            """,
            [older_than, most],
        )
        rows = cursor.fetchall()
    found = []
    for id, name, uid, pods in rows:
        pods = json.loads(pods) if isinstance(pods, str) else pods
        containers = tuple(
            (pod["name"], container["name"])
            for pod in pods
            for container in pod["containers"]
            if container["state"] != "waiting"
        )
        uids = tuple(pod["uid"] for pod in pods)
        found.append(Waiting(id, Wanted(name=name, uid=str(uid or ""), containers=containers, pod_uids=uids)))
    return found
