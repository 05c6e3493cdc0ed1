"""Dead letters: all the evidence is kept, equal ones are one, and whatever was in a message can be stored."""

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from kanikojobs import cloudevent, dead_letters, intake, letters, tallies
from kanikojobs.cloudevent import StartEvent
from kanikojobs.errors import Fault, InvalidEvent
from kanikojobs.letters import Letter, message_hash
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent
from kanikojobs.storable import printable, storable
from tests.factories import a_kaniko_job
from tests.sample_events import document_event, sample_event

Cause = DeadLetter.Cause
QUEUE, DIRECT = JobStartEvent.Origin.QUEUE, JobStartEvent.Origin.DIRECT


def letter(**changes: Any) -> Letter:
    values: dict[str, Any] = {"cause": Cause.INVALID, "origin": QUEUE, "reason": "body: not JSON", "body": b"{"}
    return Letter(**values | changes)


@pytest.mark.django_db
def test_all_the_evidence_is_kept_to_the_byte() -> None:
    message = Message(b"\xff\x00{", "text/x", {"a": 1}, {"routing_key": "k"})
    invalid = InvalidEvent([Fault("id", "missing"), Fault("data", "null")], source="urn:x", event_id="7")

    dead_letters.record([letters.of_invalid(message, invalid, origin=DIRECT)])

    row = DeadLetter.objects.get()
    assert bytes(row.body) == b"\xff\x00{"
    assert (row.content_type, row.headers, row.properties) == ("text/x", {"a": 1}, {"routing_key": "k"})
    assert (row.cause, row.origin, row.state) == (Cause.INVALID, DIRECT, DeadLetter.State.OPEN)
    assert row.reason == "id: missing\ndata: null"
    assert row.faults == [{"path": "id", "problem": "missing"}, {"path": "data", "problem": "null"}]
    assert (row.ce_source, row.ce_id) == ("urn:x", "7")
    assert (row.event, row.kaniko_job, row.times_seen) == (None, None, 1)


@pytest.mark.django_db
def test_the_same_message_again_is_the_same_letter_seen_once_more() -> None:
    dead_letters.record([letter()])

    dead_letters.record([letter(headers={"x-delivery-count": 1})])
    dead_letters.record([letter(), letter()])

    row = DeadLetter.objects.get()
    assert row.times_seen == 4
    assert row.last_died_at > row.first_died_at


@pytest.mark.django_db
@pytest.mark.parametrize(
    "other",
    [
        letter(body=b"["),
        letter(cause=Cause.EXPIRED),
        letter(origin=DIRECT),
        letter(content_type="text/plain", headers={"ce-id": "1"}),
        letter(headers={"ce-id": "2"}),
        letter(headers={"cloudEvents:id": "2"}),
    ],
    ids=["body", "cause", "origin", "content type", "header in binary mode", "header of the older binding"],
)
def test_what_differs_is_another_letter(other: Letter) -> None:
    dead_letters.record([letter(headers={"ce-id": "1"}), other])
    dead_letters.record([letter(headers={"ce-id": "1"}), other])

    assert list(DeadLetter.objects.values_list("times_seen", flat=True)) == [2, 2]


@pytest.mark.django_db
@pytest.mark.parametrize("state", [DeadLetter.State.DISCARDED, DeadLetter.State.REPLAYED])
def test_a_letter_that_was_dealt_with_is_not_opened_again(state: DeadLetter.State) -> None:
    dead_letters.record([letter()])
    DeadLetter.objects.update(state=state)

    dead_letters.record([letter()])

    assert Counter(DeadLetter.objects.values_list("state", "times_seen")) == {(state, 1): 1, ("open", 1): 1}


@pytest.mark.django_db
def test_letters_of_one_batch_arrived_in_the_order_in_which_they_were_handed_over() -> None:
    bodies = [str(number).encode() for number in range(20)]

    dead_letters.record([letter(body=body) for body in bodies])

    arrived = DeadLetter.objects.order_by("arrived_at").values_list("body", flat=True)
    assert [bytes(body) for body in arrived] == bodies


@pytest.mark.django_db
def test_bodies_that_are_too_large_to_be_written_at_once_are_all_written() -> None:
    bodies = [bytes([number]) * (dead_letters.MOST_BYTES_AT_ONCE // 2) for number in range(5)]

    dead_letters.record([letter(body=body) for body in bodies])

    assert {bytes(body) for body in DeadLetter.objects.values_list("body", flat=True)} == set(bodies)


@pytest.mark.django_db
def test_a_clock_that_was_set_back_loses_no_letter() -> None:
    dead_letters.record([letter()])
    later = datetime.now(UTC) + timedelta(hours=1)
    DeadLetter.objects.update(first_died_at=later, last_died_at=later)

    dead_letters.record([letter()])

    row = DeadLetter.objects.get()
    assert (row.times_seen, row.last_died_at) == (2, later)


@pytest.mark.django_db(transaction=True)
def test_two_that_record_the_same_letters_at_once_count_all_and_do_not_lock_each_other_out() -> None:
    letters = [letter(body=str(number).encode()) for number in range(100)]
    start = Barrier(2)

    def record(letters: list[Letter]) -> None:
        connection.ensure_connection()
        start.wait(timeout=60)
        try:
            for _ in range(3):
                with transaction.atomic():
                    dead_letters.record(letters)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(record, [letters, letters[::-1]]))

    assert list(DeadLetter.objects.values_list("times_seen", flat=True)) == [6] * 100


X_DEATH = {
    "count": 1,
    "exchange": "",
    "queue": "kaniko-jobs",
    "routing-keys": ["kaniko-jobs"],
    "time": datetime.now(UTC),
}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("x_death", "cause", "reason"),
    [
        ([X_DEATH | {"reason": "expired"}], Cause.EXPIRED, "time to live. Queue: kaniko-jobs."),
        ([X_DEATH | {"reason": "maxlen"}], Cause.MAXLEN, "The queue was full"),
        ([X_DEATH | {"reason": "delivery_limit"}], Cause.DELIVERY_LIMIT, "handed over too often"),
        ([X_DEATH | {"reason": "rejected"}], Cause.REJECTED, "A consumer rejected it. Queue: kaniko-jobs."),
        ([{"reason": "expired"}, {"reason": "rejected"}], Cause.EXPIRED, "time to live."),
        ([X_DEATH | {"reason": "boredom"}], Cause.REJECTED, "without a reason that is known. Queue: kaniko-jobs."),
        ([X_DEATH | {"reason": ["expired"]}], Cause.REJECTED, "without a reason that is known"),
        ([{"reason": "expired", "queue": "a\x00b"}], Cause.EXPIRED, "Queue: a\\x00b."),
        ([], Cause.REJECTED, "without a reason that is known."),
        (["expired"], Cause.REJECTED, "without a reason that is known."),
        ("expired", Cause.REJECTED, "without a reason that is known."),
        (None, Cause.REJECTED, "without a reason that is known."),
    ],
)
def test_the_brokers_reason_is_the_cause(x_death: object, cause: Cause, reason: str) -> None:
    message = Message(b"{}", "application/json", {"x-death": x_death}, {"delivery_mode": 2})

    result = dead_letters.record_from_broker([message])

    row = DeadLetter.objects.get()
    assert row.cause == cause
    assert reason in row.reason
    assert bytes(row.body) == b"{}"
    assert row.properties == {"delivery_mode": 2}
    assert result.dead == 1
    assert {series: total.count for series, total in tallies.totals(prefix="").items()} == {f"dead-letter/{cause}": 1}


@pytest.mark.django_db
def test_a_creation_that_gave_up_leaves_the_event_to_be_read_again() -> None:
    event = document_event() | {
        "time": "2024-01-01T01:30:00.123456+01:30",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "urgent": True,
        "tries": 3,
        "dataschema": "https://schemas.example/1",
    }
    event["data"]["note"] = ["é\U0001f600", 1.5, 10**30, 1e22, 1e23, 1e-7, 1e-300, -0.0, 1.0, None, {"b": 1, "a": 2}]
    sent = json.dumps(event).encode()
    intake.record([Message(sent, "application/cloudevents+json")], origin=QUEUE)
    job = JobStartEvent.objects.get().kaniko_jobs.get()
    job.reason = "CreateRejected"
    job.save()

    dead_letters.record_failed_creations({job.pk: "the API server said no"})

    row = DeadLetter.objects.get()
    assert (row.cause, row.origin, row.event, row.kaniko_job) == (Cause.CREATION_FAILED, QUEUE, job.event, job)
    assert row.reason == "CreateRejected: the API server said no"
    assert (row.ce_source, row.ce_id) == (event["source"], event["id"])
    assert row.content_type == "application/cloudevents+json"
    assert read(bytes(row.body)) == read(sent)
    assert read(bytes(row.body)).time == datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.django_db
def test_an_event_without_optional_attributes_is_written_without_them() -> None:
    event = {name: value for name, value in sample_event(1).items() if name not in ("time", "subject")}
    intake.record([Message(json.dumps(event).encode(), "application/cloudevents+json")], origin=QUEUE)

    written = letters.structured(JobStartEvent.objects.get())

    assert written == event


@pytest.mark.django_db
def test_each_failed_creation_is_a_letter_of_its_own() -> None:
    jobs = [a_kaniko_job(state="failed"), a_kaniko_job(state="failed")]

    dead_letters.record_failed_creations({job.pk: "no" for job in jobs})

    assert set(DeadLetter.objects.values_list("kaniko_job", flat=True)) == {job.pk for job in jobs}
    assert tallies.totals(prefix="dead-letter/")["dead-letter/creation-failed"].count == 2


@pytest.mark.django_db
def test_no_failed_creations_are_no_letters() -> None:
    dead_letters.record_failed_creations({})

    assert not DeadLetter.objects.exists()
    assert tallies.totals(prefix="") == {}


class LongInteger(int):
    """As pika has them."""

    def __repr__(self) -> str:
        return f"{int(self)}L"


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"a": [table]}
    return table


HOSTILE: dict[str, tuple[object, object]] = {
    "NUL": ("a\x00b", "a\\x00b"),
    "lone surrogate": ("a\ud800b", "a\\ud800b"),
    "text": ("é\U0001f600\n", "é\U0001f600\n"),
    "bytes": (b"\xff\x00a", "\\xff\\x00a"),
    "bytearray": (bytearray(b"a"), "a"),
    "not a number": (float("nan"), "nan"),
    "infinity": (float("-inf"), "-inf"),
    "a float": (1.5, 1.5),
    "true": (True, True),
    "nothing": (None, None),
    "64 bits": (LongInteger(2**63), 2**63),
    "negative": (-(2**63), -(2**63)),
    "huge": (2**200, hex(2**200)),
    "of 10,000 digits": (10**10_000, hex(10**10_000)),
    "a decimal": (Decimal("1.50"), "1.50"),
    "no decimal number": (Decimal("NaN"), "NaN"),
    "a time": (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
    "a time without zone": (datetime(2024, 1, 1), "2024-01-01T00:00:00"),
    "a table": ({"a": {"b\x00": [b"c"]}}, {"a": {"b\\x00": ["c"]}}),
    "a table with other names": ({b"a": 1, 2: 3}, {"b'a'": 1, "2": 3}),
    "a tuple": ((1, "a"), [1, "a"]),
    "an object": (Fault("a", "b\x00"), "a: b\\x00"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "stored"), HOSTILE.values(), ids=HOSTILE)
def test_any_header_can_be_stored(value: object, stored: object) -> None:
    dead_letters.record([letter(headers={"h": value, "ce-h": value}, properties={"p": value})])

    row = DeadLetter.objects.get()
    assert row.headers == {"h": stored, "ce-h": stored}
    assert row.properties == {"p": stored}


@pytest.mark.django_db
@pytest.mark.parametrize("levels", [5_000, 100, 20])
def test_tables_within_tables_are_cut_where_nobody_reads_on(levels: int) -> None:
    dead_letters.record([letter(headers=nested(levels))])

    assert "nested deeper than 16 levels" in json.dumps(DeadLetter.objects.get().headers)


@pytest.mark.django_db
def test_tables_of_a_usual_depth_are_kept_whole() -> None:
    dead_letters.record([letter(headers=nested(7))])

    assert DeadLetter.objects.get().headers == nested(7)


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["\x00", "\ud800", "<script>\x00", "x" * 5000, "\x00" * 5000, "é" * 5000])
def test_any_text_can_be_stored(text: str) -> None:
    dead_letters.record(
        [letter(reason=text, content_type=text, ce_source=text, ce_id=text, faults=(Fault(text, text),))]
    )

    row = DeadLetter.objects.get()
    assert row.reason == printable(text)
    assert row.content_type == printable(text)[:256]
    assert row.ce_source == printable(text)[:512]
    assert row.ce_id == printable(text)[:256]
    assert row.faults == [{"path": printable(text), "problem": printable(text)}]


TABLES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.datetimes(),
    lambda values: st.lists(values) | st.dictionaries(st.text(st.characters()) | st.binary(), values),
    max_leaves=20,
)


@given(TABLES)
def test_whatever_is_made_storable_is_json_that_text_can_hold(value: Any) -> None:
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)

    assert "\x00" not in text
    assert "\\u0000" not in text.replace("\\\\", "")
    assert text.encode()


@given(st.text(st.characters()))
def test_printable_text_is_itself_when_it_could_be_stored_anyway(text: str) -> None:
    sound = "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)

    assert (printable(text) == text) == sound
    assert "\x00" not in printable(text).encode().decode()


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"CE-ID": "1"}, True),
        ({"ce-id": "1", "x-death": [X_DEATH]}, True),
        ({"ce-id": "1", "Date": "today"}, True),
        ({"ce-id": "2"}, False),
        ({"ce-id": "1", "ce-subject": "s"}, False),
        ({}, False),
    ],
)
def test_a_message_is_known_by_its_body_and_the_attributes_in_its_headers(
    headers: Mapping[str, object], same: bool
) -> None:
    assert (message_hash(letter(headers=headers)) == message_hash(letter(headers={"ce-id": "1"}))) == same


def read(body: bytes) -> StartEvent:
    return cloudevent.from_amqp(
        body=body, content_type="application/cloudevents+json", headers={}, rules=cloudevent.Rules()
    )
