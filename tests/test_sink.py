"""The sink: what an HTTP caller and Knative's broker are answered, and that the answer comes after the commit."""

import io
import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import Client
from django.test.client import RequestFactory
from pytest_django import Settings

from kanikojobs import sink
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob
from kanikojobs.replay import mending
from tests.database_away import database_away
from tests.factories import a_message
from tests.replay_cases import AN_OPERATOR, run_to_the_end
from tests.sample_events import document_event, sample_event

pytestmark = pytest.mark.django_db

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def post(
    client: Client, body: bytes | Message, *, content_type: str = STRUCTURED, path: str = "/", **headers: str
) -> HttpResponse:
    data = body.body if isinstance(body, Message) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response: Any = client.post(path, data, content_type=content_type, headers=named)
    return response


def content(response: HttpResponse) -> Any:
    return json.loads(response.content)


@pytest.mark.parametrize("path", ["/", "/events"])
def test_a_structured_event_is_queued(client: Client, path: str) -> None:
    response = post(client, a_message(document_event()), path=path)

    assert (response.status_code, content(response)) == (202, {"status": "queued"})
    assert response["Content-Type"] == "application/json"
    event = JobStartEvent.objects.get()
    assert (event.event_id, event.origin, event.data) == ("uuid", "direct", document_event()["data"])
    assert KanikoJob.objects.get().state == "queued"


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
def test_what_the_sdk_sends_is_queued(client: Client, write: Any) -> None:
    event = sample_event(1)
    attributes = {name: event[name] for name in event if name not in ("data", "time")} | {"subject": "é %20", "ext": 1}
    request = write(CloudEvent(attributes, event["data"]))

    response = client.post(
        "/",
        request.body,
        content_type=request.headers["content-type"],
        headers={name: value for name, value in request.headers.items() if name != "content-type"},
    )

    assert response.status_code == 202
    row = JobStartEvent.objects.get()
    assert (row.event_id, row.subject, row.data) == (event["id"], "é %20", event["data"])


def test_a_duplicate_is_answered_as_the_first_was(client: Client) -> None:
    message = a_message()
    post(client, message)

    response = post(client, message)

    assert (response.status_code, content(response)) == (202, {"status": "queued"})
    assert JobStartEvent.objects.get().times_seen == 2


def test_knatives_broker_is_answered_by_a_cloudevent(client: Client) -> None:
    answers = [post(client, a_message(), prefer="reply") for _ in range(2)]

    events = [from_http_event(HTTPMessage(dict(answer.headers), answer.content)) for answer in answers]
    assert [answer.status_code for answer in answers] == [202, 202]
    for event in events:
        assert event.get_type() == "network.notifi.lambda.job.queued"
        assert event.get_source() == django_settings.KANIKOJOBS_EVENT_SOURCE
        assert event.get_specversion() == "1.0"
        assert event.get_datacontenttype() == "application/json"
        assert event.get_data() == {"status": "queued"}
    assert events[0].get_id() != events[1].get_id()


def test_an_event_for_others_is_taken_from_the_broker_without_a_body_that_is_no_event(client: Client) -> None:
    response = post(client, a_message(type="network.notifi.lambda.job.done"), prefer="reply")

    assert (response.status_code, response.content) == (202, b"")
    assert not JobStartEvent.objects.exists()


def test_an_event_for_others_is_not_said_to_be_queued(client: Client) -> None:
    response = post(client, a_message(source="urn:other"))

    assert (response.status_code, content(response)) == (202, {"status": "ignored"})
    assert not DeadLetter.objects.exists()


def test_a_batch_is_queued_event_by_event(client: Client) -> None:
    batch = [sample_event(number) for number in range(3)]

    response = post(client, json.dumps(batch).encode(), content_type=BATCH)

    assert (response.status_code, content(response)) == (202, {"status": "queued"})
    assert set(JobStartEvent.objects.values_list("event_id", flat=True)) == {event["id"] for event in batch}


def test_what_is_good_in_a_batch_is_taken_and_what_is_not_is_told_by_its_place(client: Client) -> None:
    bad = sample_event(2)
    bad["data"]["priority"] = 11

    response = post(client, json.dumps([sample_event(1), bad, 7]).encode(), content_type=BATCH)

    assert response.status_code == 400
    assert [fault["path"] for fault in content(response)["faults"]] == ["[1]", "[2]"]
    assert "data.priority: the number 11" in content(response)["faults"][0]["problem"]
    assert content(response)["accepted"] == 1
    assert JobStartEvent.objects.count() == 1
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("body", [b"{}", b"[", b" ", b"\xff"])
def test_a_batch_that_is_none_is_one_dead_letter(client: Client, body: bytes) -> None:
    response = post(client, body, content_type=BATCH)

    letter = DeadLetter.objects.get()
    assert response.status_code == 400
    assert content(response)["faults"][0]["path"] == "body"
    assert (bytes(letter.body), letter.content_type, letter.origin) == (body, BATCH, "direct")


def test_an_empty_batch_is_fine(client: Client) -> None:
    assert post(client, b"[]", content_type=BATCH).status_code == 202


def test_an_invalid_event_is_refused_with_every_fault_and_kept(client: Client) -> None:
    event = document_event() | {"specversion": "0.3"}
    event["data"]["priority"] = 11

    response = post(client, json.dumps(event).encode(), x_request_id="7", authorization="Bearer s3cret", cookie="a=b")

    letter = DeadLetter.objects.get()
    assert response.status_code == 400
    assert content(response)["status"] == "invalid"
    assert [fault["path"] for fault in content(response)["faults"]] == ["specversion", "data.priority"]
    assert content(response)["faults"] == letter.faults
    assert (letter.ce_id, letter.origin) == ("uuid", "direct")
    assert letter.properties == {"method": "POST", "path": "/", "remote_addr": "127.0.0.1"}
    assert letter.headers["X-Request-Id"] == "7"
    assert not {"Authorization", "Cookie"} & letter.headers.keys()


def test_a_binary_request_is_kept_as_it_came_and_replayed_as_the_binding_reads_it(client: Client) -> None:
    event = document_event()
    good = json.dumps(event["data"]).encode()
    sent = {
        "Ce-Specversion": "1.0",
        "Ce-Source": event["source"],
        "Ce-Type": event["type"],
        "Ce-Id": "Euro%20%E2%82%AC",
        "Ce-Subject": '"100%25 \\"sure\\""',  # HTTP binding 1.0.2, section 3.1.3.2: quotes first, then per cent
    }
    response = client.post("/", b'{"parser_id": 7}', content_type="application/json", headers=sent)
    letter = DeadLetter.objects.get()

    run_to_the_end(mending.replay(letter=letter, body=good, author=AN_OPERATOR, reason="The data was cut off."))

    row = JobStartEvent.objects.get()
    assert response.status_code == 400
    assert (bytes(letter.body), letter.content_type) == (b'{"parser_id": 7}', "application/json")
    assert {name: letter.headers[name] for name in sent} == sent
    assert (row.event_id, row.subject, row.data) == ("Euro €", '100% "sure"', event["data"])


def test_the_same_identity_with_other_content_is_refused_and_kept(client: Client) -> None:
    post(client, a_message(document_event()))

    response = post(client, a_message(document_event(), subject="other"))

    assert response.status_code == 400
    assert content(response)["faults"][0]["path"] == "id"
    assert DeadLetter.objects.get().cause == "identity-conflict"


def test_what_is_not_in_utf_8_is_kept_to_the_byte(client: Client) -> None:
    response = post(client, b"\xff\x00")

    assert response.status_code == 400
    assert bytes(DeadLetter.objects.get().body) == b"\xff\x00"


def test_direct_events_that_are_switched_off_are_gone_and_the_queue_is_named(
    client: Client, settings: Settings
) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    response = post(client, a_message())

    assert response.status_code == 410
    assert "RabbitMQ queue kaniko-jobs" in content(response)["detail"]
    assert response["Content-Type"] == "application/problem+json"
    assert not JobStartEvent.objects.exists()


def test_a_body_that_is_too_large_is_not_read(client: Client, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

    response = post(client, b"x" * 1001)

    assert response.status_code == 413
    assert "larger than 1000 bytes" in content(response)["detail"]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic t0ken", 401),
        ("Bearer t0ken", 202),
        ("bearer t0ken", 202),
    ],
)
def test_events_are_taken_from_who_has_the_token(
    client: Client, settings: Settings, authorization: str, status: int
) -> None:
    settings.KANIKOJOBS_SINK_TOKEN = "t0ken"

    response = post(client, a_message(), authorization=authorization)

    assert response.status_code == status
    assert response.get("WWW-Authenticate", "").startswith("Bearer") == (status == 401)
    assert JobStartEvent.objects.count() == (1 if status == 202 else 0)


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_the_caller_is_asked_to_come_again(client: Client) -> None:
    message = a_message()
    with database_away():
        away = post(client, message)
    back = post(client, message)

    assert away.status_code == 503
    assert int(away["Retry-After"]) > 0
    assert "nothing was taken" in content(away)["detail"]
    assert back.status_code == 202
    assert JobStartEvent.objects.get().times_seen == 1


def chunked(body: bytes) -> WSGIRequest:
    """A request of unknown length, as a WSGI server hands it over that knows where it ends."""
    request = RequestFactory().post("/", b"x", content_type=STRUCTURED)
    environ = request.environ | {
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    del environ["CONTENT_LENGTH"]
    return WSGIRequest(environ)


def test_a_chunked_request_is_read_to_its_end() -> None:
    response = sink.front_door(chunked(a_message(document_event()).body))

    assert response.status_code == 202
    assert JobStartEvent.objects.get().event_id == "uuid"


def test_a_chunked_request_that_does_not_end_in_time_is_too_large(settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

    response = sink.front_door(chunked(b"x" * 1001))

    assert response.status_code == 413


def test_a_program_needs_no_csrf_token() -> None:
    strict = Client(enforce_csrf_checks=True)

    answers = [post(strict, a_message(), path=path) for path in ("/", "/events")]

    assert [answer.status_code for answer in answers] == [202, 202]


def test_a_person_who_opens_the_front_door_is_sent_to_the_admin(client: Client) -> None:
    response = client.get("/")

    assert (response.status_code, response["Location"]) == (302, "/admin/")


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
def test_events_are_only_posted(client: Client, method: str) -> None:
    response = getattr(client, method)("/events")

    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_a_batch_may_be_larger_than_an_event(client: Client, settings: Settings) -> None:
    body = json.dumps([sample_event(number) for number in range(1000)], indent=4).encode()
    assert len(body) > settings.KANIKOJOBS_MAX_EVENT_BYTES

    response = post(client, body, content_type=BATCH)

    assert response.status_code == 202
    assert JobStartEvent.objects.count() == 1000
