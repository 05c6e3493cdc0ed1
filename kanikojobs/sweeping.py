"""Where rows and cluster have come apart, and how that is put right: found after each list, and written down.

A row whose Job is gone fails as `JobVanished`. A Job with our label and no row is reported, not touched: it may be of
another installation. A row left in `creating` whose Job exists becomes `created`. Each finding is a row and a count.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from kanikojobs import tallies
from kanikojobs.leader import Leadership
from kanikojobs.models import Drift, KanikoJob, Move
from kanikojobs.observed import Job
from kanikojobs.states import State

Kind = Drift.Kind


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row about whose Job the API server has to be asked."""

    id: int
    name: str
    job_uid: str
    state: State
    reason: str = ""
    message: str = ""


def suspects(listed: Collection[str], *, before: datetime) -> list[Suspect]:
    """Rows whose Job was there before the list began and is not in it. Each is to be asked for by name."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, name, job_uid, state FROM kanikojobs_kanikojob
            WHERE namespace = %s AND state IN ('created', 'running') AND created_at < %s
            """,
            [settings.KANIKOJOBS_NAMESPACE, before],
        )
        return [
            Suspect(id, name, str(uid), State(state))
            for id, name, uid, state in cursor.fetchall()
            if name not in listed
        ]


def to_be_cancelled() -> list[Suspect]:
    """Rows that an operator wants cancelled and whose Job, if there is one, has to go first.

    A row that is being created is its worker's until the lease is over; its Job may come to be at any moment.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, name, job_uid, state, reason, message FROM kanikojobs_kanikojob
            WHERE namespace = %s AND cancel_requested_at IS NOT NULL
              AND state IN ('queued', 'creating', 'created', 'running')
              AND (state <> 'creating' OR leased_until < clock_timestamp() - interval '30 seconds')
            LIMIT 500
            """,
            [settings.KANIKOJOBS_NAMESPACE],
        )
        return [Suspect(row[0], row[1], str(row[2] or ""), State(row[3]), *row[4:]) for row in cursor.fetchall()]


def repair_creating(seen: Iterable[Job], *, leadership: Leadership) -> int:
    """Rows whose worker is long gone but whose Job exists are `created`; return how many."""
    by_name = {job.name: job for job in seen}
    with transaction.atomic():
        leadership.check()
        with connection.cursor() as cursor:
            # The cluster's own claims do this too, a moment after the lease; this is for when no cluster runs.
            cursor.execute(
                """
                SELECT id, name FROM kanikojobs_kanikojob
                WHERE namespace = %s AND state = 'creating' AND leased_until < clock_timestamp() - interval '30 seconds'
                """,
                [settings.KANIKOJOBS_NAMESPACE],
            )
            stuck = {id: by_name[name] for id, name in cursor.fetchall() if name in by_name}
        moved = KanikoJob.objects.move(
            [Move(id=id, to=State.CREATED, job_uid=UUID(job.uid)) for id, job in stuck.items()]
        )
        counts = _report(
            [
                Drift(
                    kind=Kind.STUCK_CREATING,
                    namespace=settings.KANIKOJOBS_NAMESPACE,
                    name=job.name,
                    job_uid=job.uid,
                    kaniko_job_id=id,
                    message="Its worker was lost after the create; the Job exists, so the row is created.",
                )
                for id, job in stuck.items()
                if id in moved
            ]
        )
        tallies.add(tallies.counts(counts))
    return len(moved)


def close_lost_attempts(*, leadership: Leadership) -> int:
    """Attempts whose worker is long gone and whose Kaniko Job went on without it are `lost`; return how many.

    While the Kaniko Job is `creating` that is the business of the claims. But its Job can be seen before the worker has
    written down the answer, and then there is no lease any more whose end would tell that nobody is going to.
    """
    with transaction.atomic():
        leadership.check()
        with connection.cursor() as cursor:
            # Not those of all time: it is the day's part of the index on the time that makes this cheap.
            cursor.execute(
                """
                UPDATE kanikojobs_jobattempt attempt SET outcome = 'lost', finished_at = clock_timestamp(),
                    reason = 'WorkerLost', message = 'Its worker was gone before the answer was recorded.'
                FROM kanikojobs_kanikojob job
                WHERE job.id = attempt.kaniko_job_id AND job.state <> 'creating' AND attempt.outcome = 'started'
                  AND attempt.started_at > statement_timestamp() - interval '1 day'
                  AND attempt.started_at < statement_timestamp() - make_interval(secs => %s) - interval '30 seconds'
                """,
                [settings.KANIKOJOBS_LEASE.total_seconds()],
            )
            lost = cursor.rowcount
        tallies.add(tallies.counts({"creation/lost": lost}))
    return lost


def report_vanished(rows: Sequence[tuple[int, str, UUID | None]]) -> Counter[str]:
    """Write down rows that failed as `JobVanished`; return what to count."""
    return _report(
        [
            Drift(
                kind=Kind.JOB_VANISHED,
                namespace=settings.KANIKOJOBS_NAMESPACE,
                name=name,
                job_uid=str(uid or ""),
                kaniko_job_id=id,
                message="Deleted by hand, or by its time to live while nobody watched.",
            )
            for id, name, uid in rows
        ]
    )


def report_unknown(jobs: Sequence[Job]) -> Counter[str]:
    """Write down Jobs that have our label and no row; return what to count."""
    return _report(
        [
            Drift(
                kind=Kind.NO_ROW,
                namespace=settings.KANIKOJOBS_NAMESPACE,
                name=job.name,
                job_uid=job.uid,
                message=f"Says that it is number {job.number or '?'} of the event {job.event_id or '?'} "
                f"from {job.source or '?'}."[:1000],
            )
            for job in jobs
        ]
    )


def report_cancelled_runs(row: int, name: str, uid: str) -> None:
    """Write down a Job that ran although its row was cancelled, and was deleted for that."""
    with transaction.atomic():
        found = Drift(
            kind=Kind.CANCELLED_RUNS,
            namespace=settings.KANIKOJOBS_NAMESPACE,
            name=name,
            job_uid=uid,
            kaniko_job_id=row,
            message="Created by a call whose answer came after the cancellation; deleted.",
        )
        tallies.add(tallies.counts(_report([found])))


def _report(findings: Sequence[Drift]) -> Counter[str]:
    """Keep each finding once; return the new ones as counts by series."""
    counts: Counter[str] = Counter()
    with connection.cursor() as cursor:
        for drift in findings:
            cursor.execute(
                """
                INSERT INTO kanikojobs_drift (kind, namespace, name, job_uid, kaniko_job_id, message)
                VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
                """,
                [drift.kind, drift.namespace, drift.name, drift.job_uid, drift.kaniko_job_id, drift.message],
            )
            counts[f"drift/{drift.kind}"] += cursor.rowcount
    return counts
