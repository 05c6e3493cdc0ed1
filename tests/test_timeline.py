"""An event's story: in order, complete, and safe to show."""

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from kanikojobs.models import JobAttempt, JobStartEvent
from kanikojobs.timeline import timeline
from tests.factories import a_dead_letter, a_kaniko_job, an_event

pytestmark = pytest.mark.django_db

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def event() -> JobStartEvent:
    """Received twice; its first build was tried twice and refused, its second is queued."""
    event = an_event(received_at=START, times_seen=2, last_seen_at=START + timedelta(seconds=1))
    failed = a_kaniko_job(
        event=event,
        state="failed",
        reason="Forbidden",
        message="not <b>you</b>",
        queued_at=START,
        finished_at=START + timedelta(seconds=5),
    )
    for number, outcome, reason in ((1, "retry", "InternalError"), (2, "refused", "Forbidden")):
        at = START + timedelta(seconds=1 + number)
        JobAttempt.objects.create(
            kaniko_job=failed,
            number=number,
            outcome=outcome,
            reason=reason,
            http_status=500,
            started_at=at,
            finished_at=at,
            duration=0.25,
        )
    a_dead_letter(event=event, kaniko_job=failed, cause="creation-failed", first_died_at=START + timedelta(seconds=6))
    a_kaniko_job(event=event, number=2, state="queued", queued_at=START + timedelta(seconds=9))
    return event


def test_it_tells_everything_in_order(event: JobStartEvent) -> None:
    assert [entry.title for entry in timeline(event)] == [
        "Received from RabbitMQ",
        "Kaniko Job 1 queued",
        "Seen again, 1 time in all",
        "Attempt 1 of Kaniko Job 1: failed, may be tried again",
        "Attempt 2 of Kaniko Job 1: refused, trying again cannot help",
        "Kaniko Job 1 failed",
        "Dead letter: its Job could not be created",
        "Kaniko Job 2 queued",
    ]


def test_an_attempt_says_what_the_server_said_and_how_long_it_took(event: JobStartEvent) -> None:
    attempt = next(entry for entry in timeline(event) if entry.title.startswith("Attempt 1"))

    assert attempt.text == "InternalError (HTTP 500, 250 ms)"
    assert attempt.tone == "bad"


def test_the_events_page_shows_it_as_text(event: JobStartEvent, admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:kanikojobs_jobstartevent_change", args=[event.pk])).content.decode()

    assert "What became of it" in page
    assert "not &lt;b&gt;you&lt;/b&gt;" in page
