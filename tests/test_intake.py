"""Intake: each message of a batch has its own outcome, and each event is recorded once, whoever else records it."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from kanikojobs import claims, cloudevent, intake, naming, tallies
from kanikojobs.errors import Fault, InvalidEvent
from kanikojobs.event_rows import EVENT_COLUMNS
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob
from tests.bad_messages import BAD_MESSAGES, GOOD_ODDITIES, OTHERS, BadMessage, GoodMessage
from tests.factories import a_kaniko_job, a_message
from tests.sample_events import document_event, sample_event

pytestmark = pytest.mark.django_db

QUEUE, DIRECT, REPLAY = JobStartEvent.Origin
RECORDED, DUPLICATE, DEAD, NOT_OURS = Outcome


def record(*messages: Message) -> IntakeResult:
    return intake.record(messages, origin=QUEUE)


def with_priority(message: Message, priority: int) -> Message:
    """The same identity with other content."""
    event = json.loads(message.body)
    event["data"]["priority"] = priority
    return replace(message, body=json.dumps(event).encode())


def test_each_message_of_a_batch_has_its_own_outcome() -> None:
    event, other = a_message(), a_message(type="network.notifi.lambda.job.done")

    result = record(event, Message(b"{"), other, event, a_message())

    assert result.outcomes == (RECORDED, DEAD, NOT_OURS, DUPLICATE, RECORDED)
    assert (result.recorded, result.dead, result.not_ours, result.duplicates) == (2, 1, 1, 1)
    assert list(result.faults) == [1]
    assert "not JSON" in str(result.faults[1][0])


def test_an_empty_batch_is_nothing() -> None:
    assert record() == IntakeResult(outcomes=())


def test_an_event_becomes_a_row_with_all_that_was_sent() -> None:
    sent = document_event() | {
        "dataschema": "https://schemas.example/1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "urgent": True,
    }
    sent["data"]["note"] = {"deep": [1, 1.5, None, "é"]}
    message = a_message(sent)

    intake.record([message], origin=DIRECT)

    row = JobStartEvent.objects.get()
    read = cloudevent.from_amqp(body=message.body, content_type=message.content_type, headers={}, rules=intake.rules())
    assert {name: getattr(row, name) for name in EVENT_COLUMNS if name not in ("data", "content_hash")} == {
        name: getattr(read, name) for name in EVENT_COLUMNS if name not in ("data", "content_hash")
    }
    assert row.data == sent["data"]
    assert bytes(row.content_hash) == read.content_hash
    assert row.extensions == {"traceparent": sent["traceparent"], "urgent": True}
    assert (row.origin, row.times_seen) == (DIRECT, 1)


def test_an_event_becomes_a_kaniko_job_that_waits_to_be_claimed() -> None:
    record(a_message(document_event()))

    job = KanikoJob.objects.select_related("event").get()
    event = job.event
    assert (job.number, job.state, job.run_at) == (1, "queued", None)
    assert job.namespace == settings.KANIKOJOBS_NAMESPACE
    assert (job.priority, job.third_party_id, job.parser_id) == (1, event.third_party_id, event.parser_id)
    assert job.name == naming.kubernetes_name(
        source=event.source, event_id="uuid", number=1, job_name=document_event()["data"]["job_name"]
    )


HOSTILE_TEXTS = [
    '"',
    "\\",
    '\\"',
    "{}",
    "{a,b}",
    ",",
    "NULL",
    " padded ",
    "'; DROP TABLE kanikojobs_kanikojob; --",
    "%s %(a)s",
    "<script>alert(1)</script>",
    "\\x00",
    "\\N",
    "\U0001f600é",
    "$1",
]


def test_hostile_text_is_kept_as_it_is() -> None:
    messages = []
    for number, text in enumerate(HOSTILE_TEXTS):
        event = sample_event(number) | {"id": f"{text}{number}", "subject": text, "extra": text}
        event["data"] |= {"job_name": text, "note": {text: text + "\n\t\x7f"}}
        messages.append(a_message(event))

    result = record(*messages)

    rows = list(JobStartEvent.objects.order_by("id"))
    assert set(result.outcomes) == {RECORDED}
    assert sorted(row.job_name for row in rows) == sorted(HOSTILE_TEXTS)
    for row in rows:
        assert (row.subject, row.extensions) == (row.job_name, {"extra": row.job_name})
        assert row.event_id.startswith(row.job_name)
        assert row.data["note"] == {row.job_name: row.job_name + "\n\t\x7f"}


def test_what_is_handed_over_twice_in_one_batch_is_one_row_seen_twice() -> None:
    message = a_message()

    result = record(message, message, message)

    assert result.outcomes == (RECORDED, DUPLICATE, DUPLICATE)
    assert JobStartEvent.objects.get().times_seen == 3
    assert KanikoJob.objects.count() == 1


def test_what_is_handed_over_again_is_the_same_row_seen_once_more() -> None:
    message = a_message()
    record(message)

    result = record(a_message(), message, message)

    row = JobStartEvent.objects.get(event_id=json.loads(message.body)["id"])
    assert result.outcomes == (RECORDED, DUPLICATE, DUPLICATE)
    assert row.times_seen == 3
    assert row.last_seen_at > row.received_at
    assert row.kaniko_jobs.count() == 1


def test_a_finished_event_that_is_handed_over_again_is_not_built_again() -> None:
    message = a_message()
    record(message)
    job = KanikoJob.objects.get()
    a_kaniko_job(event=job.event, state="failed", number=2)
    job.delete()

    result = record(message)

    assert result.outcomes == (DUPLICATE,)
    assert KanikoJob.objects.get().number == 2


def test_another_time_is_no_other_content() -> None:
    event = sample_event(1)
    record(a_message(event))

    result = record(a_message(event, time="2030-01-01T00:00:00Z"))

    assert result.outcomes == (DUPLICATE,)


def test_the_same_id_from_the_other_way_in_is_a_duplicate() -> None:
    event = sample_event(1)
    record(a_message(event))
    headers: dict[str, object] = {
        f"Ce-{name}": event[name] for name in event if name not in ("data", "datacontenttype")
    }

    result = intake.record([Message(json.dumps(event["data"]).encode(), "application/json", headers)], origin=DIRECT)

    assert result.outcomes == (DUPLICATE,)
    assert JobStartEvent.objects.get().origin == QUEUE


def test_an_identity_with_other_content_is_a_dead_letter_and_the_first_content_stands() -> None:
    message = a_message(document_event())
    record(message)

    result = record(with_priority(message, 9))

    letter, event = DeadLetter.objects.get(), JobStartEvent.objects.get()
    assert result.outcomes == (DEAD,)
    assert (letter.cause, letter.event, letter.ce_id) == (DeadLetter.Cause.IDENTITY_CONFLICT, event, "uuid")
    assert "with this source and id but with other content" in letter.reason
    assert json.loads(bytes(letter.body))["data"]["priority"] == 9
    assert result.faults[0][0].path == "id"
    assert (event.priority, event.times_seen) == (1, 1)


def test_an_identity_with_other_content_in_one_batch_is_a_dead_letter() -> None:
    message = a_message(document_event())

    result = record(message, with_priority(message, 9), message, with_priority(message, 8), with_priority(message, 9))

    event = JobStartEvent.objects.get()
    assert result.outcomes == (RECORDED, DEAD, DUPLICATE, DEAD, DEAD)
    assert (event.priority, event.times_seen) == (1, 2)
    assert sorted(DeadLetter.objects.values_list("times_seen", flat=True)) == [1, 2]


@pytest.mark.parametrize("conflicts_first", [True, False])
def test_a_duplicate_beside_a_conflict_is_counted(conflicts_first: bool) -> None:
    message = a_message(document_event())
    record(message)
    batch = [with_priority(message, 9), message, message]

    result = record(*(batch if conflicts_first else batch[::-1]))

    assert Counter(result.outcomes) == {DEAD: 1, DUPLICATE: 2}
    assert JobStartEvent.objects.get().times_seen == 3


@pytest.mark.parametrize("bad", BAD_MESSAGES, ids=lambda bad: bad.id)
def test_a_bad_message_is_one_dead_letter_and_its_neighbours_are_recorded(bad: BadMessage) -> None:
    message = Message(bad.body, bad.content_type, bad.headers or {})

    result = record(a_message(), message, a_message())

    letter = DeadLetter.objects.get()
    assert result.outcomes == (RECORDED, DEAD, RECORDED)
    assert letter.cause == DeadLetter.Cause.INVALID
    assert bad.expect in letter.reason
    assert bytes(letter.body) == bad.body
    assert letter.faults == [{"path": fault.path, "problem": fault.problem} for fault in result.faults[1]]


def test_all_bad_messages_in_one_batch_are_as_many_dead_letters() -> None:
    bad = [Message(bad.body, bad.content_type, bad.headers or {}) for bad in BAD_MESSAGES]
    batch = [message for pair in ((message, a_message()) for message in bad) for message in pair]

    result = record(*batch)
    again = record(*bad)

    assert result.outcomes == (DEAD, RECORDED) * len(bad)
    assert set(again.outcomes) == {DEAD}
    assert sum(DeadLetter.objects.values_list("times_seen", flat=True)) == 2 * len(bad)
    assert DeadLetter.objects.count() == len(
        {(m.body, m.content_type, json.dumps(m.headers, default=str)) for m in bad}
    )


@pytest.mark.parametrize("good", GOOD_ODDITIES, ids=lambda good: good.id)
def test_what_looks_wrong_and_is_right_is_recorded(good: GoodMessage) -> None:
    result = record(Message(good.body, good.content_type, good.headers or {}))

    row = JobStartEvent.objects.get()
    assert result.outcomes == (RECORDED,)
    columns = good.expect.keys() - {"environment"}
    assert {name: getattr(row, name) for name in columns} == {name: good.expect[name] for name in columns}


def test_what_is_for_others_is_counted_and_not_kept() -> None:
    result = record(*(Message(other.body, other.content_type, other.headers or {}) for other in OTHERS))

    assert set(result.outcomes) == {NOT_OURS}
    assert not JobStartEvent.objects.exists()
    assert not DeadLetter.objects.exists()
    assert counts() == {"intake/queue/not-ours": len(OTHERS)}


@pytest.mark.parametrize("position", [0, 3, 6])
def test_what_postgresql_refuses_is_found_by_halving_and_its_neighbours_are_recorded(position: int) -> None:
    messages = [a_message() for _ in range(7)]
    event = json.loads(messages[position].body)
    # The Job's name that this event would get is taken, which only the database can know.
    a_kaniko_job(
        namespace=settings.KANIKOJOBS_NAMESPACE,
        name=naming.kubernetes_name(
            source=event["source"], event_id=event["id"], number=1, job_name=event["data"]["job_name"]
        ),
    )

    result = record(*messages)

    letter = DeadLetter.objects.get()
    assert [outcome for outcome in result.outcomes if outcome != RECORDED] == [DEAD]
    assert result.outcomes[position] == DEAD
    assert list(result.faults) == [position]
    assert "PostgreSQL cannot store it" in letter.reason
    assert "kanikojob_kubernetes_name_once" in letter.reason
    assert (letter.ce_source, letter.ce_id) == (event["source"], event["id"])
    assert bytes(letter.body) == messages[position].body
    assert counts() == {
        "intake/queue/recorded": 6,
        "intake/queue/dead": 1,
        "dead-letter/invalid": 1,
    }


@pytest.mark.parametrize(
    "refusal",
    [
        "RAISE EXCEPTION 'too long' USING ERRCODE = '22001'",
        "RAISE EXCEPTION 'index row too large' USING ERRCODE = '54000'",
        "RAISE EXCEPTION 'a rule of the future' USING ERRCODE = '23514'",
    ],
    ids=["data", "limit", "constraint"],
)
def test_a_refusal_of_any_kind_costs_only_the_message_that_holds_the_value(refusal: str) -> None:
    refuse_inserts(f"IF new.job_name = 'unstorable' THEN {refusal}; END IF;")
    bad = sample_event(10**6)
    bad["data"]["job_name"] = "unstorable"

    result = record(a_message(), a_message(), a_message(bad), a_message())

    assert result.outcomes == (RECORDED, RECORDED, DEAD, RECORDED)
    assert DeadLetter.objects.get().ce_id == bad["id"]


@pytest.mark.parametrize("code", ["40P01", "53100", "57P01"], ids=["deadlock", "disk full", "shutdown"])
def test_trouble_of_the_database_is_nobodys_fault_and_leaves_nothing_behind(code: str) -> None:
    refuse_inserts(f"RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}';")

    with pytest.raises(Exception, match="trouble") as raised:
        record(a_message(), Message(b"{"))

    assert type(raised.value).__name__ == "OperationalError"
    assert not DeadLetter.objects.exists()
    assert counts() == {}


def refuse_inserts(body: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN new; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON kanikojobs_jobstartevent FOR EACH ROW EXECUTE FUNCTION refuse()"
        )


def test_a_message_that_was_refused_before_it_could_be_read_is_kept() -> None:
    invalid = InvalidEvent([Fault("body", "not an array")])

    result = intake.refuse(Message(b"[", "application/cloudevents-batch+json"), invalid, origin=DIRECT)

    letter = DeadLetter.objects.get()
    assert result.outcomes == (DEAD,)
    assert (letter.reason, letter.origin, bytes(letter.body)) == ("body: not an array", DIRECT, b"[")


def test_the_tallies_are_the_outcomes() -> None:
    event = a_message(document_event())
    outcomes = [
        *record(event, Message(b"{"), event, with_priority(event, 2), a_message(type="other")).outcomes,
        *record(event, Message(b"{"), a_message(), with_priority(event, 2)).outcomes,
    ]

    assert counts() == {
        **{f"intake/queue/{outcome}": times for outcome, times in Counter(outcomes).items()},
        "dead-letter/invalid": 2,
        "dead-letter/identity-conflict": 2,
    }


def test_a_batch_costs_as_many_statements_as_a_single_event(django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(20) as single:
        record(a_message())
    with django_assert_max_num_queries(20) as batch:
        record(*(a_message() for _ in range(100)))

    assert len(batch) == len(single)


@pytest.mark.django_db(transaction=True)
def test_two_that_record_the_same_events_at_once_make_each_row_once() -> None:
    batches = [[a_message() for _ in range(50)] for _ in range(8)]
    start = Barrier(2)

    def record_all(batches: list[list[Message]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for batch in batches:
                connection.ensure_connection()
                start.wait(timeout=60)
                outcomes += record(*batch).outcomes
        finally:
            connection.close()
        return outcomes

    # The other way round is what would deadlock, if each locked its rows as they come.
    with ThreadPoolExecutor(2) as threads:
        both = threads.map(record_all, [batches, [batch[::-1] for batch in batches]])
        outcomes = [outcome for some in both for outcome in some]

    assert Counter(outcomes) == {RECORDED: 400, DUPLICATE: 400}
    assert list(JobStartEvent.objects.values_list("times_seen", flat=True)) == [2] * 400
    assert KanikoJob.objects.count() == 400
    assert counts() == {"intake/queue/recorded": 400, "intake/queue/duplicate": 400}


@pytest.mark.django_db(transaction=True)
def test_what_is_recorded_wakes_the_queue_when_it_is_committed() -> None:
    with listening() as listener:
        record(a_message())

        assert [notice.channel for notice in listener.notifies(timeout=60, stop_after=1)] == [claims.CHANNEL]


@pytest.mark.django_db(transaction=True)
def test_what_makes_no_work_wakes_nobody() -> None:
    message = a_message()
    record(message)

    with listening() as listener:
        record(message, Message(b"{"))
        claims.notify()
        record(message)

        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, 'the end')", [claims.CHANNEL])

        # Only the two that were sent on purpose: one in between, and the last.
        assert [notice.payload for notice in listener.notifies(timeout=60, stop_after=2)] == ["", "the end"]


def listening() -> psycopg.Connection[Any]:
    parts = connection.settings_dict
    listener = psycopg.connect(
        host=parts["HOST"],
        port=parts["PORT"],
        user=parts["USER"],
        password=parts["PASSWORD"],
        dbname=parts["NAME"],
        autocommit=True,
    )
    listener.execute(f"LISTEN {claims.CHANNEL}")
    return listener


def counts() -> dict[str, int]:
    return {series: total.count for series, total in tallies.totals(prefix="").items()}
