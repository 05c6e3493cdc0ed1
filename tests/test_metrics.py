"""The metrics: the promised names with what was counted, in a form that Prometheus reads."""

import json
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client import REGISTRY, parser
from prometheus_client.openmetrics import parser as openmetrics

from kanikojobs import amqp, intake, metrics, tallies
from kanikojobs.amqp import Publication
from kanikojobs.messages import Message
from kanikojobs.models import JobStartEvent
from kanikojobs.states import State
from kanikojobs.topology import topology
from tests.database_away import database_away
from tests.factories import a_kaniko_job, a_message

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def attempts(**durations: list[float]) -> None:
    increments = {f"creation/{outcome}": tallies.Increment() for outcome in durations}
    for outcome, seconds in durations.items():
        for each in seconds:
            increments[f"creation/{outcome}"].observe(each)
    tallies.add(increments)


@pytest.mark.django_db
def test_attempts_are_successes_and_failures(client: Client) -> None:
    attempts(created=[0.1, 0.2], adopted=[0.1], retry=[0.3], refused=[0.1], unavailable=[3.0])
    tallies.add(tallies.counts({"creation/lost": 2}))

    samples = scrape(client)

    assert value(samples, "kaniko_job_creation_success_total") == 3
    assert value(samples, "kaniko_job_creation_failure_total") == 5
    assert value(samples, "kanikojobs_creation_attempts_total", outcome="retry") == 1
    assert value(samples, "kanikojobs_creation_attempts_total", outcome="lost") == 2


@pytest.mark.django_db
def test_durations_are_a_histogram_of_all_calls(client: Client) -> None:
    attempts(created=[0.004, 0.2], retry=[0.2, 100.0])

    samples = scrape(client)

    name = "job_creation_duration_seconds"
    assert value(samples, f"{name}_count") == 4
    assert value(samples, f"{name}_sum") == pytest.approx(100.404)
    assert value(samples, f"{name}_bucket", le="0.005") == 1
    assert value(samples, f"{name}_bucket", le="0.1") == 1
    assert value(samples, f"{name}_bucket", le="0.25") == 3
    assert value(samples, f"{name}_bucket", le="60.0") == 3
    assert value(samples, f"{name}_bucket", le="+Inf") == 4


@pytest.mark.django_db
def test_promised_names_are_there_before_anything_has_happened(client: Client) -> None:
    samples = scrape(client)

    assert value(samples, "kaniko_job_creation_success_total") == 0
    assert value(samples, "kaniko_job_creation_failure_total") == 0
    assert value(samples, "job_creation_duration_seconds_count") == 0
    assert value(samples, "kanikojobs_database_up") == 1


@pytest.mark.django_db
def test_messages_and_dead_letters_are_counted_by_what_became_of_them(client: Client) -> None:
    event = a_message()
    intake.record([event, event, Message(b"{"), a_message(type="other")], origin=JobStartEvent.Origin.QUEUE)

    samples = scrape(client)

    for outcome in ("recorded", "duplicate", "dead", "not-ours"):
        assert value(samples, "kanikojobs_intake_messages_total", origin="queue", outcome=outcome) == 1
    assert value(samples, "kanikojobs_dead_letters_total", cause="invalid") == 1


@pytest.mark.django_db
def test_what_is_unfinished_is_a_gauge_by_state(client: Client) -> None:
    for state in (State.QUEUED, State.QUEUED, State.RUNNING, State.FAILED):
        a_kaniko_job(state=state)

    samples = scrape(client)

    found = {state: value(samples, "kanikojobs_kaniko_jobs", state=state) for state in State}
    assert found == {"queued": 2, "creating": 0, "created": 0, "running": 1} | dict.fromkeys(
        ("succeeded", "failed", "cancelled")
    )
    oldest = value(samples, "kanikojobs_oldest_queued_seconds")
    assert oldest is not None
    assert oldest >= 0


@pytest.mark.django_db
@pytest.mark.usefixtures("queues")
def test_the_depth_of_the_queues_is_rabbitmqs_own_count(client: Client) -> None:
    link = amqp.connect(settings.RABBITMQ_URL, name="tests")
    amqp.declare(link, topology())
    body = json.dumps({}).encode()
    amqp.publish(link, [Publication("", settings.KANIKOJOBS_QUEUE, body, "application/json", {})] * 3)
    link.close()

    samples = scrape(client)

    assert value(samples, "rabbitmq_queue_messages_ready", queue=settings.KANIKOJOBS_QUEUE) == 3
    assert value(samples, "rabbitmq_queue_messages_ready", queue=settings.KANIKOJOBS_DLQ) == 0
    assert value(samples, "kanikojobs_rabbitmq_up") == 1


@pytest.mark.django_db
@pytest.mark.usefixtures("queues")
def test_queues_that_are_not_there_yet_spoil_nothing(client: Client) -> None:
    samples = scrape(client)

    assert value(samples, "rabbitmq_queue_messages_ready", queue=settings.KANIKOJOBS_QUEUE) is None
    assert value(samples, "kanikojobs_rabbitmq_up") == 1


@pytest.mark.django_db
def test_without_rabbitmq_the_rest_is_still_told(client: Client, settings: Any) -> None:
    settings.RABBITMQ_URL = "amqp://127.0.0.1:1/"
    attempts(created=[0.1])

    samples = scrape(client)

    assert value(samples, "kanikojobs_rabbitmq_up") == 0
    assert value(samples, "kaniko_job_creation_success_total") == 1


@pytest.mark.django_db(transaction=True)
def test_without_the_database_nothing_is_told_that_could_mislead(client: Client) -> None:
    attempts(created=[0.1])

    with database_away():
        samples = scrape(client)

    assert value(samples, "kanikojobs_database_up") == 0
    assert value(samples, "kaniko_job_creation_success_total") is None
    assert value(scrape(client), "kaniko_job_creation_success_total") == 1


@pytest.mark.django_db
def test_a_scraper_that_asks_for_openmetrics_gets_it(client: Client) -> None:
    attempts(created=[0.1])

    response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})

    families = {family.name for family in openmetrics.text_string_to_metric_families(response.content.decode())}
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert {"kaniko_job_creation_success", "job_creation_duration_seconds"} <= families


@pytest.mark.django_db
def test_it_is_collected_once_however_often_it_is_registered(client: Client) -> None:
    metrics.register()
    metrics.register()

    text = client.get("/metrics").content.decode()

    assert text.count("# TYPE kaniko_job_creation_success_total counter") == 1
    assert sum(isinstance(c, metrics.PostgresCollector) for c in list(REGISTRY._collector_to_names)) == 1


@pytest.mark.django_db
def test_our_own_names_start_with_ours(client: Client) -> None:
    promised = {
        "kaniko_job_creation_success",
        "kaniko_job_creation_failure",
        "job_creation_duration_seconds",
        "rabbitmq_queue_messages_ready",
    }

    names = {family.name for family in metrics.PostgresCollector().collect()}

    assert {name for name in names if not name.startswith("kanikojobs_")} == promised
