"""The home's read side: the worst that is true comes first, and every step of a window is a point."""

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from kanikojobs import heartbeats, outages, overview, tallies
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.models import Heartbeat, KanikoJob, Tally
from kanikojobs.tallies import Increment
from tests.factories import a_kaniko_job

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
    assert seen.sentence == "No sign of life: Consumer, Workers, Watcher, RabbitMQ."


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
    assert seen.sentence.startswith("1 Kaniko Jobs wait, the oldest for 12")


@pytest.mark.parametrize("window", overview.WINDOWS, ids=lambda window: window.key)
def test_a_window_has_a_point_for_every_step_and_the_last_is_now(window: overview.Window) -> None:
    attempts(created=2, retry=1)

    points = overview.points(window, now=datetime.now(UTC))

    assert len(points) == round(window.length / window.step)
    assert (points[-1].created, points[-1].failed) == (2, 1)
    assert [point.created for point in points[:-1]] == [0] * (len(points) - 1)


def test_a_cause_is_new_if_it_was_never_there_before_the_window() -> None:
    attempts(retry=3)
    Tally.objects.filter(span="minute").update(since=datetime.now(UTC) - timedelta(hours=2))
    attempts(refused=2, retry=1)

    causes = overview.causes(overview.WINDOWS[0])

    assert causes == [
        overview.Cause("attempt refused", 2, is_new=True),
        overview.Cause("attempt retry", 1, is_new=False),
    ]


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
    assert b"last 24 hours" in part.content
    assert b"<html" not in part.content


def test_who_may_not_view_kaniko_jobs_sees_no_numbers(client: Client, django_user_model: type) -> None:
    user = django_user_model.objects.create_user("staff", password="x", is_staff=True)  # type: ignore[attr-defined]
    client.force_login(user)

    page = client.get(reverse("admin:index"), {"part": "overview"})

    assert b"verdict" not in page.content
