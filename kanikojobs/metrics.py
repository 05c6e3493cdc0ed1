"""Metrics: every name and label in one place, and the collector that reads them from Postgres.

Gunicorn's workers, the consumer and Django-Q2's forks are separate processes, so counters in memory would each show
a part. These are read from the tallies, which are written in the transactions that they count: exact, and the same
at whichever process is scraped.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import structlog
from django.conf import settings
from django.db import Error
from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kanikojobs import amqp, pausing, stats, tallies

log = structlog.get_logger(__name__)


class PostgresCollector(Collector):
    """Reads at scrape time. With Postgres away it gives `kanikojobs_database_up 0` and nothing that could mislead."""

    def describe(self) -> Iterable[Metric]:
        # Without this the registry would collect once at start-up to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("kanikojobs_database_up", "Whether Postgres answered this scrape.")
        try:
            families = [*_creation(), *_intake(), *_backlog()]
        except Error as error:
            log.warning("metrics-without-database", error=type(error).__name__)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from families
        yield from _queue_depth()


def _creation() -> Iterator[Metric]:
    totals = tallies.totals(prefix="creation/")
    success = CounterMetricFamily(
        "kaniko_job_creation_success",
        "Attempts that ended with the Job being in Kubernetes (created or adopted).",
    )
    success.add_metric([], tallies.count(totals, stats.SUCCESSES))
    yield success
    failure = CounterMetricFamily("kaniko_job_creation_failure", "Attempts that ended without one.")
    failure.add_metric([], tallies.count(totals, stats.FAILURES))
    yield failure
    attempts = CounterMetricFamily("kanikojobs_creation_attempts", "Attempts by their outcome.", labels=["outcome"])
    for series, total in sorted(totals.items()):
        attempts.add_metric([series.removeprefix("creation/")], total.count)
    yield attempts
    duration = HistogramMetricFamily(
        "job_creation_duration_seconds", "How long the call to create a Job took, whatever came of it."
    )
    buckets = [0] * (len(tallies.BUCKETS) + 1)
    for total in totals.values():
        for position, count in enumerate(total.buckets):
            buckets[position] += count
    bounds = [*(str(bound) for bound in tallies.BUCKETS), "+Inf"]
    cumulative = [(bound, sum(buckets[: position + 1])) for position, bound in enumerate(bounds)]
    duration.add_metric([], buckets=cumulative, sum_value=sum(total.seconds for total in totals.values()))
    yield duration


def _intake() -> Iterator[Metric]:
    events = CounterMetricFamily(
        "kanikojobs_intake_messages",
        "Messages handed over, by origin and outcome.",
        labels=["origin", "outcome"],
    )
    for series, total in sorted(tallies.totals(prefix="intake/").items()):
        _, origin, outcome = series.split("/")
        events.add_metric([origin, outcome], total.count)
    yield events
    letters = CounterMetricFamily("kanikojobs_dead_letters", "Dead letters recorded, by cause.", labels=["cause"])
    for series, total in sorted(tallies.totals(prefix="dead-letter/").items()):
        letters.add_metric([series.removeprefix("dead-letter/")], total.count)
    yield letters


def _backlog() -> Iterator[Metric]:
    waiting = stats.backlog()
    jobs = GaugeMetricFamily("kanikojobs_kaniko_jobs", "Unfinished Kaniko Jobs by state.", labels=["state"])
    for state in ("queued", "creating", "created", "running"):
        jobs.add_metric([state], getattr(waiting, state))
    yield jobs
    oldest = GaugeMetricFamily("kanikojobs_oldest_queued_seconds", "Age of the Kaniko Job that is queued longest.")
    age = (datetime.now(UTC) - waiting.oldest_queued_at).total_seconds() if waiting.oldest_queued_at else 0.0
    oldest.add_metric([], max(0.0, age))
    yield oldest
    paused = GaugeMetricFamily("kanikojobs_consuming_paused", "Whether an operator has paused consuming.")
    paused.add_metric([], float(pausing.current().paused))
    yield paused


def _queue_depth() -> Iterator[Metric]:
    if not settings.RABBITMQ_URL:
        return
    ready = GaugeMetricFamily(
        "rabbitmq_queue_messages_ready",
        "Messages that wait in the queue, as RabbitMQ says.",
        labels=["queue"],
    )
    up = GaugeMetricFamily("kanikojobs_rabbitmq_up", "Whether RabbitMQ answered this scrape.")
    try:
        depths = amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE, settings.KANIKOJOBS_DLQ])
        for queue, depth in depths.items():
            ready.add_metric([queue], depth)
        up.add_metric([], 1)
    except amqp.CONNECTION_ERRORS as error:
        log.warning("metrics-without-rabbitmq", error=type(error).__name__)
        up.add_metric([], 0)
    yield ready
    yield up


def register() -> None:
    """Register the collector once per process."""
    if not any(isinstance(collector, PostgresCollector) for collector in list(REGISTRY._collector_to_names)):
        REGISTRY.register(PostgresCollector())
