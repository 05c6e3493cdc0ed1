"""A claimed Kaniko Job exists in Kubernetes, or is tried again later, or has failed with a reason.

Each try is a row before the call is made, so that no call goes unrecorded even if its worker is killed in it. The
name of the Job is a function of the event's identity and the number, so that a create whose answer was lost is found
again by the next try, which adopts the Job instead of making a second one.
"""

import json
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from kanikojobs import claims, dead_letters, kube, naming, outages, tallies
from kanikojobs.errors import ClusterUnavailable, CreationError, PermanentError, TransientError
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import JobAttempt, KanikoJob, Move
from kanikojobs.states import State

log = structlog.get_logger(__name__)

Outcome = JobAttempt.Outcome

LONGEST_DELAY = 60.0  # seconds between two tries, unless the server asks for longer


@dataclass(frozen=True, slots=True)
class Held:
    """A Kaniko Job that is held under a claim, with the attempt that has been opened for it."""

    id: int
    attempt: int
    attempt_number: int
    retries_used: int
    name: str
    namespace: str
    build: Build


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one call came to."""

    outcome: JobAttempt.Outcome
    duration: float
    http_status: int | None = None
    reason: str = ""
    message: str = ""
    job_uid: UUID | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class CreationResult:
    """How many of the claimed Kaniko Jobs came to what."""

    created: int = 0
    retried: int = 0
    failed: int = 0
    given_back: int = 0


def create(*, token: UUID, kaniko_jobs: Sequence[int]) -> CreationResult:
    """Create the Jobs that are held under a claim. Rows whose lease was lost meanwhile are left alone."""
    # Django-Q2 kills a worker whose task takes too long. Before that the rest is given back, not lost.
    stop_at = time.monotonic() + settings.KANIKOJOBS_TASK_TIMEOUT.total_seconds() / 3
    if outages.current():
        # Claimed before the outage began, and nothing was called yet.
        claims.release(token=token, kaniko_jobs=kaniko_jobs)
        return CreationResult(given_back=len(kaniko_jobs))
    held = begin(token=token, kaniko_jobs=kaniko_jobs)
    verdicts: list[tuple[Held, Verdict]] = []
    for job in held:
        verdict = attempt(job)
        verdicts.append((job, verdict))
        if verdict.outcome == Outcome.UNAVAILABLE:
            outages.begin(ClusterUnavailable(reason=verdict.reason, message=verdict.message))
            break
        if time.monotonic() > stop_at:
            break
    return settle(token=token, verdicts=verdicts, untried=held[len(verdicts) :])


def begin(*, token: UUID, kaniko_jobs: Sequence[int]) -> list[Held]:
    """Renew the lease of the rows that are still held, and open an attempt for each."""
    parameters: dict[str, Any] = {
        "lease": settings.KANIKOJOBS_LEASE,
        "ids": list(kaniko_jobs),
        "token": token,
        "worker": worker_name(),
    }
    with connection.cursor() as cursor:
        cursor.execute(
            # A worker can come to a row after its lease ran out and another claimed it: the claim is in the WHERE.
            """
            WITH held AS (
                UPDATE kanikojobs_kanikojob SET leased_until = clock_timestamp() + %(lease)s
                WHERE id = ANY (%(ids)s) AND claim = %(token)s AND state = 'creating'
                RETURNING id, event_id, number, name, namespace, retries_used
            ), opened AS (
                INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, worker)
                SELECT id, 1 + COALESCE(
                    (SELECT max(number) FROM kanikojobs_jobattempt WHERE kaniko_job_id = held.id), 0
                ), %(worker)s FROM held
                RETURNING id, kaniko_job_id, number
            )
            SELECT held.id, opened.id, opened.number, held.retries_used, held.name, held.namespace, held.number,
                   event.source, event.event_id, event.third_party_id, event.parser_id, event.correlation_id,
                   event.job_name, event.priority, event.build_type, event.runtime, event.source_url,
                   event.build_timeout, event.data -> 'parameters' -> 'environment', event.traceparent
            FROM held JOIN opened ON opened.kaniko_job_id = held.id
            JOIN kanikojobs_jobstartevent event ON event.id = held.event_id
            """,
            parameters,
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
    (build_type, runtime, source_url, build_timeout, environment, traceparent) = event[7:]
    return Held(
        id=id,
        attempt=attempt,
        attempt_number=attempt_number,
        retries_used=retries_used,
        name=name,
        namespace=namespace,
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
        ),
    )


def attempt(job: Held) -> Verdict:
    """Make one call to create a Job, and say what it came to. Raises nothing that the API can cause."""
    start = time.monotonic()
    try:
        seen, outcome = _create_or_adopt(job)
        return Verdict(
            outcome=outcome,
            duration=time.monotonic() - start,
            http_status=201 if outcome == Outcome.CREATED else 409,
            job_uid=seen.uid,
        )
    except CreationError as error:
        duration = time.monotonic() - start
        error = second_opinion(error)
        return Verdict(
            outcome=_outcome_of(error),
            duration=duration,
            http_status=error.http_status,
            reason=error.reason,
            message=error.message,
            retry_after=getattr(error, "retry_after", None),
        )


def _create_or_adopt(job: Held) -> tuple[kube.JobSeen, JobAttempt.Outcome]:
    body = job_manifest(build=job.build, options=build_options())
    # The row's name and namespace, not today's settings: a retry must find what an earlier try may have made.
    body["metadata"] |= {"name": job.name, "namespace": job.namespace}
    try:
        return kube.create_job(body, namespace=job.namespace), Outcome.CREATED
    except kube.AlreadyExists:
        seen = kube.get_job(job.name, namespace=job.namespace)
    if seen is None:
        raise TransientError(reason="Vanished", message="A Job of this name was there, and gone a moment later.")
    if not _is_ours(seen, job):
        raise PermanentError(
            reason="NameTaken",
            message=f"A Job {job.name} that was not made for this event is in namespace {job.namespace}.",
            http_status=409,
        )
    if seen.terminating:
        raise TransientError(
            reason="Terminating",
            message="A Job of this name is being deleted and holds the name until it is gone.",
            http_status=409,
        )
    return seen, Outcome.ADOPTED


def _is_ours(seen: kube.JobSeen, job: Held) -> bool:
    return (
        seen.labels.get("app.kubernetes.io/managed-by") == "kanikojobs"
        and seen.labels.get(f"{naming.PREFIX}number") == str(job.build.number)
        and seen.annotations.get(f"{naming.PREFIX}event-id") == job.build.event_id
        and seen.annotations.get(f"{naming.PREFIX}source") == job.build.source
    )


def second_opinion(error: CreationError) -> CreationError:
    """Tell an outage from one event's bad luck: after an error that could be either, ask with one cheap call."""
    if isinstance(error, TransientError) and error.http_status != 409:
        try:
            kube.probe()
        except ClusterUnavailable as outage:
            return outage
        except TransientError as outage:
            return ClusterUnavailable(reason=outage.reason, message=outage.message, http_status=outage.http_status)
        except CreationError:
            return error
    if isinstance(error, ClusterUnavailable):
        return TransientError(reason=error.reason, message=error.message, http_status=error.http_status)
    return error


def _outcome_of(error: CreationError) -> JobAttempt.Outcome:
    if isinstance(error, ClusterUnavailable):
        return Outcome.UNAVAILABLE
    return Outcome.RETRY if isinstance(error, TransientError) else Outcome.REFUSED


def settle(*, token: UUID, verdicts: Sequence[tuple[Held, Verdict]], untried: Sequence[Held]) -> CreationResult:
    """Write what the calls came to: attempts, states, dead letters and tallies, in one transaction."""
    if not verdicts and not untried:
        return CreationResult()
    moves = [_move(job, verdict, token=token) for job, verdict in verdicts]
    with transaction.atomic():
        closed = _close_attempts(verdicts)
        moved = KanikoJob.objects.move(moves)
        if untried:
            _withdraw_attempts(untried)
            claims.release(token=token, kaniko_jobs=[job.id for job in untried])
        dead_letters.record_failed_creations(
            {move.id: move.message for move in moves if move.to == State.FAILED and move.id in moved}
        )
        increments: dict[str, tallies.Increment] = {}
        for job, verdict in verdicts:
            if job.attempt not in closed:
                continue
            increments.setdefault(f"creation/{verdict.outcome}", tallies.Increment()).observe(verdict.duration)
        if untried or any(move.to == State.QUEUED for move in moves):
            claims.notify()
        tallies.add(increments)
    for job, verdict in verdicts:
        log.info(
            "attempt-finished",
            event_id=job.build.event_id,
            correlation_id=job.build.correlation_id,
            kaniko_job=job.name,
            attempt=job.attempt_number,
            outcome=str(verdict.outcome),
            reason=verdict.reason,
            http_status=verdict.http_status,
            ms=round(verdict.duration * 1000, 1),
        )
    states = [move.to for move in moves if move.id in moved]
    return CreationResult(
        created=states.count(State.CREATED),
        retried=states.count(State.QUEUED),
        failed=states.count(State.FAILED),
        given_back=len(untried),
    )


def _move(job: Held, verdict: Verdict, *, token: UUID) -> Move:
    if verdict.outcome in (Outcome.CREATED, Outcome.ADOPTED):
        # Without the claim: the Job exists, whoever holds the row by now.
        return Move(id=job.id, to=State.CREATED, job_uid=verdict.job_uid)
    if verdict.outcome == Outcome.REFUSED:
        return Move(id=job.id, to=State.FAILED, reason=verdict.reason, message=verdict.message, claim=token)
    if verdict.outcome == Outcome.UNAVAILABLE:
        # Due at once, but nothing is claimed until the outage is over; and no retry is spent on it.
        return Move(id=job.id, to=State.QUEUED, reason=verdict.reason, message=verdict.message, claim=token)
    if job.retries_used >= settings.KANIKOJOBS_MAX_RETRIES:
        return Move(
            id=job.id,
            to=State.FAILED,
            reason="CreateRetriesExhausted",
            message=f"{job.retries_used + 1} tries failed, the last with {verdict.reason}: {verdict.message}",
            claim=token,
        )
    delay = retry_delay(retries_used=job.retries_used, retry_after=verdict.retry_after)
    return Move(
        id=job.id,
        to=State.QUEUED,
        reason=verdict.reason,
        message=verdict.message,
        claim=token,
        run_at=datetime.now(UTC) + timedelta(seconds=delay),
        spend_retry=True,
    )


def retry_delay(*, retries_used: int, retry_after: float | None) -> float:
    """Seconds until the next try: exponential with full jitter, and no sooner than the server asked for.

    Full jitter spreads the retries of a burst over the whole interval instead of sending them back as a burst.
    """
    base = settings.KANIKOJOBS_RETRY_DELAY.total_seconds()
    delay = random.uniform(0, min(LONGEST_DELAY, base * 2**retries_used))  # noqa: S311 - no secret
    return delay if retry_after is None else retry_after + delay


def _close_attempts(verdicts: Sequence[tuple[Held, Verdict]]) -> set[int]:
    """Write the verdicts; return the attempts that were still open. One that was given up as lost stays so."""
    with connection.cursor() as cursor:
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
                [job.attempt for job, _ in verdicts],
                [str(verdict.outcome) for _, verdict in verdicts],
                [verdict.http_status for _, verdict in verdicts],
                [verdict.reason[:64] for _, verdict in verdicts],
                [verdict.message for _, verdict in verdicts],
                [verdict.duration for _, verdict in verdicts],
            ],
        )
        return {row[0] for row in cursor.fetchall()}


def _withdraw_attempts(untried: Sequence[Held]) -> None:
    """No call was made for these: a row would say that one was."""
    JobAttempt.objects.filter(id__in=[job.attempt for job in untried], outcome=Outcome.STARTED).delete()


def worker_name() -> str:
    """Which process, on which host: as `ps` and `kubectl logs` know it."""
    return f"{socket.gethostname()}/{os.getpid()}"[:128]
