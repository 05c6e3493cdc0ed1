"""The two flows side by side: what came through RabbitMQ, what over HTTP, and what by both ways.

While the senders move from direct events to the queue, both flows run at once (phase 2), and each event is built once
whichever way it comes first. This tells when the direct flow may be switched off (phase 3), and who still needs it.
Counts are sums of tallies, so they cost the same at any length of history; the events that came only directly, which
decide, are counted by their rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.db import Error
from django.db.models import QuerySet

from kanikojobs import tallies
from kanikojobs.models import JobStartEvent
from kanikojobs.overview import WINDOWS, Window

log = structlog.get_logger(__name__)

# Count and seconds by series.
Sums = Mapping[str, tuple[int, float]]
Origin = JobStartEvent.Origin

DAY = next(window for window in WINDOWS if window.key == "24h")
# An event that came directly may still be on its way through the queue.
PATIENCE = timedelta(minutes=5)
MOST_COUNTED = 10_000
MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Way:
    """What came by one way in the window.

    `recorded` events came by this way first; `both` of these that came by the other way too, on the average
    `mean_delay` seconds later; `only` came by this way alone until now.
    """

    origin: Origin
    messages: int
    recorded: int
    both: int
    only: int
    mean_delay: float | None


@dataclass(frozen=True, slots=True)
class NextStep:
    """Which phase of the migration this looks like, whether the next may begin, and what to do."""

    phase: int
    ready: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both flows over a window that begins at `since`.

    `only_direct` events of the last 24 hours came directly and, five minutes later, not yet through the queue; they are
    counted up to `MOST_COUNTED`. `conflicts` are messages that had the identity of a recorded event and other content,
    `refused` the requests that were answered with 410.
    """

    window: Window
    since: datetime
    ways: Sequence[Way]
    conflicts: int
    refused: int
    only_direct: int
    senders: Mapping[str, int]
    newest: Sequence[JobStartEvent]
    next_step: NextStep


def comparison(*, window: Window = DAY) -> Comparison:
    now = datetime.now(UTC)
    since = _beginning(window, now=now)
    sums = tallies.sums(span=window.span, since=since)
    day = sums if window == DAY else tallies.sums(span=DAY.span, since=_beginning(DAY, now=now))
    late, fresh = only_direct(now=now), _only_directly(since=now - PATIENCE)
    number, senders = late[:MOST_COUNTED].count(), _senders(late)
    return Comparison(
        window=window,
        since=since,
        ways=_ways(sums, only_direct=_only_directly(since=since)[:MOST_COUNTED].count()),
        conflicts=_count(sums, "dead-letter/identity-conflict"),
        refused=_count(sums, "sink/refused"),
        only_direct=number,
        senders=senders,
        newest=list(late.order_by("-received_at")[:MOST_NAMED]),
        next_step=next_step(
            queue=_messages(day, origin=Origin.QUEUE),
            direct=_messages(day, origin=Origin.DIRECT),
            only_direct=number,
            not_judged=fresh[:MOST_COUNTED].count(),
            refused=_count(day, "sink/refused"),
            senders=list(senders),
        ),
    )


def only_direct(*, now: datetime | None = None) -> QuerySet[JobStartEvent]:
    """The events of the last 24 hours that came directly and in time not through the queue."""
    now = now or datetime.now(UTC)
    return _only_directly(since=_beginning(DAY, now=now)).filter(received_at__lt=now - PATIENCE)


def note_refusal() -> None:
    """Count a request that was refused because direct events are switched off: somebody still sends them.

    Not counting is no reason to answer otherwise.
    """
    try:
        tallies.add(tallies.counts({"sink/refused": 1}))
    except Error as error:
        log.warning("refusal-not-counted", error=type(error).__name__)


def next_step(
    *, queue: int, direct: int, only_direct: int, not_judged: int, refused: int, senders: Sequence[str]
) -> NextStep:
    """What the last 24 hours mean: messages by each way, events by the direct one alone, requests refused.

    `not_judged` events came directly a moment ago: the queue may bring them yet.
    """
    publish = f"publish to the RabbitMQ queue {settings.KANIKOJOBS_QUEUE}"
    if settings.KANIKOJOBS_DIRECT_EVENTS == "reject":
        if refused:
            return NextStep(
                3,
                False,
                f"{_counted(refused, 'direct request was', 'direct requests were')} refused within 24 hours: their "
                f"senders have to {publish}. "
                "KANIKOJOBS_DIRECT_EVENTS=accept is the way back.",
            )
        return NextStep(
            3, True, "Nobody was refused within 24 hours. Nothing needs the direct flow any more: take its parts down."
        )
    if settings.KANIKOJOBS_QUEUE_READER == "knative":
        return NextStep(
            1,
            False,
            "Knative reads the queue and posts here, so the two ways cannot be told apart. For phase 2 let a consumer "
            "read it: KANIKOJOBS_QUEUE_READER=consumer.",
        )
    if not direct and not queue:
        return NextStep(1, False, "Nothing came within 24 hours, by either way.")
    if not direct:
        return NextStep(
            2, True, "Nothing came directly within 24 hours. Phase 3 is safe: set KANIKOJOBS_DIRECT_EVENTS=reject."
        )
    if not queue:
        return NextStep(
            1, False, f"Everything came directly within 24 hours. For phase 2 let the senders {publish} too."
        )
    if only_direct:
        events = _counted(only_direct, "event", "events")
        named = ", ".join(senders[:3]) + (" and others" if len(senders) > 3 else "")
        return NextStep(
            2,
            False,
            f"{events} of the last 24 hours came only directly, of {named}. Their senders have to "
            f"{publish}; phase 3 is safe when this has been 0 for 24 hours.",
        )
    if not_judged:
        events = _counted(not_judged, "event", "events")
        return NextStep(
            2, False, f"{events} came directly within the last five minutes, and so far not through the queue, too."
        )
    return NextStep(
        2,
        True,
        "Every direct event of the last 24 hours came through the queue, too. "
        "Phase 3 is safe: set KANIKOJOBS_DIRECT_EVENTS=reject.",
    )


def _counted(number: int, one: str, several: str) -> str:
    return f"{number}{'+' if number >= MOST_COUNTED else ''} {one if number == 1 else several}"


def _beginning(window: Window, *, now: datetime) -> datetime:
    """When a window begins: at the beginning of a minute or an hour, as the tallies do."""
    start = (now - window.length).replace(second=0, microsecond=0)
    return start if window.span == "minute" else start.replace(minute=0)


def _count(sums: Sums, series: str) -> int:
    return sums.get(series, (0, 0.0))[0]


def _messages(sums: Sums, *, origin: Origin) -> int:
    return sum(count for series, (count, _) in sums.items() if series.startswith(f"intake/{origin}/"))


def _ways(sums: Sums, *, only_direct: int) -> list[Way]:
    ways: list[Way] = []
    for origin in (Origin.QUEUE, Origin.DIRECT):
        recorded = _count(sums, f"intake/{origin}/recorded")
        both, seconds = sums.get(f"both-ways/{origin}", (0, 0.0))
        # It is counted when the event comes the other way: perhaps of one that was recorded before the window.
        only = only_direct if origin == Origin.DIRECT else max(0, recorded - both)
        delay = seconds / both if both else None
        ways.append(Way(origin, _messages(sums, origin=origin), recorded, both, only, delay))
    return ways


def _only_directly(*, since: datetime) -> QuerySet[JobStartEvent]:
    return JobStartEvent.objects.filter(origin=Origin.DIRECT, other_way_at__isnull=True, received_at__gte=since)


def _senders(events: QuerySet[JobStartEvent]) -> dict[str, int]:
    """The third parties of the newest of these events, the most frequent first."""
    newest = events.order_by("-received_at").values_list("third_party_id", flat=True)[:MOST_COUNTED]
    return dict(Counter(newest).most_common(MOST_NAMED))
