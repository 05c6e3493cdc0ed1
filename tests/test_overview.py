"""The home's read side: the worst that is true comes first, and every step of a window is a point."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from kanikojobs import audit, heartbeats, outages, overview, pausing, tallies
from kanikojobs.backlog import Share
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.models import FailureGroupHour, Heartbeat, KanikoJob, OperatorAction
from kanikojobs.tallies import Increment
from tests.factories import a_failure_group, a_kaniko_job

pytestmark = pytest.mark.django_db


@pytest.fixture
def everybody_alive() -> None:
    for role in Heartbeat.Role:
        heartbeats.Pulse(role).beat({"queue_depth": 3} if role == Heartbeat.Role.CONSUMER else {})


def attempts(**outcomes: int) -> None:
    tallies.add({f"creation/{outcome}": Increment(count=count) for outcome, count in outcomes.items()})


def test_a_system_without_signs_of_life_is_down_and_says_whose() -> None:
    seen = overview.overview()

    assert seen.mood == "down"
    assert seen.sentence == ("Consumer (no sign of life), Workers (no sign of life), Watcher (no sign of life).")
    assert {part.name: part.state for part in seen.parts}["RabbitMQ"] == "unknown"


@pytest.mark.usefixtures("everybody_alive")
def test_a_quiet_system_is_well() -> None:
    seen = overview.overview()

    assert (seen.mood, seen.queue_depth) == ("well", 3)
    assert seen.failure_rate is None


@pytest.mark.usefixtures("everybody_alive")
def test_an_outage_comes_before_everything_else() -> None:
    outages.begin(ClusterUnavailable(reason="ConnectionFailed", message="connection refused"))
    attempts(refused=100)

    seen = overview.overview()

    assert seen.mood == "down"
    assert "ConnectionFailed" in seen.sentence


@pytest.mark.usefixtures("everybody_alive")
@pytest.mark.parametrize(
    ("created", "refused", "mood"), [(95, 5, "well"), (94, 6, "failing"), (0, 19, "well")], ids=["5%", "6%", "too few"]
)
def test_it_is_failing_from_more_than_five_percent_of_enough_attempts(created: int, refused: int, mood: str) -> None:
    attempts(created=created, refused=refused)

    assert overview.overview().mood == mood


@pytest.mark.usefixtures("everybody_alive")
def test_it_is_behind_when_the_oldest_waits_too_long() -> None:
    job = a_kaniko_job(state="queued")
    KanikoJob.objects.filter(pk=job.pk).update(queued_at=datetime.now(UTC) - timedelta(minutes=2))

    seen = overview.overview()

    assert seen.mood == "behind"
    assert seen.sentence.startswith("1 Kaniko Job waits, the oldest for 2 min")


@pytest.mark.usefixtures("everybody_alive")
def test_a_pause_is_told_with_who_and_why() -> None:
    author = audit.Author(name="a-person", via=OperatorAction.Via.COMMAND)
    pausing.pause(author=author, reason="moving the registry")

    seen = overview.overview()

    assert (seen.mood, seen.sentence) == ("behind", "Consuming is paused by a-person: moving the registry")


@pytest.mark.parametrize(
    ("role", "details", "part", "note"),
    [
        ("consumer", {"rabbitmq": False}, "RabbitMQ", "the consumer cannot connect"),
        ("watcher", {"leads": False}, "Watcher", "1 running, and none leads"),
        (
            "consumer",
            {"dead_letters_only": True},
            "Consumer",
            "1 running, for dead letters only, and nobody reads the queue",
        ),
    ],
    ids=["a consumer without RabbitMQ", "watchers of which none leads", "nobody for the queue"],
)
@pytest.mark.usefixtures("everybody_alive")
def test_what_a_process_says_of_itself_can_tell_that_a_part_is_down(
    role: str, details: dict[str, Any], part: str, note: str
) -> None:
    Heartbeat.objects.filter(role=role).update(details=details)

    seen = overview.overview()

    assert seen.mood == "down"
    assert (part, "down", note) in {(found.name, found.state, found.note) for found in seen.parts}


@pytest.mark.parametrize(
    ("details", "state", "note"),
    [
        ({"dead_letters_only": True}, "well", "1 running, for dead letters only"),
        (None, "unknown", "Knative reads the queue, and nobody drains the dead-letter queue"),
    ],
    ids=["for dead letters", "none"],
)
@pytest.mark.usefixtures("everybody_alive")
def test_where_knative_reads_the_queue_the_consumer_is_not_what_makes_it_well(
    settings: Settings, details: dict[str, Any] | None, state: str, note: str
) -> None:
    settings.KANIKOJOBS_QUEUE_READER = "knative"
    consumers = Heartbeat.objects.filter(role="consumer")
    if details is None:
        consumers.delete()
    else:
        consumers.update(details=details)

    seen = overview.overview()

    assert seen.mood == "well"
    assert ("Consumer", state, note) in {(found.name, found.state, found.note) for found in seen.parts}


@pytest.mark.parametrize("window", overview.WINDOWS, ids=lambda window: window.key)
def test_a_window_has_a_point_for_every_step_and_the_last_is_now(window: overview.Window) -> None:
    attempts(created=2, retry=1)
    tallies.add(tallies.counts({"intake/queue/recorded": 4, "intake/direct/recorded": 1, "intake/queue/dead": 9}))

    points = overview.overview(window=window).points

    assert len(points) == round(window.length / window.step)
    assert (points[-1].recorded, points[-1].created, points[-1].failed) == (5, 2, 1)
    assert [point.created for point in points[:-1]] == [0] * (len(points) - 1)


def test_causes_are_groups_of_equal_failures_the_most_frequent_first() -> None:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    old = a_failure_group(signature="registry says <n>", first_seen_at=now - timedelta(days=3), state="regressed")
    new = a_failure_group(signature="no such host", first_seen_at=now)
    past = a_failure_group(signature="long ago", last_seen_at=now - timedelta(hours=5))
    for group, at, deaths in ((old, hour, 7), (new, hour, 2), (past, hour - timedelta(hours=5), 50)):
        FailureGroupHour.objects.create(group=group, hour=at, deaths=deaths)

    causes = overview.overview().causes

    assert [(cause.title, cause.count, cause.state, cause.is_new) for cause in causes] == [
        ("registry says <n>", 7, "regressed", False),
        ("no such host", 2, "new", True),
    ]


def test_the_busiest_third_parties_and_what_is_waited_for_are_told() -> None:
    for third_party, state, reason in (
        ("noisy", "queued", ""),
        ("noisy", "running", ""),
        ("noisy", "created", "Unschedulable"),
        ("quiet", "created", "words of the API server"),
    ):
        a_kaniko_job(state=state, reason=reason, third_party_id=third_party)
    a_kaniko_job(state="queued", third_party_id="quiet", run_at=datetime.now(UTC) + timedelta(hours=1))
    a_kaniko_job(state="succeeded", third_party_id="done")

    seen = overview.overview()

    assert seen.busiest == [Share("noisy", queued=1, active=2), Share("quiet", queued=1, active=1)]
    assert seen.backlog.waiting == {
        ("queued", "ForAWorker"): 1,
        ("queued", "ForItsNextTry"): 1,
        ("created", "Unschedulable"): 1,
        ("created", "Other"): 1,
    }
    assert seen.backlog.active == 3


@pytest.mark.usefixtures("everybody_alive")
def test_the_home_shows_the_verdict_and_keeps_hostile_text_as_text(admin_client: Client) -> None:
    a_kaniko_job(state="running", third_party_id="<script>alert(1)</script>", running_at=datetime.now(UTC))

    page = admin_client.get(reverse("admin:index"))

    text = page.content.decode()
    assert "Healthy" in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text


@pytest.mark.usefixtures("everybody_alive")
def test_the_part_that_changes_can_be_asked_for_alone(admin_client: Client) -> None:
    part = admin_client.get(reverse("admin:index"), {"part": "overview", "window": "24h"})

    assert part.status_code == 200
    assert b'href="?window=24h" aria-current="page"' in part.content
    assert b"<html" not in part.content


def test_who_may_not_view_kaniko_jobs_sees_no_numbers(client: Client, django_user_model: type) -> None:
    user = django_user_model.objects.create_user("staff", password="x", is_staff=True)  # type: ignore[attr-defined]
    client.force_login(user)

    page = client.get(reverse("admin:index"), {"part": "overview"})

    assert b"verdict" not in page.content
