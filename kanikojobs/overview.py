"""The read side of the admin's home: is it healthy, is it behind, what fails, what runs.

Everything is read from what is small at any length of history: tallies, heartbeats, the unfinished rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kanikojobs import heartbeats, outages, stats, tallies
from kanikojobs.models import Heartbeat, KanikoJob, Outage
from kanikojobs.states import State

BEHIND_AFTER = timedelta(seconds=30)
FAILING_FROM = 0.05
FAILING_MINIMUM = 20  # attempts, below which a rate says nothing


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that the charts show, and the spans that it is cut into."""

    key: str
    title: str
    length: timedelta
    span: str
    step: timedelta


WINDOWS = (
    Window("1h", "1 hour", timedelta(hours=1), "minute", timedelta(minutes=1)),
    Window("24h", "24 hours", timedelta(hours=24), "hour", timedelta(hours=1)),
    Window("7d", "7 days", timedelta(days=7), "hour", timedelta(hours=6)),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the system, whether it is well, its last sign of life and a sentence."""

    name: str
    well: bool
    seen_at: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in one step of a window. Percentiles are of the calls that create Jobs, in seconds."""

    at: datetime
    created: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why attempts or events failed lately, how often, and whether that is new."""

    title: str
    count: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the home shows. `mood` is well, behind, failing or down; `sentence` says why."""

    mood: str
    sentence: str
    parts: Sequence[Part]
    backlog: stats.Backlog
    queue_depth: int | None
    window: Window
    points: Sequence[Point]
    causes: Sequence[Cause]
    running: Sequence[KanikoJob]
    outage: Outage | None
    open_dead_letters: int
    now: datetime

    @property
    def oldest_queued(self) -> timedelta | None:
        oldest = self.backlog.oldest_queued_at
        return max(timedelta(), self.now - oldest) if oldest else None

    @property
    def created(self) -> int:
        return sum(point.created for point in self.points)

    @property
    def failed(self) -> int:
        return sum(point.failed for point in self.points)

    @property
    def failure_rate(self) -> float | None:
        """The share of attempts that failed in the window, in percent."""
        total = self.created + self.failed
        return 100 * self.failed / total if total else None


def overview(*, window: Window = WINDOWS[0]) -> Overview:
    now = datetime.now(UTC)
    waiting = stats.backlog()
    outage = outages.current()
    signs = {role: heartbeats.alive(role) for role in Heartbeat.Role}
    parts = _parts(signs, outage=outage)
    depth = _queue_depth(signs[Heartbeat.Role.CONSUMER])
    recent = tallies.totals(prefix="creation/", minutes=5)
    mood, sentence = _verdict(parts, waiting=waiting, recent=recent, outage=outage, now=now)
    return Overview(
        mood=mood,
        sentence=sentence,
        parts=parts,
        backlog=waiting,
        queue_depth=depth,
        window=window,
        points=points(window, now=now),
        causes=causes(window),
        running=list(KanikoJob.objects.filter(state=State.RUNNING).order_by("running_at")[:10]),
        outage=outage,
        open_dead_letters=stats.open_dead_letters(),
        now=now,
    )


def _parts(signs: Mapping[Heartbeat.Role, Sequence[Heartbeat]], *, outage: Outage | None) -> list[Part]:
    found = []
    for role, alive in signs.items():
        latest = alive[0] if alive else Heartbeat.objects.filter(role=role).order_by("-seen_at").first()
        number = f"{len(alive)} running" if alive else "no sign of life"
        found.append(Part(role.label.capitalize(), bool(alive), latest.seen_at if latest else None, number))
    consumer = signs[Heartbeat.Role.CONSUMER]
    found.append(
        Part(
            "RabbitMQ",
            bool(consumer),
            consumer[0].seen_at if consumer else None,
            "as its consumer says" if consumer else "unknown without a consumer",
        )
    )
    found.append(
        Part(
            "Kubernetes",
            outage is None,
            None,
            f"{outage.reason} since {outage.started_at:%H:%M}, {outage.probes} probes" if outage else "no outage",
        )
    )
    return found


def _queue_depth(consumers: Sequence[Heartbeat]) -> int | None:
    depths = [beat.details["queue_depth"] for beat in consumers if beat.details.get("queue_depth") is not None]
    return int(depths[0]) if depths else None


def _verdict(
    parts: Sequence[Part],
    *,
    waiting: stats.Backlog,
    recent: Mapping[str, tallies.Total],
    outage: Outage | None,
    now: datetime,
) -> tuple[str, str]:
    """The answer first: the worst that is true, in one sentence."""
    if outage:
        return "down", f"Kubernetes cannot be used: {outage.reason}. Nothing is created, and nothing is lost."
    if silent := [part.name for part in parts if not part.well]:
        return "down", f"No sign of life: {', '.join(silent)}."
    failed, created = tallies.count(recent, stats.FAILURES), tallies.count(recent, stats.SUCCESSES)
    if failed + created >= FAILING_MINIMUM and failed / (failed + created) > FAILING_FROM:
        return "failing", f"{failed} of {failed + created} attempts failed in the last five minutes."
    if waiting.oldest_queued_at and now - waiting.oldest_queued_at > BEHIND_AFTER:
        age = round((now - waiting.oldest_queued_at).total_seconds())
        return "behind", f"{waiting.queued} Kaniko Jobs wait, the oldest for {age} s."
    return "well", "Events come in, Jobs come out."


def points(window: Window, *, now: datetime) -> list[Point]:
    """One point per step of the window, the steps without anything too."""
    seconds = window.step.total_seconds()
    first = datetime.fromtimestamp((now - window.length).timestamp() // seconds * seconds, UTC) + window.step
    history = tallies.history(prefix="creation/", span=window.span, since=first)
    steps: dict[datetime, list[Mapping[str, tallies.Total]]] = {}
    for at, series in history.items():
        steps.setdefault(first + (at - first) // window.step * window.step, []).append(series)
    number = round(window.length / window.step)
    return [_point(at, steps.get(at, [])) for at in (first + index * window.step for index in range(number))]


def _point(at: datetime, parts: Sequence[Mapping[str, tallies.Total]]) -> Point:
    buckets = [0] * (len(tallies.BUCKETS) + 1)
    for part in parts:
        for total in part.values():
            for position, count in enumerate(total.buckets):
                buckets[position] += count
    return Point(
        at=at,
        created=sum(tallies.count(part, stats.SUCCESSES) for part in parts),
        failed=sum(tallies.count(part, stats.FAILURES) for part in parts),
        p50=tallies.quantile(buckets, 0.5),
        p95=tallies.quantile(buckets, 0.95),
        p99=tallies.quantile(buckets, 0.99),
    )


def causes(window: Window) -> list[Cause]:
    """What failed in the window by cause, the most frequent first; new is what the time before did not have."""
    minutes = int(window.length.total_seconds() // 60)
    if window.span == "minute":
        lately = tallies.totals(prefix="", minutes=minutes)
    else:
        lately = {}
        for series in tallies.history(prefix="", span="hour", since=datetime.now(UTC) - window.length).values():
            for name, total in series.items():
                before = lately.get(name)
                lately[name] = tallies.Total(total.count + (before.count if before else 0), 0.0, ())
    always = tallies.totals(prefix="")
    titles = {f"creation/{outcome}": f"attempt {outcome}" for outcome in ("retry", "refused", "unavailable", "lost")}
    found = []
    for name, total in lately.items():
        title = titles.get(name) or (
            f"dead letter: {name.removeprefix('dead-letter/')}" if name.startswith("dead-letter/") else None
        )
        if title and total.count:
            ever = always.get(name)
            found.append(Cause(title, total.count, is_new=ever is None or ever.count == total.count))
    return sorted(found, key=lambda cause: -cause.count)
