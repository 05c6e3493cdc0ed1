"""The spans of a Kaniko Job: each call to create it, its wait for a running pod, its run."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from kanikojobs.states import State
from kanikojobs.tracing.telling import ROOT, Span, cloudevent, if_wanted, is_own, tell

if TYPE_CHECKING:
    from kanikojobs.verdicts import Held, Verdict


@if_wanted
def attempted(reached: Iterable[tuple["Held", "Verdict"]]) -> None:
    """Calls to create Jobs came to these verdicts."""
    for job, verdict in reached:
        if not job.build.traceparent:
            continue
        attributes: dict[str, str | int] = {
            **_job(job.namespace, name=job.name, uid=verdict.job_uid, number=job.build.number),
            **cloudevent(job.build.event_id, source=job.build.source),
            "kanikojobs.attempt": job.attempt_number,
            "kanikojobs.outcome": str(verdict.outcome),
        }
        if verdict.http_status:
            attributes["http.response.status_code"] = verdict.http_status
        tell(
            Span(
                name="create Job",
                kind="client",
                began_at=verdict.began_at,
                ended_at=verdict.began_at + verdict.duration,
                attributes=attributes,
                parent=job.build.traceparent,
                error=verdict.reason,
            )
        )


@if_wanted
def finished(kaniko_jobs: Collection[int]) -> None:
    """Kaniko Jobs, by primary key, are finished once this transaction commits."""
    if kaniko_jobs:
        transaction.on_commit(partial(_finished, kaniko_jobs))


class _Build(NamedTuple):
    """A finished Kaniko Job whose event has a trace; times are Unix times."""

    namespace: str
    name: str
    uid: UUID | None
    number: int
    node: str
    state: str
    reason: str
    received_at: float
    created_at: float | None
    running_at: float | None
    finished_at: float
    event_id: str
    source: str
    traceparent: str


@if_wanted
def _finished(kaniko_jobs: Collection[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT job.namespace, job.name, job.job_uid, job.number, job.node, job.state, job.reason,
                   extract(epoch FROM event.received_at)::float8, extract(epoch FROM job.created_at)::float8,
                   extract(epoch FROM job.running_at)::float8, extract(epoch FROM job.finished_at)::float8,
                   event.event_id, event.source, event.traceparent
            FROM kanikojobs_kanikojob job JOIN kanikojobs_jobstartevent event ON event.id = job.event_id
            WHERE job.id = ANY (%s) AND event.traceparent <> '' AND job.finished_at IS NOT NULL
            """,
            [list(kaniko_jobs)],
        )
        builds = [_Build(*row) for row in cursor.fetchall()]
    for build in builds:
        for span in _spans_of(build):
            tell(span)


def _spans_of(build: _Build) -> Iterator[Span]:
    """The wait for a running pod, and the run if there was one; what failed is the last of them. Then the root."""
    attributes = {
        **_job(build.namespace, name=build.name, uid=build.uid, number=build.number),
        **cloudevent(build.event_id, source=build.source),
        "kanikojobs.state": build.state,
    }
    if build.node:
        attributes["k8s.node.name"] = build.node
    error = build.reason if build.state == State.FAILED else ""
    span = Span(
        name="run Job",
        kind="internal",
        began_at=build.running_at or 0.0,
        # Kubernetes' clock is not ours: a pod can seem to run before its Job was created, and to its end no time.
        ended_at=max(build.running_at or 0.0, build.finished_at),
        attributes=attributes,
        parent=build.traceparent,
        error=error,
    )
    if build.created_at:
        ended_at = max(build.created_at, build.running_at or build.finished_at)
        wait_error = "" if build.running_at else error
        yield replace(span, name="wait for pod", began_at=build.created_at, ended_at=ended_at, error=wait_error)
    if build.running_at:
        yield span
    if is_own(build.traceparent) and build.number == 1:
        yield replace(span, name=ROOT, began_at=build.received_at, parent="", itself=build.traceparent)


def _job(namespace: str, *, name: str, uid: object, number: int) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "k8s.namespace.name": namespace,
        "k8s.job.name": name,
        "kanikojobs.number": number,
    }
    return attributes | {"k8s.job.uid": str(uid)} if uid else attributes
