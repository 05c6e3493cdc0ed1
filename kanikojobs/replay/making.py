"""What a replay makes of its verdicts: new events, each with its first Kaniko Job, and next Kaniko Jobs of events that
are recorded. The order of first arrival is kept within a third party and parser."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from kanikojobs import event_rows, intake, naming
from kanikojobs.errors import Fault
from kanikojobs.models import JobStartEvent, KanikoJob, ReplayItem
from kanikojobs.replay.forecast import CONFLICT, Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Made:
    """What a verdict came to. It differs from the verdict only where somebody else was faster a moment ago."""

    verdict: Verdict
    outcome: ReplayItem.Outcome
    detail: str = ""
    event_id: int | None = None
    kaniko_job_id: int | None = None


def make(verdicts: Sequence[Verdict]) -> list[Made]:
    made = {result.verdict.candidate.letter_id: result for part in _in_order(verdicts) for result in _make_part(part)}
    events = {
        (result.verdict.new.source, result.verdict.new.event_id): result.event_id
        for result in made.values()
        if result.verdict.new is not None
    }
    jobs = {result.event_id: result.kaniko_job_id for result in made.values() if result.kaniko_job_id is not None}
    for verdict in verdicts:
        if verdict.candidate.letter_id in made:
            continue
        event_id = verdict.recorded.id if verdict.recorded else None
        if verdict.outcome == Outcome.DUPLICATE and verdict.new is not None:
            event_id = events.get((verdict.new.source, verdict.new.event_id))
        job_id = verdict.recorded.last_job_id if verdict.recorded and verdict.outcome != Outcome.CONFLICT else None
        if verdict.outcome == Outcome.DUPLICATE:
            # Of an event that this step has queued, the Kaniko Job that it made and not the one before.
            job_id = jobs.get(event_id, job_id)
        made[verdict.candidate.letter_id] = Made(verdict, verdict.outcome, verdict.detail, event_id, job_id)
    return [made[verdict.candidate.letter_id] for verdict in verdicts]


def _in_order(verdicts: Sequence[Verdict]) -> Iterator[list[Verdict]]:
    """Those to be queued, in parts that may each be written as new events first and next numbers after.

    A new part begins where that would turn the order round within a third party and parser.
    """
    part: list[Verdict] = []
    retried: set[tuple[str, str]] = set()
    for verdict in verdicts:
        if verdict.outcome != Outcome.QUEUED:
            continue
        if verdict.new is not None and verdict.parser in retried:
            yield part
            part, retried = [], set()
        if verdict.new is None:
            retried.add(verdict.parser)
        part.append(verdict)
    if part:
        yield part


def _make_part(part: Sequence[Verdict]) -> list[Made]:
    try:
        with transaction.atomic():
            new = [verdict for verdict in part if verdict.new is not None]
            return _record(new) + _retry([verdict for verdict in part if verdict.new is None])
    except DatabaseError as error:
        if not intake.is_about_a_value(error):
            raise
        if len(part) > 1:
            # PostgreSQL refuses some value that validation let through. Its neighbours are replayed without it.
            middle = len(part) // 2
            return _make_part(part[:middle]) + _make_part(part[middle:])
        fault = Fault("", f"PostgreSQL cannot store it: {str(error).splitlines()[0]}")
        return [Made(part[0], Outcome.INVALID, str(fault))]


def _record(verdicts: Sequence[Verdict]) -> list[Made]:
    """New events, each with its first Kaniko Job."""
    events = [verdict.new for verdict in verdicts if verdict.new is not None]
    if not events:
        return []
    ready = event_rows.insertion(
        [event_rows.row_of(event) for event in events],
        times_seen={(event.identity, event.content_hash): 1 for event in events},
    )
    stored = event_rows.insert_events(ready, origin=JobStartEvent.Origin.REPLAY)
    jobs = dict(
        KanikoJob.objects.filter(event_id__in=[row.id for row in stored.values()], number=1).values_list(
            "event_id", "id"
        )
    )
    made: list[Made] = []
    for verdict, event in zip(verdicts, events, strict=True):
        row = stored[event.identity]
        if row.inserted:
            made.append(Made(verdict, Outcome.QUEUED, event_id=row.id, kaniko_job_id=jobs[row.id]))
        elif row.content_hash == event.content_hash:
            made.append(Made(verdict, Outcome.ACTIVE, event_id=row.id, kaniko_job_id=jobs.get(row.id)))
        else:
            made.append(Made(verdict, Outcome.CONFLICT, str(CONFLICT), event_id=row.id))
    return made


def _retry(verdicts: Sequence[Verdict]) -> list[Made]:
    """The next Kaniko Job of each recorded event, with what was changed for the last one."""
    events = [verdict.recorded for verdict in verdicts if verdict.recorded is not None]
    if not events:
        return []
    with connection.cursor() as cursor:
        # Where somebody else was faster, one of the unique indexes says so: the event is being built already.
        cursor.execute(
            """
            INSERT INTO kanikojobs_kanikojob (
                event_id, number, name, namespace, priority, third_party_id, parser_id, overrides
            )
            SELECT event.id, retried.number, retried.name, %s,
                   COALESCE((last.overrides ->> 'priority')::smallint, event.priority),
                   event.third_party_id, event.parser_id, last.overrides
            FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::bigint[]) WITH ORDINALITY
                AS retried (event_id, number, name, last_job_id, position)
            JOIN kanikojobs_jobstartevent event ON event.id = retried.event_id
            LEFT JOIN kanikojobs_kanikojob last ON last.id = retried.last_job_id
            ORDER BY retried.position
            ON CONFLICT DO NOTHING
            RETURNING event_id, id
            """,
            [
                settings.KANIKOJOBS_NAMESPACE,
                [event.id for event in events],
                [event.last_number + 1 for event in events],
                [
                    naming.kubernetes_name(
                        source=event.source,
                        event_id=event.event_id,
                        number=event.last_number + 1,
                        job_name=event.job_name,
                    )
                    for event in events
                ],
                [event.last_job_id for event in events],
            ],
        )
        jobs = dict(cursor.fetchall())
    return [
        Made(
            verdict,
            Outcome.QUEUED if event.id in jobs else Outcome.ACTIVE,
            event_id=event.id,
            kaniko_job_id=jobs.get(event.id),
        )
        for verdict, event in zip(verdicts, events, strict=True)
    ]
