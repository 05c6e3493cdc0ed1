"""The metrics: the promised names with what was counted, in a form that Prometheus reads."""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from deploy.local.demo_sending import http_status
from deploy.local.processes import free_port
from deploy.local.stack import LocalStack
from kanikojobs import amqp, durations, heartbeats, intake, metrics, outages, tallies
from kanikojobs.amqp import Publication
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.messages import Message
from kanikojobs.models import Heartbeat, JobStartEvent, PruneRun
from kanikojobs.retention import pruning
from kanikojobs.states import State
from kanikojobs.topology import topology
from tests.database_away import database_away
from tests.factories import a_kaniko_job, a_message
from tests.old_rows import an_old_event
from tests.scraped import scrape, value
from tests.stack_plugin import _test_database_url


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
def test_our_own_names_start_with_ours() -> None:
    promised = {
        "kaniko_job_creation_success",
        "kaniko_job_creation_failure",
        "job_creation_duration_seconds",
        "rabbitmq_queue_messages_ready",
    }

    names = {family.name for family in metrics.PostgresCollector().collect()}

    assert {name for name in names if not name.startswith("kanikojobs_")} == promised


@pytest.mark.django_db
def test_every_counter_is_there_before_the_first_of_what_it_counts(client: Client) -> None:
    samples = scrape(client)

    assert value(samples, "kanikojobs_dead_letters_total", cause="maxlen") == 0
    assert value(samples, "kanikojobs_intake_messages_total", origin="direct", outcome="dead") == 0
    assert value(samples, "kanikojobs_creation_attempts_total", outcome="lost") == 0
    assert value(samples, "kanikojobs_finished_jobs_total", state="failed", reason="OOMKilled") == 0
    assert value(samples, "kanikojobs_drift_total", kind="JobVanished") == 0
    assert value(samples, "kanikojobs_outages_total") == 0


@pytest.mark.django_db
def test_processes_are_counted_by_role_and_the_silent_are_not(client: Client) -> None:
    heartbeats.Pulse(Heartbeat.Role.CONSUMER).beat()
    Heartbeat.objects.create(role="watcher", instance="a/1", details={"leads": True})
    Heartbeat.objects.create(role="watcher", instance="a/2", details={"leads": False})
    Heartbeat.objects.create(role="workers", instance="gone/1", seen_at=datetime.now(UTC) - timedelta(minutes=10))

    samples = scrape(client)

    alive = {role: value(samples, "kanikojobs_processes", role=role) for role in ("consumer", "workers", "watcher")}
    assert alive == {"consumer": 1, "workers": 0, "watcher": 2}
    assert value(samples, "kanikojobs_watchers_leading") == 1
    assert value(samples, "kanikojobs_heartbeat_age_seconds", role="workers") == pytest.approx(600, abs=30)


@pytest.mark.django_db
def test_an_outage_is_told_while_it_lasts_and_counted(client: Client) -> None:
    outages.begin(ClusterUnavailable(reason="ConnectionFailed", message="refused"))

    during = scrape(client)
    outages.end()
    after = scrape(client)

    name = "kanikojobs_outage_ongoing"
    assert (value(during, name), value(after, name)) == (1, 0)
    assert value(after, "kanikojobs_outages_total") == 1


@pytest.mark.django_db
def test_waits_builds_and_ends_are_told_by_state_and_reason(client: Client, settings: Any) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 9
    now = datetime.now(UTC)
    created = a_kaniko_job(state="created", queued_at=now - timedelta(seconds=20), created_at=now)
    failed = a_kaniko_job(state="failed", running_at=now - timedelta(seconds=100), finished_at=now)
    tallies.add(durations.waits({created.pk}) | durations.builds({failed.pk}))
    tallies.add(tallies.counts({"finished/failed/OOMKilled": 1, "drift/NoRow": 2}))

    samples = scrape(client)

    assert value(samples, "kanikojobs_creation_delay_seconds_bucket", le="10.0") == 0
    assert value(samples, "kanikojobs_creation_delay_seconds_bucket", le="30.0") == 1
    assert value(samples, "kanikojobs_build_duration_seconds_sum", state="failed") == pytest.approx(100, abs=1)
    assert value(samples, "kanikojobs_watch_lag_seconds_count") == 1
    assert value(samples, "kanikojobs_finished_jobs_total", state="failed", reason="OOMKilled") == 1
    assert value(samples, "kanikojobs_drift_total", kind="NoRow") == 2
    assert value(samples, "kanikojobs_active_jobs") == 1
    assert value(samples, "kanikojobs_active_jobs_limit", scope="all") == 9
    assert value(samples, "kanikojobs_active_jobs_limit", scope="third_party") is None


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/metrics", "/metrics/web"])
def test_with_a_token_set_nothing_is_told_without_it(client: Client, settings: Any, path: str) -> None:
    settings.KANIKOJOBS_METRICS_TOKEN = "scraper"

    without = client.get(path)
    wrong = client.get(path, headers={"authorization": "Bearer other"})

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert b"kanikojobs_" not in without.content + wrong.content


def test_one_process_of_several_does_not_speak_for_all(client: Client) -> None:
    """Without the folder that the workers share, one worker's requests would pass for all."""
    response = client.get("/metrics/web")

    assert response.status_code == 404
    assert "-c python:project.web_server" in response.content.decode()


def test_the_workers_of_a_web_server_tell_the_same(
    local_stack: LocalStack, transactional_db: None, request: pytest.FixtureRequest
) -> None:
    """Real gunicorn with three workers: whichever is asked, the system's numbers and the requests are the same."""
    attempts(created=[0.1, 0.2])
    port = free_port()
    command = ["-m", "gunicorn", "-c", "python:project.web_server", "project.wsgi", "--bind", f"127.0.0.1:{port}"]
    web = local_stack.start_process(
        name=request.node.name,
        command=[
            sys.executable,
            *command,
            "--workers",
            "3",
            "--access-logfile",
            "-",
            "--access-logformat",
            "%(U)s by %(p)s",
        ],
        env={"DATABASE_URL": _test_database_url(), "RABBITMQ_URL": ""},
    )
    try:
        web.wait_until(lambda: http_status("GET", "/health", port=port) == 200, seconds=60)
        before = requests_counted(port)
        scrapes = scrapes_by_several(port, log=web.log)
        after = requests_counted(port)
    finally:
        web.stop()
        local_stack.forget(web)

    stable = {re.sub(r"(?m)^kanikojobs_\w+_(age_)?seconds(\{.*\})? .*$", "", text) for text in scrapes}
    assert len(stable) == 1
    assert "kaniko_job_creation_success_total 2.0" in scrapes[0]
    assert "python_gc" not in scrapes[0]
    assert after - before == len(scrapes) + 1  # the scrapes, and the question before them


def scrapes_by_several(port: int, *, log: Path) -> list[str]:
    """Scrapes at the same time, again and again until several workers have answered: the kernel chooses whom to ask."""
    scrapes: list[str] = []
    until = time.monotonic() + 60
    with ThreadPoolExecutor(6) as scrapers:
        while len({line for line in log.read_text().splitlines() if line.startswith("/metrics by ")}) < 2:
            assert time.monotonic() < until, "one worker has answered everything"
            scrapes += scrapers.map(lambda _: get(port, "/metrics"), range(6))
    return scrapes


def get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def requests_counted(port: int) -> float:
    (found,) = (
        sample.value
        for family in parser.text_string_to_metric_families(get(port, "/metrics/web"))
        for sample in family.samples
        if sample.name == "django_http_requests_before_middlewares_total"
    )
    return found


@pytest.mark.django_db
def test_what_was_pruned_and_how_long_ago_is_told(client: Client, settings: Any) -> None:
    before = scrape(client)
    an_old_event()
    pruning.begin()
    pruning.prune(share=100)
    PruneRun.objects.update(finished_at=datetime.now(UTC) - timedelta(hours=5))

    after = scrape(client)
    settings.KANIKOJOBS_PRUNE_AT = None
    unscheduled = scrape(client)

    assert value(before, "kanikojobs_pruned_rows_total", kind="events") == 0
    assert value(after, "kanikojobs_pruned_rows_total", kind="events") == 1
    # Before the first run: the age of the tables.
    assert value(before, "kanikojobs_prune_age_seconds") == pytest.approx(0, abs=3600)
    assert value(after, "kanikojobs_prune_age_seconds") == pytest.approx(5 * 3600, abs=600)
    assert value(unscheduled, "kanikojobs_prune_age_seconds") is None
