"""What a replay would do, before anybody does it. A pure read, by the same forecast that the run acts on."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from django.db import connection

from kanikojobs import fingerprints
from kanikojobs.models import DeadLetter, ReplayItem
from kanikojobs.replay import forecast
from kanikojobs.replay.forecast import Ahead, Outcome, Verdict
from kanikojobs.replay.selection import Selection

BATCH = 500
# What a run without a rate does on two cores; only for the estimate.
UNPACED_RATE = 1000.0
MOST_PROBLEMS = 10
LONGEST_WRITE = 10.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Why some letters would fail again: the words, how many, and one of them to look at."""

    outcome: ReplayItem.Outcome
    message: str
    count: int
    example: int


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """How many dead letters would come to what, of those that died before the cut-off.

    `counted` is smaller than `total` only where a bound was given; then the numbers are those of the first so many.
    """

    selection: Selection
    cut_off: datetime
    total: int
    counted: int
    outcomes: Mapping[ReplayItem.Outcome, int]
    problems: tuple[Problem, ...] = ()
    elsewhere: int = 0
    third_parties: int = 0
    parsers: int = 0

    def of(self, outcome: ReplayItem.Outcome) -> int:
        return self.outcomes.get(outcome, 0)

    @property
    def is_whole(self) -> bool:
        return self.counted == self.total

    @property
    def failing(self) -> int:
        """How many would fail again at once."""
        return self.of(Outcome.INVALID) + self.of(Outcome.CONFLICT) + self.of(Outcome.NOT_OURS)

    def seconds(self, *, rate: float | None, limit: int | None = None) -> float:
        """How long handing over these, or the first so many, takes at this rate per second. The builds come after."""
        return min(self.total, limit or self.total) / (rate or UNPACED_RATE)


def seen_until() -> datetime:
    """The time up to which every death can be seen: before the start of what is being written at this moment.

    A letter has the time of its INSERT and is seen after its commit: with the present as its cut-off, a run could have
    what its plan could not see. Transactions that take longer than `LONGEST_WRITE` seconds are not waited for.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT GREATEST(
                clock_timestamp() - make_interval(secs => %s),
                LEAST(clock_timestamp(), min(xact_start) - interval '1 microsecond')
            )
            FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
              AND (backend_xid IS NOT NULL OR state = 'active')
            """,
            [LONGEST_WRITE],
        )
        moment: datetime = cursor.fetchone()[0]
        return moment


def plan(*, selection: Selection, cut_off: datetime | None = None, most: int | None = None) -> ReplayPlan:
    """Foresee the replay of a selection; with `most`, of its first so many dead letters."""
    cut_off = cut_off or seen_until()
    letters = selection.replayable(cut_off=cut_off)
    counted = 0
    outcomes: Counter[ReplayItem.Outcome] = Counter()
    tally = _Problems()
    parsers: set[tuple[str, str]] = set()
    for verdict in foreseen(selection=selection, cut_off=cut_off, most=most):
        counted += 1
        outcomes[verdict.outcome] += 1
        tally.add(verdict)
        if verdict.outcome == Outcome.QUEUED:
            parsers.add(verdict.parser)
    total = counted if most is None or counted < most else letters.count()
    waiting = ReplayItem.objects.filter(outcome=Outcome.PENDING)
    elsewhere = (
        selection.letters()
        .filter(state=DeadLetter.State.OPEN, first_died_at__lte=cut_off, pk__in=waiting.values("letter"))
        .count()
        if waiting.exists()
        else 0
    )
    return ReplayPlan(
        selection=selection,
        cut_off=cut_off,
        total=total,
        counted=counted,
        outcomes=outcomes,
        problems=tally.most_common(),
        elsewhere=elsewhere,
        third_parties=len({third_party for third_party, _ in parsers}),
        parsers=len(parsers),
    )


def foreseen(*, selection: Selection, cut_off: datetime, most: int | None = None) -> Iterator[Verdict]:
    """The verdict on each letter, in order, read in batches."""
    ahead = Ahead()
    ids = selection.replayable(cut_off=cut_off).values_list("id", flat=True)[:most]
    rest = ids.iterator(chunk_size=BATCH)
    while batch := list(islice(rest, BATCH)):
        yield from forecast.foresee(forecast.candidates(batch), ahead=ahead)


@dataclass(slots=True)
class _Problems:
    """What would fail again, by outcome and normalised message, with the first of each as it says it itself."""

    counts: Counter[tuple[ReplayItem.Outcome, str]] = field(default_factory=Counter)
    first: dict[tuple[ReplayItem.Outcome, str], Verdict] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        if verdict.faults:
            key = (verdict.outcome, fingerprints.normalise_faults(verdict.faults))
            self.counts[key] += 1
            self.first.setdefault(key, verdict)

    def most_common(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(key[0], self.first[key].detail, count, self.first[key].candidate.letter_id)
            for key, count in self.counts.most_common(MOST_PROBLEMS)
        )
