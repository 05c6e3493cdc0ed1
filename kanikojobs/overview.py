"""The read side of the admin's home: is it healthy, is it behind, what fails, what runs.

Everything is read from what is small at any length of history: tallies, heartbeats, groups of failures, and the
unfinished rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Sum
from django.utils.text import Truncator

from kanikojobs import backlog, heartbeats, outages, pausing, tallies
from kanikojobs.backlog import Backlog, Share
from kanikojobs.heartbeats import Sign
from kanikojobs.models import FailureGroup, FailureGroupHour, Heartbeat, KanikoJob, Outage
from kanikojobs.pausing import Pause
from kanikojobs.states import State
from kanikojobs.tallies import WAIT_BUCKETS, Total
from kanikojobs.templatetags.humane import length_of_time

BEHIND_AFTER = timedelta(seconds=30)
FAILING_FROM = 0.05
FAILING_MINIMUM = 20  # attempts, below which a rate says nothing
SHARES = (0.5, 0.95, 0.99)
MOST_CAUSES, MOST_RUNNING = 10, 10


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
    """One part of the system: well, down or unknown; its last sign of life, and a sentence."""

    name: str
    state: str
    seen_at: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in one step of a window. Percentiles are of the calls that create Jobs, in seconds."""

    at: datetime
    recorded: int
    created: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Cause:
    """A group of equal failures: how often it happened in the window, and whether it is new in it."""

    group: int
    fingerprint: str
    cause: str
    title: str
    count: int
    state: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the home shows. `mood` is well, behind, failing or down; `sentence` says why.

    `outcomes` counts the window's attempts, `creation_seconds` has their percentiles; `wait_p95` is how long, in
    seconds, all but 5 % of its Kaniko Jobs had waited when they were created. Causes are counted since
    `causes_since`, which is the beginning of an hour.
    """

    mood: str
    sentence: str
    parts: Sequence[Part]
    backlog: Backlog
    busiest: Sequence[Share]
    queue_depth: int | None
    window: Window
    points: Sequence[Point]
    outcomes: Mapping[str, int]
    creation_seconds: Mapping[str, float | None]
    wait_p95: float | None
    causes: Sequence[Cause]
    causes_since: datetime
    running: Sequence[KanikoJob]
    outage: Outage | None
    pause: Pause
    open_dead_letters: int
    now: datetime
    totals: Mapping[str, Total] = field(default_factory=dict)

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
    unfinished = backlog.backlog()
    outage, pause = outages.current(), pausing.current()
    signs = heartbeats.signs()
    parts = _parts(signs, outage=outage)
    recent = tallies.totals(prefix="creation/", minutes=5)
    mood, sentence = _verdict(parts, waiting=unfinished, recent=recent, outage=outage, pause=pause, now=now)
    steps = _steps(window, now=now)
    spans = [series for parts_of_step in steps.values() for series in parts_of_step]
    causes_since = (now - window.length).replace(minute=0, second=0, microsecond=0)
    return Overview(
        mood=mood,
        sentence=sentence,
        parts=parts,
        backlog=unfinished,
        busiest=backlog.busiest(),
        queue_depth=_queue_depth(signs.get(Heartbeat.Role.CONSUMER)),
        window=window,
        points=[_point(at, series) for at, series in steps.items()],
        outcomes=_outcomes(spans),
        creation_seconds={
            f"p{round(share * 100)}": tallies.quantile(_buckets(spans, prefix="creation/"), share) for share in SHARES
        },
        wait_p95=tallies.quantile(_buckets(spans, prefix="wait/"), 0.95, bounds=WAIT_BUCKETS),
        causes=causes(since=causes_since),
        causes_since=causes_since,
        running=list(
            KanikoJob.objects.filter(state=State.RUNNING)
            .only("name", "third_party_id", "parser_id", "running_at")
            .order_by("running_at")[:MOST_RUNNING]
        ),
        outage=outage,
        pause=pause,
        open_dead_letters=backlog.open_dead_letters(),
        now=now,
        totals=tallies.totals(prefix=""),
    )


def _parts(signs: Mapping[Heartbeat.Role, Sign], *, outage: Outage | None) -> list[Part]:
    found = [_process(role, signs.get(role)) for role in Heartbeat.Role]
    return [*found, _rabbitmq(signs.get(Heartbeat.Role.CONSUMER)), _kubernetes(outage)]


def _process(role: Heartbeat.Role, sign: Sign | None) -> Part:
    name, seen_at = role.label.capitalize(), sign.seen_at if sign else None
    by_knative = role == Heartbeat.Role.CONSUMER and settings.KANIKOJOBS_QUEUE_READER == "knative"
    if by_knative and not (sign and sign.beats):
        return Part(name, "unknown", seen_at, "Knative reads the queue, and nobody drains the dead-letter queue")
    if sign is None or not sign.beats:
        return Part(name, "down", seen_at, "no sign of life")
    note = f"{sign.alive} running"
    if all(beat.details.get("dead_letters_only") for beat in sign.beats):
        note += ", for dead letters only"
        if not by_knative:
            return Part(name, "down", seen_at, f"{note}, and nobody reads the queue")
    if role == Heartbeat.Role.WORKERS:
        workers = sum(int(beat.details.get("workers") or 0) for beat in sign.beats)
        note = f"{sign.alive} cluster{'s' if sign.alive > 1 else ''}, {workers} workers"
    if role == Heartbeat.Role.WATCHER and not any(beat.details.get("leads", True) for beat in sign.beats):
        return Part(name, "down", seen_at, f"{note}, and none leads")
    return Part(name, "well", seen_at, note)


def _rabbitmq(consumers: Sign | None) -> Part:
    if consumers is None or not consumers.beats:
        return Part("RabbitMQ", "unknown", None, "no consumer to say")
    connected = [beat for beat in consumers.beats if beat.details.get("rabbitmq", True)]
    if not connected:
        return Part("RabbitMQ", "down", None, "the consumer cannot connect")
    return Part("RabbitMQ", "well", connected[0].seen_at, "as its consumer says")


def _kubernetes(outage: Outage | None) -> Part:
    if outage is None:
        return Part("Kubernetes", "well", None, "no outage")
    return Part("Kubernetes", "down", None, f"{outage.reason} since {outage.started_at:%H:%M}, {outage.probes} probes")


def _queue_depth(consumers: Sign | None) -> int | None:
    for beat in consumers.beats if consumers else ():
        if beat.details.get("queue_depth") is not None:
            return int(beat.details["queue_depth"])
    return None


def _verdict(
    parts: Sequence[Part],
    *,
    waiting: Backlog,
    recent: Mapping[str, Total],
    outage: Outage | None,
    pause: Pause,
    now: datetime,
) -> tuple[str, str]:
    """The answer first: the worst that is true, in one sentence."""
    if outage:
        return "down", f"Kubernetes cannot be used: {outage.reason}. Nothing is created, and nothing is lost."
    if down := [f"{part.name} ({part.note})" for part in parts if part.state == "down"]:
        return "down", f"{', '.join(down)}."
    failed, created = tallies.count(recent, tallies.FAILURES), tallies.count(recent, tallies.SUCCESSES)
    if failed + created >= FAILING_MINIMUM and failed / (failed + created) > FAILING_FROM:
        return "failing", f"{failed} of {failed + created} attempts failed in the last five minutes."
    if pause.paused:
        return "behind", f"Consuming is paused by {pause.by}: {pause.reason}"
    if waiting.oldest_queued_at and now - waiting.oldest_queued_at > BEHIND_AFTER:
        jobs = "1 Kaniko Job waits" if waiting.queued == 1 else f"{waiting.queued} Kaniko Jobs wait"
        return "behind", f"{jobs}, the oldest for {length_of_time(now - waiting.oldest_queued_at)}."
    return "well", "Events come in, Jobs come out."


Spans = Sequence[Mapping[str, Total]]


def _steps(window: Window, *, now: datetime) -> dict[datetime, list[Mapping[str, Total]]]:
    """The tallies of each step of the window; the steps without anything are there too."""
    seconds = window.step.total_seconds()
    first = datetime.fromtimestamp((now - window.length).timestamp() // seconds * seconds, UTC) + window.step
    number = round(window.length / window.step)
    steps: dict[datetime, list[Mapping[str, Total]]] = {first + index * window.step: [] for index in range(number)}
    for at, series in tallies.history(prefix="", span=window.span, since=first).items():
        if (step := first + (at - first) // window.step * window.step) in steps:
            steps[step].append(series)
    return steps


def _point(at: datetime, spans: Spans) -> Point:
    buckets = _buckets(spans, prefix="creation/")
    return Point(
        at=at,
        recorded=sum(
            total.count
            for series in spans
            for name, total in series.items()
            if name.startswith("intake/") and name.endswith("/recorded")
        ),
        created=sum(tallies.count(series, tallies.SUCCESSES) for series in spans),
        failed=sum(tallies.count(series, tallies.FAILURES) for series in spans),
        p50=tallies.quantile(buckets, 0.5),
        p95=tallies.quantile(buckets, 0.95),
        p99=tallies.quantile(buckets, 0.99),
    )


def _buckets(spans: Spans, *, prefix: str) -> list[int]:
    rows: Iterable[Sequence[int]] = (
        total.buckets for series in spans for name, total in series.items() if name.startswith(prefix) and total.buckets
    )
    return [sum(column) for column in zip(*rows, strict=True)]


def _outcomes(spans: Spans) -> dict[str, int]:
    found: Counter[str] = Counter()
    for series in spans:
        for name, total in series.items():
            if name.startswith("creation/"):
                found[name.removeprefix("creation/")] += total.count
    return dict(found.most_common())


def causes(*, since: datetime) -> list[Cause]:
    """What failed since the beginning of an hour, in groups of equal failures, the most frequent first."""
    deaths = dict(
        FailureGroupHour.objects.filter(hour__gte=since, group__last_seen_at__gte=since)
        .values_list("group")
        .annotate(count=Sum("deaths"))
        .order_by("-count", "group")[:MOST_CAUSES]
    )
    groups = FailureGroup.objects.in_bulk(deaths)
    return [
        Cause(
            group=id,
            fingerprint=groups[id].fingerprint,
            cause=groups[id].cause,
            title=Truncator(groups[id].signature.partition("\n")[0]).chars(200),
            count=count,
            state=groups[id].state,
            is_new=groups[id].first_seen_at >= since,
        )
        for id, count in deaths.items()
        if id in groups
    ]
