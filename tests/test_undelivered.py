"""What Knative's broker brings in vain: kept once, with Knative's words, ready to be replayed."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from kanikojobs import intake, tallies
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent
from tests.database_away import database_away
from tests.sample_events import sample_event

pytestmark = pytest.mark.django_db

SINK = "http://knative-lambda-builder-dev.knative-lambda-dev.svc.cluster.local/events/broker"
ERROR = {"ce-knativeerrordest": SINK, "ce-knativeerrorcode": "503"}


def deliver(
    client: Client,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = "/events/undelivered",
    body: bytes | None = None,
) -> HttpResponse:
    """A sample event as Knative's brokers send it, in binary mode, with further headers."""
    event = sample_event(1)
    attributes = {f"ce-{name}": value for name, value in event.items() if name not in ("data", "datacontenttype")}
    data = json.dumps(event["data"]).encode() if body is None else body
    response: Any = client.post(path, data, content_type="application/json", headers=attributes | dict(headers or {}))
    return response


def through_the_queue() -> None:
    """The same event, recorded."""
    body = json.dumps(sample_event(1)).encode()
    intake.record([Message(body, "application/cloudevents+json")], origin=JobStartEvent.Origin.QUEUE)


def test_an_event_that_knative_gave_up_is_a_dead_letter_with_its_words(client: Client) -> None:
    data = base64.b64encode(b"no healthy\nupstream").decode()

    response = deliver(client, ERROR | {"ce-knativeerrordata": data})

    letter = DeadLetter.objects.get()
    assert (response.status_code, json.loads(response.content)) == (202, {"status": "kept"})
    assert (letter.cause, letter.origin, letter.state) == ("undelivered", "direct", "open")
    assert letter.reason == f"Knative could not deliver it to {SINK}: HTTP 503: no healthy upstream"
    assert (letter.ce_id, letter.third_party_id) == (
        sample_event(1)["id"],
        sample_event(1)["data"]["third_party_id"],
    )
    assert letter.properties["knativeerrorcode"] == "503"
    assert not [name for name in letter.headers if "knativeerror" in name.lower()]
    assert json.loads(bytes(letter.body)) == sample_event(1)["data"]
    assert tallies.totals(prefix="dead-letter/")["dead-letter/undelivered"].count == 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "Knative could not deliver it, and does not say why."),
        ({"ce-knativeerrorcode": "-1"}, "Knative could not deliver it to an address that it does not name: no answer."),
        (ERROR | {"ce-knativeerrordata": "gone away"}, f"Knative could not deliver it to {SINK}: HTTP 503: gone away"),
        (ERROR | {"ce-knativeerrordata": "gone"}, f"Knative could not deliver it to {SINK}: HTTP 503: gone"),
        (ERROR, f"Knative could not deliver it to {SINK}: HTTP 503."),
    ],
    ids=["nothing", "no answer", "words", "words that could be Base64", "no words"],
)
def test_the_reason_says_what_knative_says(client: Client, headers: dict[str, str], reason: str) -> None:
    deliver(client, headers)

    assert DeadLetter.objects.get().reason == reason


def test_in_structured_mode_the_words_are_in_the_body(client: Client) -> None:
    event = sample_event(1) | {"knativeerrordest": SINK, "knativeerrorcode": 503}

    client.post("/events/undelivered", json.dumps(event), content_type="application/cloudevents+json")

    assert DeadLetter.objects.get().reason == f"Knative could not deliver it to {SINK}: HTTP 503."


def test_a_broker_that_asks_for_a_reply_gets_no_body(client: Client) -> None:
    response = deliver(client, ERROR | {"prefer": "reply"})

    assert (response.status_code, response.content) == (202, b"")


def test_what_is_recorded_already_needs_no_dead_letter(client: Client) -> None:
    through_the_queue()

    response = deliver(client, ERROR)

    assert response.status_code == 202
    assert not DeadLetter.objects.exists()


def test_another_content_of_a_recorded_event_is_kept(client: Client) -> None:
    through_the_queue()

    deliver(client, ERROR | {"ce-subject": "of something else"})

    assert DeadLetter.objects.get().cause == "undelivered"


def test_what_the_sink_has_found_invalid_is_not_kept_twice(client: Client) -> None:
    refused = deliver(client, path="/events/broker", body=b"{}")

    deliver(client, ERROR | {"ce-knativeerrorcode": "400"}, body=b"{}")

    assert refused.status_code == 400
    assert [letter.cause for letter in DeadLetter.objects.all()] == ["invalid"]


def test_an_invalid_event_that_never_reached_the_sink_is_kept_with_its_faults(client: Client) -> None:
    deliver(client, ERROR, body=b"{}")

    letter = DeadLetter.objects.get()
    assert (letter.cause, letter.ce_id) == ("undelivered", sample_event(1)["id"])
    assert "data.third_party_id" in {fault["path"] for fault in letter.faults}


def test_an_event_of_another_is_not_kept(client: Client) -> None:
    response = deliver(client, ERROR | {"ce-type": "of.another"})

    assert response.status_code == 202
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("path", ["/events/undelivered", "/events/broker"])
def test_without_the_database_knative_is_asked_to_come_again(client: Client, settings: Settings, path: str) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    with database_away():
        response = deliver(client, path=path)

    assert (response.status_code, response["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("path", ["/events/undelivered", "/events/broker"])
def test_the_token_is_asked_for(client: Client, settings: Settings, path: str) -> None:
    settings.KANIKOJOBS_SINK_TOKEN = "t0ken"

    assert deliver(client, path=path).status_code == 401
    assert deliver(client, {"authorization": "Bearer t0ken"}, path=path).status_code == 202


# --- While direct events are switched off -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/events/broker", {}),
        ("/", {"prefer": "reply"}),
        ("/events", {"ce-knativearrivaltime": "2024-01-01T00:00:00Z"}),
    ],
    ids=["its own path", "Prefer: reply", "an extension"],
)
def test_what_a_broker_brings_then_is_refused_and_kept(
    client: Client, settings: Settings, path: str, headers: dict[str, str]
) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    response = deliver(client, headers, path=path)

    assert response.status_code == 410
    letter = DeadLetter.objects.get()
    assert letter.cause == "undelivered"
    assert "the RabbitMQ queue kaniko-jobs" in letter.reason


def test_the_broker_that_passes_the_refusal_on_to_its_dead_letter_sink_makes_no_second_letter(
    client: Client, settings: Settings
) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    deliver(client, path="/events/broker")
    deliver(client, ERROR | {"ce-knativeerrorcode": "410"})

    letter = DeadLetter.objects.get()
    assert (letter.times_seen, letter.cause) == (2, "undelivered")


def test_a_direct_caller_keeps_what_is_refused_and_is_counted(client: Client, settings: Settings) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"
    body = json.dumps(sample_event(1))

    response = client.post("/", body, content_type="application/cloudevents+json")

    assert response.status_code == 410
    assert not DeadLetter.objects.exists()
    assert tallies.totals(prefix="sink/")["sink/refused"].count == 1


def test_a_refusal_that_cannot_be_counted_is_one_all_the_same(client: Client, settings: Settings) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    with database_away():
        response = client.post("/", b"{}", content_type="application/cloudevents+json")

    assert response.status_code == 410
