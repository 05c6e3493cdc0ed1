"""A task's claimed Kaniko Jobs exist in Kubernetes, or are tried again later, or have failed with a reason.

Each try is a row before the call is made, so that no call goes unrecorded even if its worker is killed in it. The
name of the Job is a function of the event's identity and the number, so that a create whose answer was lost is found
again by the next try, which adopts the Job instead of making a second one.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django_q.exceptions import TimeoutException

from kanikojobs import claims, dead_letters, durations, logs, outages, stopping, tallies, tracing, verdicts
from kanikojobs.cursors import binding_cursor
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.heartbeats import instance_name
from kanikojobs.manifest.builds import Build
from kanikojobs.models import JobAttempt, KanikoJob
from kanikojobs.states import State
from kanikojobs.verdicts import Held, Outcome, Verdict

log = structlog.get_logger(__name__)

T = TypeVar("T")

# So many events in a row, each told "too many requests" or "unavailable", are no single event's bad luck.
SHED_IN_A_ROW = 5
# The Kaniko Jobs of this process that were told so since the last one that was not.
_shed: set[int] = set()


@dataclass(frozen=True, slots=True)
class CreationResult:
    """How many of the claimed Kaniko Jobs came to what."""

    created: int = 0
    retried: int = 0
    failed: int = 0
    given_back: int = 0


def create(*, token: UUID, kaniko_jobs: Sequence[int], on_trial: bool = False) -> CreationResult:
    """Create the Jobs that are held under a claim. Rows whose lease was lost meanwhile are left alone.

    With `on_trial` it is done during an outage, to find out whether it is over.
    """
    # Django-Q2 kills a worker whose task takes too long. Before that the rest is given back, not lost.
    stop_at = time.monotonic() + settings.KANIKOJOBS_TASK_TIMEOUT.total_seconds() / 3
    held, given_back = _patiently(
        lambda: _begin_if_of_use(token=token, kaniko_jobs=kaniko_jobs, on_trial=on_trial), until=stop_at
    )
    if not held:
        return CreationResult(given_back=given_back)
    calls = make_calls(held, stop_at=stop_at, on_trial=on_trial)
    return _patiently(lambda: settle(calls, token=token), until=stop_at + 10)


def _begin_if_of_use(*, token: UUID, kaniko_jobs: Sequence[int], on_trial: bool) -> tuple[list[Held], int]:
    """The rows with their attempts opened; or none, and how many were given back because calls are of no use now."""
    held = [] if stopping.is_asked_for() else begin(token=token, kaniko_jobs=kaniko_jobs, on_trial=on_trial)
    return held, 0 if held else claims.release(token=token, kaniko_jobs=kaniko_jobs)


def _patiently(step: Callable[[], T], *, until: float) -> T:
    """Take a step in the database; while the database is away, again after a moment, until so late.

    Each step that is taken so can be taken twice: what a first one has committed unheard, a second one finds done.
    """
    delay = 0.05
    while True:
        try:
            return step()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() + delay > until:
                raise
            log.warning("database-away", error=f"{type(error).__name__}: {error}".splitlines()[0], retry_in=delay)
        time.sleep(delay)
        delay = min(1.0, 2 * delay)


def begin(*, token: UUID, kaniko_jobs: Sequence[int], on_trial: bool = False) -> list[Held]:
    """Open an attempt for each row that is still held, with a lease that outlasts the task; none during an outage."""
    with binding_cursor() as cursor:
        cursor.execute(
            # A worker can come to a row after its lease ran out and another claimed it: the claim is in the WHERE.
            # An attempt that is open already is one that a first `begin` has committed unheard.
            """
            WITH held AS (
                SELECT id, event_id, number, name, namespace, retries_used, overrides, leased_until
                FROM kanikojobs_kanikojob
                WHERE id = ANY (%(ids)s::bigint[]) AND claim = %(token)s AND state = 'creating'
                  AND (%(on_trial)s OR NOT EXISTS (SELECT FROM kanikojobs_outage WHERE ongoing))
                FOR NO KEY UPDATE
            ), renewed AS (
                -- Only where the task could outlast it: a new lease is a new entry in each of the row's indexes.
                UPDATE kanikojobs_kanikojob job SET leased_until = clock_timestamp() + make_interval(secs => %(lease)s)
                FROM held WHERE job.id = held.id
                  AND held.leased_until < clock_timestamp() + make_interval(secs => %(timeout)s)
            ), before AS (
                SELECT held.id AS kaniko_job_id, attempt.id, attempt.number, attempt.outcome
                FROM held CROSS JOIN LATERAL (
                    SELECT id, number, outcome FROM kanikojobs_jobattempt
                    WHERE kaniko_job_id = held.id ORDER BY number DESC LIMIT 1
                ) attempt
            ), opened AS (
                INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, worker)
                SELECT held.id, 1 + COALESCE(before.number, 0), %(worker)s
                FROM held LEFT JOIN before ON before.kaniko_job_id = held.id
                WHERE before.outcome IS DISTINCT FROM 'started'
                RETURNING id, kaniko_job_id, number
            ), attempt AS (
                SELECT id, kaniko_job_id, number FROM opened
                UNION ALL SELECT id, kaniko_job_id, number FROM before WHERE outcome = 'started'
            )
            SELECT held.id, attempt.id, attempt.number, held.retries_used, held.name, held.namespace, held.number,
                   event.source, event.event_id, event.third_party_id, event.parser_id, event.correlation_id,
                   event.job_name, event.priority, event.build_type, event.runtime, event.source_url,
                   event.build_timeout, event.data -> 'parameters' -> 'environment', event.traceparent, held.overrides,
                   profile.destination, profile.resources, profile.allowed_hosts
            FROM held JOIN attempt ON attempt.kaniko_job_id = held.id
            JOIN kanikojobs_jobstartevent event ON event.id = held.event_id
            LEFT JOIN kanikojobs_buildprofile profile ON profile.third_party_id = event.third_party_id
            """,
            {
                "lease": settings.KANIKOJOBS_LEASE.total_seconds(),
                "timeout": settings.KANIKOJOBS_TASK_TIMEOUT.total_seconds(),
                "ids": list(kaniko_jobs),
                "token": token,
                "worker": instance_name(),
                "on_trial": on_trial,
            },
        )
        rows = cursor.fetchall()
    order = {id: position for position, id in enumerate(kaniko_jobs)}
    return sorted((_held(*row) for row in rows), key=lambda job: order[job.id])


def _held(
    id: int,
    attempt: int,
    attempt_number: int,
    retries_used: int,
    name: str,
    namespace: str,
    number: int,
    *event: Any,
) -> Held:
    (source, event_id, third_party_id, parser_id, correlation_id, job_name, priority) = event[:7]
    (build_type, runtime, source_url, build_timeout, environment, traceparent, overrides) = event[7:14]
    profile = dict(zip(("destination", "resources", "allowed_hosts"), event[14:], strict=True))
    return Held(
        id=id,
        attempt=attempt,
        attempt_number=attempt_number,
        retries_used=retries_used,
        name=name,
        namespace=namespace,
        profile=profile if any(profile.values()) else None,
        build=Build(
            source=source,
            event_id=event_id,
            number=number,
            third_party_id=third_party_id,
            parser_id=parser_id,
            correlation_id=correlation_id,
            job_name=job_name,
            priority=priority,
            build_type=build_type,
            runtime=runtime,
            source_url=source_url,
            build_timeout=build_timeout,
            environment=json.loads(environment) if isinstance(environment, str) else environment or {},
            traceparent=traceparent,
        ).edited(json.loads(overrides) if isinstance(overrides, str) else overrides),
    )


@dataclass(slots=True)
class Calls:
    """What a task's calls came to, what it did not get to, and what was learned of the API server."""

    reached: list[tuple[Held, Verdict]] = field(default_factory=list)
    untried: list[Held] = field(default_factory=list)
    outage: ClusterUnavailable | None = None
    outage_is_over: bool = False


def make_calls(held: Sequence[Held], *, stop_at: float, on_trial: bool) -> Calls:
    """Make the calls one after the other, as far as there is time, and until one shows that the cluster is away."""
    calls = Calls(untried=list(held))
    started = time.monotonic()
    try:
        for job, manifest in [(job, verdicts.prepare(job)) for job in held]:
            started = time.monotonic()
            verdict = verdicts.attempt(job, manifest=manifest)
            calls.reached.append((calls.untried.pop(0), verdict))
            if _shows_an_outage(verdict, of=job.id, on_trial=on_trial):
                calls.outage = ClusterUnavailable(
                    reason=verdict.reason,
                    message=verdict.message,
                    http_status=verdict.http_status,
                    retry_after=verdict.retry_after,
                )
                calls.reached = [(job, _excused(verdict)) for job, verdict in calls.reached]
                break
            calls.outage_is_over = on_trial
            if time.monotonic() > stop_at or stopping.is_asked_for():
                break
    except TimeoutException:
        # Django-Q2's alarm, in the middle of a call. There are seconds left in which to write down what is known.
        if calls.untried:
            calls.reached.append((calls.untried.pop(0), verdicts.out_of_time(duration=time.monotonic() - started)))
    return calls


def _shows_an_outage(verdict: Verdict, *, of: int, on_trial: bool) -> bool:
    if verdict.sheds_load:
        _shed.add(of)
    else:
        _shed.clear()
    return verdict.outcome == Outcome.UNAVAILABLE or len(_shed) >= SHED_IN_A_ROW or (on_trial and verdict.sheds_load)


def _excused(verdict: Verdict) -> Verdict:
    """Being shed together with everybody costs no retry."""
    if not verdict.sheds_load:
        return verdict
    return replace(verdict, outcome=Outcome.UNAVAILABLE, spends_retry=False)


def settle(calls: Calls, *, token: UUID) -> CreationResult:
    """Write what the calls came to: an outage first, then attempts, states, dead letters and tallies together."""
    if calls.outage:
        _shed.clear()
        outages.begin(calls.outage)
    elif calls.outage_is_over:
        outages.end()
    reached, untried = calls.reached, calls.untried
    if not reached and not untried:
        return CreationResult()
    moves = [verdicts.move(job, verdict, token=token) for job, verdict in reached]
    with transaction.atomic():
        closed = _close_attempts(reached)
        moved = KanikoJob.objects.move(moves)
        if untried:
            _withdraw_attempts(untried)
            claims.release(token=token, kaniko_jobs=[job.id for job in untried])
        dead_letters.record_failed_creations(
            {move.id: move.message for move in moves if move.to == State.FAILED and move.id in moved}
        )
        if untried or any(move.to == State.QUEUED for move in moves):
            claims.notify()
        increments: dict[str, tallies.Increment] = {}
        for job, verdict in reached:
            if job.attempt in closed:
                increments.setdefault(f"creation/{verdict.outcome}", tallies.Increment()).observe(verdict.duration)
        increments |= durations.waits({move.id for move in moves if move.to == State.CREATED and move.id in moved})
        tallies.add(increments)
    logs.steps(
        __name__,
        "attempt-finished",
        (
            {
                "event_id": job.build.event_id,
                "correlation_id": job.build.correlation_id,
                "trace_id": job.build.traceparent[3:35],
                "kaniko_job": job.name,
                "attempt": job.attempt_number,
                "outcome": str(verdict.outcome),
                "reason": verdict.reason,
                "http_status": verdict.http_status,
                "ms": round(verdict.duration * 1000, 1),
            }
            for job, verdict in reached
        ),
    )
    tracing.attempted(reached)
    states = [move.to for move in moves if move.id in moved]
    return CreationResult(
        created=states.count(State.CREATED),
        retried=states.count(State.QUEUED),
        failed=states.count(State.FAILED),
        given_back=len(untried),
    )


def _close_attempts(reached: Sequence[tuple[Held, Verdict]]) -> set[int]:
    """Write the verdicts; return the attempts that were still open. One that was given up as lost stays so."""
    with binding_cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_jobattempt attempt SET
                outcome = verdict.outcome, http_status = verdict.http_status, reason = verdict.reason,
                message = verdict.message, duration = verdict.duration, finished_at = clock_timestamp()
            FROM unnest(%s::bigint[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::float8[])
                AS verdict (id, outcome, http_status, reason, message, duration)
            WHERE attempt.id = verdict.id AND attempt.outcome = 'started'
            RETURNING attempt.id
            """,
            [
                [job.attempt for job, _ in reached],
                [str(verdict.outcome) for _, verdict in reached],
                [verdict.http_status for _, verdict in reached],
                [verdict.reason for _, verdict in reached],
                [verdict.message for _, verdict in reached],
                [verdict.duration for _, verdict in reached],
            ],
        )
        return {row[0] for row in cursor.fetchall()}


def _withdraw_attempts(untried: Sequence[Held]) -> None:
    """No call was made for these: a row would say that one was."""
    JobAttempt.objects.filter(id__in=[job.attempt for job in untried], outcome=Outcome.STARTED).delete()
