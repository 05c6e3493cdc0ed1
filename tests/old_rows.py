"""Rows as a long life leaves them, for the tests of retention: made by SQL in the server, and old."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db import connection

from kanikojobs.models import (
    ContainerLog,
    DeadLetter,
    JobEvidence,
    JobStartEvent,
    KanikoJob,
    OutcomeEvent,
)
from tests.factories import a_dead_letter, a_kaniko_job, an_attempt, an_event

TABLES = (
    "kanikojobs_jobstartevent",
    "kanikojobs_kanikojob",
    "kanikojobs_jobattempt",
    "kanikojobs_jobevidence",
    "kanikojobs_containerlog",
    "kanikojobs_outcomeevent",
    "kanikojobs_deadletter",
    "kanikojobs_replayitem",
)


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def an_old_event(*, days: float = 100, **fields: Any) -> JobStartEvent:
    return an_event(**{"received_at": ago(days), "last_seen_at": ago(days)} | fields)


def a_built_event(*, days: float = 100) -> JobStartEvent:
    """An event with a Kaniko Job that succeeded so long ago, and all that is written of one."""
    event = an_old_event(days=days)
    job = a_kaniko_job(event=event, state="succeeded", queued_at=ago(days), finished_at=ago(days))
    an_attempt(kaniko_job=job, outcome="created", started_at=ago(days), finished_at=ago(days))
    JobEvidence.objects.create(kaniko_job=job, noted_at=ago(days), captured_at=ago(days))
    ContainerLog.objects.create(kaniko_job=job, pod="pod", container="kaniko", text="INFO", captured_at=ago(days))
    OutcomeEvent.objects.create(kaniko_job=job, made_at=ago(days), published_at=ago(days))
    return event


def a_failed_event(*, days: float = 100, **letter: Any) -> DeadLetter:
    """An event whose build failed so long ago, and the dead letter of it."""
    event = an_old_event(days=days)
    job = a_kaniko_job(event=event, state="failed", queued_at=ago(days), finished_at=ago(days))
    an_attempt(kaniko_job=job, outcome="created", started_at=ago(days), finished_at=ago(days))
    values = {
        "cause": "build-failed",
        "event": event,
        "kaniko_job": job,
        "ce_source": event.source,
        "ce_id": event.event_id,
        "first_died_at": ago(days),
        "last_died_at": ago(days),
    }
    return a_dead_letter(**values | letter)


def many_built_events(count: int, *, days: float = 100) -> None:
    """So many events, each with its Kaniko Job, attempt, evidence and log. One in ten has an open dead letter."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH event AS (
                INSERT INTO kanikojobs_jobstartevent (
                    event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id,
                    parser_id, correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout,
                    content_hash, origin, received_at, last_seen_at
                )
                SELECT %(prefix)s || n, 'tests', 'type', '1.0', '', '', '', '{}', 'third-party', 'parser-' || n, '',
                       'job', 5, 'container', '', '', 1800, sha256(n::text::bytea), 'queue', %(at)s, %(at)s
                FROM generate_series(1, %(count)s) n RETURNING id, event_id
            ), job AS (
                INSERT INTO kanikojobs_kanikojob (
                    event_id, state, name, namespace, job_uid, priority, third_party_id, parser_id, place, queued_at,
                    created_at, finished_at
                )
                SELECT id, CASE WHEN id %% 10 = 0 THEN 'failed' ELSE 'succeeded' END, 'job-' || id, 'builds',
                       gen_random_uuid(), 5, 'third-party', 'parser', 0, %(at)s, %(at)s, %(at)s
                FROM event ORDER BY id RETURNING id, event_id, state
            ), attempt AS (
                INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, outcome, started_at, finished_at)
                SELECT id, 1, 'created', %(at)s, %(at)s FROM job
            ), evidence AS (
                INSERT INTO kanikojobs_jobevidence (kaniko_job_id, noted_at, captured_at)
                SELECT id, %(at)s, %(at)s FROM job
            ), log AS (
                INSERT INTO kanikojobs_containerlog (kaniko_job_id, pod, container, text, captured_at)
                SELECT id, 'pod', 'kaniko', 'INFO', %(at)s FROM job
            )
            INSERT INTO kanikojobs_deadletter (
                cause, origin, reason, fingerprint, body, message_hash, event_id, kaniko_job_id, first_died_at,
                last_died_at
            )
            SELECT 'build-failed', 'queue', 'failed', 'f', '', sha256(id::text::bytea), event_id, id, %(at)s, %(at)s
            FROM job WHERE state = 'failed'
            """,
            {"prefix": f"{uuid4()}-", "count": count, "at": ago(days)},
        )


def row_counts() -> dict[str, int]:
    """How many rows each table has."""
    with connection.cursor() as cursor:
        counts = {}
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
            counts[table] = cursor.fetchone()[0]
    return counts


def jobs_without_all_of_their_rows() -> int:
    """Kaniko Jobs that have lost some of what `many_built_events` has given them."""
    return (
        KanikoJob.objects.filter(attempts=None).count()
        + KanikoJob.objects.filter(evidence=None).count()
        + KanikoJob.objects.filter(logs=None).count()
    )
