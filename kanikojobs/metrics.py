"""Metrics: every name and label in one place, and the collector that reads them from Postgres.

Gunicorn's workers, the consumer and Django-Q2's forks are separate processes, so counters in memory would each show
a part. These are read from the tallies, which are written in the transactions that they count: exact, and the same
at whichever process is scraped. Counters with known labels are there from the start, with 0: Prometheus' `increase`
does not see the first of something that was not there before. What a single web server counts of its own requests is
not among these; see `kanikojobs.health.web_metrics`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import structlog
from django.conf import settings
from django.db import Error
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from kanikojobs import amqp, backlog, exemplars, flows, heartbeats, outages, outbox, pausing, tallies
from kanikojobs.advice import ADVICE
from kanikojobs.exemplars import NO_EXAMPLES, ByBucket
from kanikojobs.messages import Outcome
from kanikojobs.models import DeadLetter, Drift, Heartbeat, JobAttempt, JobStartEvent, ReplayItem
from kanikojobs.retention import seen
from kanikojobs.retention.kinds import NAMES
from kanikojobs.states import FINISHED, State
from kanikojobs.tallies import BUCKETS, BUILD_BUCKETS, WAIT_BUCKETS, Total

log = structlog.get_logger(__name__)

Totals = Mapping[str, Total]


class PostgresCollector(Collector):
    """Reads at scrape time. With Postgres away it gives `kanikojobs_database_up 0` and nothing that could mislead."""

    def describe(self) -> Iterable[Metric]:
        # Without this the registry would collect once at start-up to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            totals = tallies.totals(prefix="")
            families = [
                *_creation(totals),
                *_intake(totals),
                *_after_creation(totals),
                *_outcomes(totals),
                *_backlog(),
                *_processes(),
                *_outages(totals),
                *_retention(totals),
            ]
        except Error as error:
            log.warning("metrics-without-database", error=type(error).__name__)
            yield _gauge("kanikojobs_database_up", "Whether Postgres answered this scrape.", 0)
            return
        yield _gauge("kanikojobs_database_up", "Whether Postgres answered this scrape.", 1)
        yield from families
        yield from _queue_depth()


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _counter(totals: Totals, name: str, meaning: str, *, label: str, prefix: str, known: Iterable[str]) -> Metric:
    """A counter by one label: each series that starts with the prefix, and 0 for what is known and was not there."""
    family = CounterMetricFamily(name, meaning, labels=[label])
    found = {series.removeprefix(prefix): total.count for series, total in totals.items() if series.startswith(prefix)}
    for value, count in sorted((dict.fromkeys(known, 0) | found).items()):
        family.add_metric([value], count)
    return family


def _add_histogram(
    family: HistogramMetricFamily,
    totals: Iterable[Total],
    *,
    bounds: Sequence[float],
    labels: Sequence[str] = (),
    examples: ByBucket = NO_EXAMPLES,
) -> HistogramMetricFamily:
    buckets, seconds = [0] * (len(bounds) + 1), 0.0
    for total in totals:
        seconds += total.seconds
        for position, count in enumerate(total.buckets):
            buckets[position] += count
    named = [*(str(bound) for bound in bounds), "+Inf"]
    cumulative: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for position, bound in enumerate(named):
        count = sum(buckets[: position + 1])
        example = examples.get(position)
        cumulative.append((bound, count, example) if example else (bound, count))
    family.add_metric(list(labels), buckets=cumulative, sum_value=seconds)
    return family


def _creation(totals: Totals) -> Iterator[Metric]:
    success = CounterMetricFamily(
        "kaniko_job_creation_success",
        "Attempts that ended with the Job being in Kubernetes (created or adopted).",
        value=tallies.count(totals, tallies.SUCCESSES),
    )
    failure = CounterMetricFamily(
        "kaniko_job_creation_failure",
        "Attempts that ended without one.",
        value=tallies.count(totals, tallies.FAILURES),
    )
    yield success
    yield failure
    yield _counter(
        totals,
        "kanikojobs_creation_attempts",
        "Attempts by their outcome.",
        label="outcome",
        prefix="creation/",
        known=[str(outcome) for outcome in JobAttempt.Outcome if outcome != JobAttempt.Outcome.STARTED],
    )
    calls = [total for series, total in totals.items() if series.startswith("creation/")]
    recent = exemplars.newest()
    yield _add_histogram(
        HistogramMetricFamily(
            "job_creation_duration_seconds", "How long the call to create a Job took, whatever came of it."
        ),
        calls,
        bounds=BUCKETS,
        examples=recent.calls,
    )
    yield _add_histogram(
        HistogramMetricFamily(
            "kanikojobs_creation_delay_seconds", "How long a Kaniko Job had been queued when its Job was created."
        ),
        [totals[series] for series in ("wait/created",) if series in totals],
        bounds=WAIT_BUCKETS,
        examples=recent.waits,
    )


def _intake(totals: Totals) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "kanikojobs_intake_messages",
        "Messages handed over, by origin and outcome.",
        labels=["origin", "outcome"],
    )
    for origin in JobStartEvent.Origin:
        for outcome in Outcome:
            total = totals.get(f"intake/{origin}/{outcome}")
            events.add_metric([str(origin), str(outcome)], total.count if total else 0)
    yield events
    both = HistogramMetricFamily(
        "kanikojobs_both_ways_delay_seconds",
        "How long after the one way an event came by the other, too, by the way that was first.",
        labels=["first"],
    )
    for first in (JobStartEvent.Origin.QUEUE, JobStartEvent.Origin.DIRECT):
        found = [totals[series] for series in (f"both-ways/{first}",) if series in totals]
        _add_histogram(both, found, bounds=WAIT_BUCKETS, labels=[str(first)])
    yield both
    refused = totals.get("sink/refused")
    yield CounterMetricFamily(
        "kanikojobs_direct_requests_refused",
        "Requests that were answered with 410, because direct events are switched off.",
        value=refused.count if refused else 0,
    )
    yield _gauge(
        "kanikojobs_only_direct_events",
        f"Events of the last 24 hours that came directly and not through the queue, up to {flows.MOST_COUNTED}.",
        flows.only_direct()[: flows.MOST_COUNTED].count(),
    )
    yield _counter(
        totals,
        "kanikojobs_dead_letters",
        "Dead letters recorded, by cause.",
        label="cause",
        prefix="dead-letter/",
        known=[str(cause) for cause in DeadLetter.Cause],
    )
    yield _counter(
        totals,
        "kanikojobs_replayed_dead_letters",
        "Dead letters that a replay has taken, by what came of them.",
        label="outcome",
        prefix="replay/",
        known=[str(outcome) for outcome in ReplayItem.Outcome if outcome != ReplayItem.Outcome.PENDING],
    )
    yield _gauge(
        "kanikojobs_dead_letters_open",
        "Dead letters that wait for somebody, counted up to 10000.",
        backlog.open_dead_letters(),
    )


def _after_creation(totals: Totals) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "kanikojobs_finished_jobs",
        "Kaniko Jobs that the watcher has seen end, by state and reason.",
        labels=["state", "reason"],
    )
    counts = {(str(state), ""): 0 for state in FINISHED} | {("failed", reason): 0 for reason in ADVICE}
    for series, total in totals.items():
        if series.startswith("finished/"):
            state, _, reason = series.removeprefix("finished/").partition("/")
            counts[state, reason] = total.count
    for labels, count in sorted(counts.items()):
        finished.add_metric(labels, count)
    yield finished
    duration = HistogramMetricFamily(
        "kanikojobs_build_duration_seconds", "How long builds ran, from running to the end.", labels=["state"]
    )
    for state in FINISHED:
        if lasted := totals.get(f"build/{state}"):
            _add_histogram(duration, [lasted], bounds=BUILD_BUCKETS, labels=[str(state)])
    yield duration
    yield _add_histogram(
        HistogramMetricFamily(
            "kanikojobs_watch_lag_seconds",
            "How long after the end of a build its row said so. Less than 5 s is 0: Kubernetes tells whole seconds.",
        ),
        [totals[series] for series in ("watch/late",) if series in totals],
        bounds=WAIT_BUCKETS,
    )
    yield _counter(
        totals,
        "kanikojobs_drift",
        "Where rows and cluster had come apart, by kind.",
        label="kind",
        prefix="drift/",
        known=[str(kind) for kind in Drift.Kind],
    )


def _outcomes(totals: Totals) -> Iterator[Metric]:
    yield _counter(
        totals,
        "kanikojobs_outcome_events",
        "Outcome events: confirmed by RabbitMQ, or bound for no queue.",
        label="outcome",
        prefix="outcome-event/",
        known=["published", "unroutable"],
    )
    unpublished = outbox.backlog()
    yield _gauge(
        "kanikojobs_outcome_events_waiting",
        f"Outcome events that are not published yet, counted up to {outbox.MOST_COUNTED}.",
        unpublished.waiting,
    )
    age = (datetime.now(UTC) - unpublished.oldest).total_seconds() if unpublished.oldest else 0.0
    yield _gauge("kanikojobs_oldest_outcome_event_seconds", "Age of the one that waits longest.", max(0.0, age))


def _backlog() -> Iterator[Metric]:
    unfinished = backlog.backlog()
    jobs = GaugeMetricFamily("kanikojobs_kaniko_jobs", "Unfinished Kaniko Jobs by state.", labels=["state"])
    for state in (State.QUEUED, State.CREATING, State.CREATED, State.RUNNING):
        jobs.add_metric([str(state)], getattr(unfinished, state))
    yield jobs
    waiting = GaugeMetricFamily(
        "kanikojobs_waiting_jobs", "Unfinished Kaniko Jobs that wait, by what for.", labels=["state", "reason"]
    )
    for labels, count in sorted(unfinished.waiting.items()):
        waiting.add_metric(labels, count)
    yield waiting
    age = (datetime.now(UTC) - unfinished.oldest_queued_at).total_seconds() if unfinished.oldest_queued_at else 0.0
    yield _gauge("kanikojobs_oldest_queued_seconds", "Age of the Kaniko Job that is queued longest.", max(0.0, age))
    yield _gauge("kanikojobs_active_jobs", "Kaniko Jobs that count under the caps.", unfinished.active)
    limits = GaugeMetricFamily("kanikojobs_active_jobs_limit", "The caps, where there are some.", labels=["scope"])
    for scope, limit in (
        ("all", settings.KANIKOJOBS_MAX_ACTIVE_JOBS),
        ("third_party", settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY),
    ):
        if limit:
            limits.add_metric([scope], limit)
    yield limits
    paused = pausing.current().paused
    yield _gauge("kanikojobs_consuming_paused", "Whether an operator has paused consuming.", paused)


def _processes() -> Iterator[Metric]:
    signs = heartbeats.signs()
    alive = GaugeMetricFamily(
        "kanikojobs_processes",
        f"Processes that gave a sign of life within {heartbeats.SILENT_AFTER.total_seconds():g} s, by role.",
        labels=["role"],
    )
    age = GaugeMetricFamily(
        "kanikojobs_heartbeat_age_seconds", "Since the last sign of life of any process of a role.", labels=["role"]
    )
    for role in Heartbeat.Role:
        sign = signs.get(role)
        alive.add_metric([str(role)], sign.alive if sign else 0)
        if sign:
            age.add_metric([str(role)], sign.age.total_seconds())
    yield alive
    yield age
    reader = GaugeMetricFamily(
        "kanikojobs_queue_reader", "Who is to read the queue, as configured: a consumer, or Knative.", labels=["reader"]
    )
    for name in ("consumer", "knative"):
        reader.add_metric([name], name == settings.KANIKOJOBS_QUEUE_READER)
    yield reader
    watchers = signs.get(Heartbeat.Role.WATCHER)
    leading = sum(beat.details.get("leads") is True for beat in watchers.beats) if watchers else 0
    yield _gauge("kanikojobs_watchers_leading", "Watchers that lead; the others stand by.", leading)


def _outages(totals: Totals) -> Iterator[Metric]:
    outage = outages.current()
    yield _gauge(
        "kanikojobs_outage_ongoing", "Whether claims stop because Kubernetes cannot be used.", outage is not None
    )
    since = (datetime.now(UTC) - outage.started_at).total_seconds() if outage else 0.0
    yield _gauge("kanikojobs_outage_age_seconds", "How long the outage has been going on.", max(0.0, since))
    begun = totals.get("outage/begun")
    yield CounterMetricFamily(
        "kanikojobs_outages", "Outages of the Kubernetes API server.", value=begun.count if begun else 0
    )


def _retention(totals: Totals) -> Iterator[Metric]:
    yield _counter(
        totals,
        "kanikojobs_pruned_rows",
        "Rows removed for their age, by kind.",
        label="kind",
        prefix="pruned/",
        known=NAMES,
    )
    if settings.KANIKOJOBS_PRUNE_AT is not None:
        yield _gauge(
            "kanikojobs_prune_age_seconds",
            "Since a run of pruning was last finished; before the first, since the tables were made.",
            seen.last_run().since.total_seconds(),
        )


def _queue_depth() -> Iterator[Metric]:
    if not settings.RABBITMQ_URL:
        return
    ready = GaugeMetricFamily(
        "rabbitmq_queue_messages_ready",
        "Messages that wait in the queue, as RabbitMQ says.",
        labels=["queue"],
    )
    up = True
    try:
        depths = amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE, settings.KANIKOJOBS_DLQ])
        for queue, depth in depths.items():
            ready.add_metric([queue], depth)
    except amqp.CONNECTION_ERRORS as error:
        log.warning("metrics-without-rabbitmq", error=type(error).__name__)
        up = False
    yield ready
    yield _gauge("kanikojobs_rabbitmq_up", "Whether RabbitMQ answered this scrape.", up)


OURS = CollectorRegistry()
OURS.register(PostgresCollector())
