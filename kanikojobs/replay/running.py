"""Taking the next items of a run, in steps: each is one transaction that makes what it says it made.

A step is due at the run's `next_step_at`, which is also its token: whoever claims a due step moves that time, and the
step is taken only under the time that its claimer wrote. A process that dies between the two leaves the run due again
a few seconds later; one that dies within the transaction leaves nothing. So it does not matter who drives, how many
at once, or how often they are killed.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from kanikojobs import claims, event_rows, failure_groups, intake, naming, tallies
from kanikojobs.errors import Fault
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob, ReplayItem, ReplayRun
from kanikojobs.replay import forecast, results
from kanikojobs.replay.forecast import CONFLICT, Ahead, Outcome, Verdict

log = structlog.get_logger(__name__)

State = ReplayRun.State

# How long a claimed step may wait for a worker before it is due again.
CLAIM_LEASE = timedelta(seconds=5)
# A run with a rate is handed over in this many steps per second at most: smooth, and not a transaction per item.
STEPS_PER_SECOND = 2
# A run that fell behind (a restart, a slow database) catches up by no more than this.
MOST_CATCHING_UP = timedelta(seconds=1)
# Settled by the replay: the dead letter needs nobody any more.
SETTLES = (Outcome.QUEUED, Outcome.DUPLICATE, Outcome.ALREADY_BUILT, Outcome.ACTIVE)


@dataclass(frozen=True, slots=True)
class DueStep:
    """A claimed step of a run, and the time that proves the claim."""

    run_id: int
    token: datetime


def claim_due(*, most: int = 10, run_id: int | None = None) -> list[DueStep]:
    """Claim the steps that are due, or the one of this run."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_replayrun SET next_step_at = clock_timestamp() + %(lease)s::interval WHERE id IN (
                SELECT id FROM kanikojobs_replayrun
                WHERE state IN ('running', 'probing', 'settling') AND next_step_at <= clock_timestamp()
                  AND (%(run)s::bigint IS NULL OR id = %(run)s)
                ORDER BY next_step_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
            ) RETURNING id, next_step_at
            """,
            {"lease": f"{CLAIM_LEASE.total_seconds()} seconds", "run": run_id, "most": most},
        )
        return [DueStep(id, token) for id, token in cursor.fetchall()]


def seconds_until_due() -> float | None:
    """How long until the next step of any run is due; None if no run is going."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXTRACT(epoch FROM min(next_step_at) - clock_timestamp())::float8 FROM kanikojobs_replayrun
            WHERE state IN ('running', 'probing', 'settling')
            """
        )
        seconds: float | None = cursor.fetchone()[0]
        return seconds


def advance(due: DueStep, *, seconds: float = 0.0) -> ReplayRun | None:
    """Take a claimed step, and those that are due right after it for so many seconds; return the run after them.

    None if the claim was lost: somebody else goes on, or the run is paused, cancelled or finished.
    """
    stop_at = time.monotonic() + seconds
    run = step(due)
    while run is not None and run.is_live and time.monotonic() < stop_at:
        following = claim_due(run_id=run.pk)
        if not following:
            break
        run = step(following[0]) or run
    return run


def first_step(run: ReplayRun) -> ReplayRun:
    """Take the first step of a run at once, for whoever waits for a short one; the rest is the cluster's."""
    for due in claim_due(run_id=run.pk):
        run = step(due) or run
    return run


def step(due: DueStep) -> ReplayRun | None:
    """Take the next items of a run, or look what became of them: one transaction."""
    with transaction.atomic():
        run = (
            ReplayRun.objects.select_for_update()
            .filter(pk=due.run_id, state__in=ReplayRun.LIVE, next_step_at=due.token)
            .first()
        )
        if run is None:
            return None
        if run.state == State.RUNNING:
            _take(run)
        else:
            results.look(run)
    return run


def _take(run: ReplayRun) -> None:
    size = _size(run)
    items = list(run.items.filter(outcome=Outcome.PENDING).order_by("position")[:size])
    counted = _handle(run, items)
    run.handled += len(items)
    for outcome, count in counted.items():
        name = outcome.value.replace("-", "_")
        setattr(run, name, getattr(run, name) + count)
    results.collect(run)
    moment = _now()
    if len(items) < size or run.handled >= run.total:
        results.begin_to_settle(run, now=moment)
    elif run.handled == run.probe:
        results.begin_to_probe(run, now=moment)
    elif not results.stopped_by_failures(run):
        pause = timedelta(seconds=len(items) / run.rate) if run.rate else timedelta()
        planned = run.next_step_at - CLAIM_LEASE + pause
        run.next_step_at = max(planned, moment - MOST_CATCHING_UP)
    run.save()
    log.info("replay-step", run=run.pk, state=run.state, **{str(outcome): n for outcome, n in counted.items()})
    if run.is_live:
        claims.notify()


def _size(run: ReplayRun) -> int:
    """How many items the next step takes: within the batch, the rate, and what is left of the probe."""
    size = run.batch
    if run.rate:
        size = min(size, max(1, round(run.rate / STEPS_PER_SECOND)))
    if run.handled < run.probe:
        size = min(size, run.probe - run.handled)
    return size


def _handle(run: ReplayRun, items: Sequence[ReplayItem]) -> Counter[ReplayItem.Outcome]:
    """Make of each item what the forecast says, and write down what was made."""
    if not items:
        return Counter()
    # Locked, so that nobody discards or mends one meanwhile; in the order of ids, as everybody locks them.
    states = dict(
        DeadLetter.objects.select_for_update()
        .filter(pk__in=[item.letter_id for item in items])
        .order_by("pk")
        .values_list("pk", "state")
    )
    open_items = [item for item in items if states.get(item.letter_id) == DeadLetter.State.OPEN]
    for item in items:
        if item not in open_items:
            item.outcome = Outcome.GONE
    verdicts = forecast.foresee(
        forecast.candidates(
            [item.letter_id for item in open_items],
            mended={item.letter_id: bytes(item.body) for item in open_items if item.body is not None},
        ),
        ahead=Ahead(),
        in_run=lambda events: _queued_in(run, events),
    )
    by_letter = {item.letter_id: item for item in open_items}
    made = _make(verdicts)
    settled: list[DeadLetter] = []
    for result in made:
        item = by_letter[result.verdict.candidate.letter_id]
        item.outcome, item.detail = result.outcome, result.detail
        item.event_id, item.kaniko_job_id = result.event_id, result.kaniko_job_id
        if result.outcome in SETTLES:
            settled.append(DeadLetter(pk=item.letter_id, replayed_as_id=result.event_id))
    moment = _now()
    for item in items:
        item.at = moment
    ReplayItem.objects.bulk_update(items, ["outcome", "detail", "event", "kaniko_job", "at"], batch_size=500)
    _settle(settled)
    fingerprints = {result.verdict.candidate.letter_id: result.verdict.candidate.fingerprint for result in made}
    failure_groups.note_settled([fingerprints[letter.pk] for letter in settled], replayed=True)
    counted = Counter(Outcome(item.outcome) for item in items)
    recorded = sum(result.verdict.new is not None and result.outcome == Outcome.QUEUED for result in made)
    tallies.add(
        tallies.counts(
            {f"replay/{outcome}": count for outcome, count in counted.items()}
            | {f"intake/{JobStartEvent.Origin.REPLAY}/recorded": recorded}
        )
    )
    return counted


def _queued_in(run: ReplayRun, events: Collection[int]) -> set[int]:
    """Which of these events this run has queued before."""
    found = ReplayItem.objects.filter(run=run, outcome=Outcome.QUEUED, event_id__in=events)
    return set(found.values_list("event_id", flat=True))


def _settle(letters: Sequence[DeadLetter]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_deadletter letter SET
                state = 'replayed', replayed_as_id = settled.event_id, settled_at = clock_timestamp()
            FROM unnest(%s::bigint[], %s::bigint[]) AS settled (id, event_id) WHERE letter.id = settled.id
            """,
            [[letter.pk for letter in letters], [letter.replayed_as_id for letter in letters]],
        )


@dataclass(frozen=True, slots=True)
class Made:
    """What a verdict came to. It differs from the verdict only where somebody else was faster a moment ago."""

    verdict: Verdict
    outcome: ReplayItem.Outcome
    detail: str = ""
    event_id: int | None = None
    kaniko_job_id: int | None = None


def _make(verdicts: Sequence[Verdict]) -> list[Made]:
    made = {result.verdict.candidate.letter_id: result for part in _in_order(verdicts) for result in _make_part(part)}
    events = {
        (result.verdict.new.source, result.verdict.new.event_id): result.event_id
        for result in made.values()
        if result.verdict.new is not None
    }
    for verdict in verdicts:
        if verdict.candidate.letter_id in made:
            continue
        event_id = verdict.recorded.id if verdict.recorded else None
        if verdict.outcome == Outcome.DUPLICATE and verdict.new is not None:
            event_id = events.get((verdict.new.source, verdict.new.event_id))
        job_id = verdict.recorded.last_job_id if verdict.recorded and verdict.outcome != Outcome.CONFLICT else None
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
    stored = event_rows.insert_events(
        [event_rows.row_of(event) for event in events],
        times_seen={((event.source, event.event_id), event.content_hash): 1 for event in events},
        origin=JobStartEvent.Origin.REPLAY,
    )
    jobs = dict(
        KanikoJob.objects.filter(event_id__in=[row.id for row in stored.values()], number=1).values_list(
            "event_id", "id"
        )
    )
    made: list[Made] = []
    for verdict, event in zip(verdicts, events, strict=True):
        row = stored[event.source, event.event_id]
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


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment
