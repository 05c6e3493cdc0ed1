"""The items of one step of a replay: locked, foreseen, made, and what came of each written down, in one transaction."""

from collections import Counter
from collections.abc import Collection, Sequence

from django.db import connection

from kanikojobs import tallies
from kanikojobs.models import DeadLetter, JobStartEvent, ReplayItem, ReplayRun
from kanikojobs.replay import forecast, making
from kanikojobs.replay.forecast import Ahead, Outcome
from kanikojobs.replay.settling import Settled, settle
from kanikojobs.storable import printable

# Settled by the replay: the dead letter needs nobody any more.
SETTLES = (Outcome.QUEUED, Outcome.DUPLICATE, Outcome.ALREADY_BUILT, Outcome.ACTIVE)


def handle(run: ReplayRun, items: Sequence[ReplayItem]) -> Counter[ReplayItem.Outcome]:
    """Make of each item what the forecast says, and write down what was made."""
    if not items:
        return Counter()
    # Locked, so that nobody discards or mends one meanwhile; in the order of ids, as everybody locks them.
    states = dict(
        DeadLetter.objects.select_for_update(no_key=True)
        .filter(pk__in=[item.letter_id for item in items])
        .order_by("pk")
        .values_list("pk", "state")
    )
    for item in items:
        if states.get(item.letter_id) != DeadLetter.State.OPEN:
            item.outcome = Outcome.GONE
    open_items = [item for item in items if item.outcome != Outcome.GONE]
    verdicts = forecast.foresee(
        forecast.candidates(
            [item.letter_id for item in open_items],
            mended={item.letter_id: bytes(item.body) for item in open_items if item.body is not None},
        ),
        ahead=Ahead(),
        in_run=lambda events: _queued_in(run, events),
    )
    by_letter = {item.letter_id: item for item in open_items}
    made = making.make(verdicts)
    settled: list[Settled] = []
    for result in made:
        item = by_letter[result.verdict.candidate.letter_id]
        item.outcome, item.detail = result.outcome, result.detail
        item.event_id, item.kaniko_job_id = result.event_id, result.kaniko_job_id
        if result.outcome in SETTLES:
            settled.append(Settled(item.letter_id, result.event_id, result.kaniko_job_id))
    _write(items)
    settle(settled)
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


def _write(items: Sequence[ReplayItem]) -> None:
    """What came of each item. One statement of arrays: Django's `bulk_update` took half of a step's time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_replayitem item SET
                outcome = handled.outcome, detail = handled.detail, event_id = handled.event_id,
                kaniko_job_id = handled.kaniko_job_id, at = clock_timestamp()
            FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
                AS handled (id, outcome, detail, event_id, kaniko_job_id)
            WHERE item.id = handled.id
            """,
            [
                [item.pk for item in items],
                [str(item.outcome) for item in items],
                [printable(item.detail) for item in items],
                [item.event_id for item in items],
                [item.kaniko_job_id for item in items],
            ],
        )
