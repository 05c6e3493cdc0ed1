"""Reading events: every table entry, anything that Hypothesis can think of, and the SDK as the oracle."""

import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from cloudevents.core.bindings import amqp, http, rabbitmq
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given
from hypothesis import strategies as st

from kanikojobs import cloudevent
from kanikojobs.cloudevent import Rules, StartEvent
from kanikojobs.errors import InvalidEvent, NotOurs
from tests.bad_messages import (
    BAD_MESSAGES,
    CLOUDEVENT,
    DATA,
    GOOD_ODDITIES,
    JSON,
    MISSING,
    OTHERS,
    BadMessage,
    GoodMessage,
    binary_headers,
    changed,
    parameters,
    unknown,
)
from tests.sample_events import DOCUMENT_EVENT_JSON, EVENT_SOURCE, EVENT_TYPE, document_event, sample_event

RULES = Rules()
DOCUMENT = DOCUMENT_EVENT_JSON.encode()


def from_amqp(body: bytes, content_type: str | None = CLOUDEVENT, headers: Any = None) -> StartEvent:
    return cloudevent.from_amqp(body=body, content_type=content_type, headers=headers, rules=RULES)


def from_http(body: bytes, content_type: str | None = CLOUDEVENT, headers: Any = None) -> StartEvent:
    return cloudevent.from_http(body=body, content_type=content_type, headers=headers or {}, rules=RULES)


def faults_of(body: bytes, content_type: str | None = CLOUDEVENT, headers: Any = None) -> dict[str, str]:
    with pytest.raises(InvalidEvent) as refused:
        from_amqp(body, content_type, headers)
    return {fault.path: fault.problem for fault in refused.value.faults}


# --- The table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", BAD_MESSAGES, ids=lambda message: message.id)
def test_a_bad_message_is_refused_with_a_sentence_to_act_on(message: BadMessage) -> None:
    with pytest.raises(InvalidEvent) as refused:
        from_amqp(message.body, message.content_type, message.headers)

    assert message.expect in str(refused.value)


@pytest.mark.parametrize("message", BAD_MESSAGES, ids=lambda message: message.id)
def test_the_faults_of_a_bad_message_are_few_short_and_fit_to_be_shown(message: BadMessage) -> None:
    with pytest.raises(InvalidEvent) as refused:
        from_amqp(message.body, message.content_type, message.headers)

    faults = [str(fault) for fault in refused.value.faults]
    assert 1 <= len(faults) <= 52
    assert all(len(fault) < 400 and fault.isprintable() for fault in faults)
    assert all(is_storable_text(text) for text in (refused.value.source, refused.value.event_id))


@pytest.mark.parametrize("message", GOOD_ODDITIES, ids=lambda message: message.id)
def test_an_odd_message_that_follows_the_rules_is_an_event(message: GoodMessage) -> None:
    event = from_amqp(message.body, message.content_type, message.headers)

    assert {name: getattr(event, name) for name in message.expect} == message.expect
    assert_storable(event)


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: message.id)
def test_an_event_of_another_type_or_source_is_not_ours(message: GoodMessage) -> None:
    with pytest.raises(NotOurs) as refused:
        from_amqp(message.body, message.content_type, message.headers)

    assert (refused.value.type, refused.value.source) != (EVENT_TYPE, EVENT_SOURCE)


def test_the_samples_of_the_document_become_the_fields_of_the_event() -> None:
    event = from_amqp(DOCUMENT)

    assert event.time == datetime(2024, 1, 1, tzinfo=UTC)
    assert event.data == document_event()["data"]
    assert event._asdict() | {"data_json": "", "content_hash": b"", "data": {}, "time": None} == {
        "event_id": "uuid",
        "source": "network.notifi.kaniko-jobs",
        "type": "network.notifi.lambda.job.start",
        "subject": "parser-id",
        "time": None,
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "dataschema": "",
        "extensions": {},
        "data": {},
        "data_json": "",
        "third_party_id": "0307ea43639b4616b044d190310a26bd",
        "parser_id": "0197ad6c10b973b2b854a0e652155b7e",
        "correlation_id": "uuid",
        "job_name": "kaniko-job-0307ea43639b4616b044d190310a26bd-0197ad6c10b973b2b854a0e652155b7e",
        "priority": 1,
        "build_type": "container",
        "runtime": "nodejs18",
        "source_url": "https://github.com/notifi/parsers/0197ad6c10b973b2b854a0e652155b7e",
        "build_timeout": 1800,
        "environment": {"NODE_ENV": "production", "BUILD_MODE": "optimized"},
        "content_hash": b"",
        "traceparent": "",
        "trace_id": "",
    }


def test_a_content_type_that_amqp_could_not_carry_is_refused() -> None:
    faults = faults_of(DOCUMENT, JSON + ";" * 1_000_000)

    assert faults["content-type"].startswith('the string "application/json;;')
    assert len(faults["content-type"]) < 400


def test_headers_as_pika_gives_them_are_read() -> None:
    class Long(int):
        """As pika's 64-bit integers, which write themselves 5L."""

        def __repr__(self) -> str:
            return f"{int(self)}L"

    headers = binary_headers("cloudEvents_", time=Long(1704067200000), extra=Long(5)) | {b"\xff": 1, "x-death": []}

    event = from_amqp(DATA, JSON, headers)

    assert event.time == datetime(2024, 1, 1, tzinfo=UTC)
    assert event.content_hash == from_amqp(changed(extra=5)).content_hash
    assert type(event.extensions["extra"]) is int


def test_every_fault_is_told_at_once_and_each_place_once() -> None:
    body = changed(
        id=MISSING,
        specversion="2.0",
        time="now",
        data__third_party_id="a b",
        data__priority=11,
        data__parameters__environment={"9X": 1, "OK": "1"},
    )

    assert set(faults_of(body)) == {
        "id",
        "specversion",
        "time",
        "data.third_party_id",
        "data.priority",
        'data.parameters.environment["9X"]',
    }


def test_a_refused_event_keeps_its_identity_as_far_as_it_can_be_read() -> None:
    with pytest.raises(InvalidEvent) as readable:
        from_amqp(changed(id="event-7", data=None))
    with pytest.raises(InvalidEvent) as unreadable:
        from_amqp(changed(id="event\u0000", data=None))

    assert (readable.value.event_id, readable.value.source) == ("event-7", EVENT_SOURCE)
    assert (unreadable.value.event_id, unreadable.value.source) == ("", EVENT_SOURCE)


def test_the_rules_of_the_installation_decide() -> None:
    rules = Rules(
        event_type="t",
        event_source="s",
        max_body_bytes=900,
        max_build_timeout=60,
        default_build_timeout=90,
        max_depth=4,
    )

    def read(body: bytes) -> StartEvent:
        return cloudevent.from_amqp(body=body, content_type=None, headers=None, rules=rules)

    assert read(changed(type="t", source="s")).build_timeout == 60
    assert read(changed(type="t", source="s", data__parameters__build_timeout=MISSING)).build_timeout == 60
    with pytest.raises(NotOurs):
        read(DOCUMENT)
    with pytest.raises(InvalidEvent, match="at most 900 are read"):
        read(changed(type="t", source="s", data__note="x" * 300))
    with pytest.raises(InvalidEvent, match=r"data\.parameters\.environment\.A: nested deeper than 4 levels"):
        read(changed(type="t", source="s", data__parameters__environment={"A": []}))


@pytest.mark.parametrize("content_mode", ["structured", "binary"])
def test_data_may_be_as_deep_in_one_content_mode_as_in_the_other(content_mode: str) -> None:
    def read(levels: int) -> StartEvent:
        data: dict[str, Any] = document_event()["data"]
        data["note"] = json.loads("[" * (levels - 1) + "]" * (levels - 1))
        if content_mode == "binary":
            return from_amqp(json.dumps(data).encode(), JSON, binary_headers())
        return from_amqp(changed(data=data))

    deepest = RULES.max_depth - 1

    assert read(deepest).event_id == "uuid"
    with pytest.raises(InvalidEvent, match="nested deeper than"):
        read(deepest + 1)


# --- The content hash ------------------------------------------------------------------------------------


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(item, chance)) for name, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    return value


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(binary_headers(prefix, **changes), id=f"{prefix} {', '.join(changes) or 'unchanged'}")
        for prefix in ("ce-", "Ce-", "cloudEvents:", "cloudEvents_")
        for changes in (
            {},
            {"time": MISSING},
            {"traceparent": "x", "tracestate": "y", "knativearrivaltime": "z"},
        )
    ],
)
def test_the_hash_is_the_same_in_binary_mode(headers: dict[str, object]) -> None:
    structured = from_amqp(DOCUMENT)

    binary = from_amqp(DATA, JSON, headers)

    assert binary.content_hash == structured.content_hash


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_does_not_depend_on_order_or_spacing(seed: int) -> None:
    chance = random.Random(seed)

    body = json.dumps(shuffled(document_event(), chance), indent=seed).encode()

    assert from_amqp(body).content_hash == from_amqp(DOCUMENT).content_hash


@pytest.mark.parametrize(
    ("body", "same"),
    [
        pytest.param(changed(time="2025-01-01T00:00:00Z"), True, id="sent again with another time"),
        pytest.param(changed(knativehistory="a;b", recordedtime="2024-01-01T00:00:00Z"), True, id="added in transit"),
        pytest.param(changed(datacontenttype="application/json; charset=utf-8"), True, id="charset named"),
        pytest.param(changed(extra=None), True, id="null extension"),
        pytest.param(changed(subject="other"), False, id="other subject"),
        pytest.param(changed(subject=MISSING), False, id="no subject"),
        pytest.param(changed(extra=""), False, id="extension"),
        pytest.param(changed(data__priority=2), False, id="other priority"),
        pytest.param(changed(data__note=None), False, id="unknown field"),
        pytest.param(parameters(build_timeout=1801), False, id="other timeout"),
        pytest.param(parameters(build_timeout=10**9), False, id="timeout that is clamped"),
    ],
)
def test_the_hash_tells_what_was_asked_for_from_how_it_came(body: bytes, same: bool) -> None:
    assert (from_amqp(body).content_hash == from_amqp(DOCUMENT).content_hash) is same


def test_the_hash_counts_an_extension_as_the_string_that_headers_have() -> None:
    typed = from_amqp(changed(a=5, b=True, c=False))

    written = from_amqp(DATA, JSON, binary_headers(a="5", b="true", c="false"))
    native = from_amqp(DATA, JSON, binary_headers(a=5, b=True, c=False))

    assert typed.content_hash == written.content_hash == native.content_hash


# --- Over HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        pytest.param("parser-id", "parser-id", id="as it is"),
        pytest.param("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € \U0001f600", id="the specification's example"),
        pytest.param("%e2%82%ac", "€", id="lower case"),
        pytest.param("%70arser", "parser", id="needlessly encoded"),
        pytest.param("%2520", "%20", id="one round only"),
        pytest.param("100%", "100%", id="lone per cent sign"),
        pytest.param('"a b"', "a b", id="quoted"),
        pytest.param(r'"a\"b\\c"', r"a\"b\c".replace("\\", "", 1), id="quoted pairs"),
        pytest.param('"', '"', id="lone quote"),
    ],
)
def test_a_header_over_http_is_decoded_as_the_binding_says(value: str, subject: str) -> None:
    event = from_http(DATA, JSON, {"Ce-Subject": value} | binary_headers("Ce-", subject=MISSING))

    assert event.subject == subject


@pytest.mark.parametrize(
    ("value", "expect"),
    [
        pytest.param("%C0%A0", "percent-encoded bytes that are not UTF-8", id="overlong"),
        pytest.param("%ED%A0%80", "percent-encoded bytes that are not UTF-8", id="surrogate"),
        pytest.param("%FF", "percent-encoded bytes that are not UTF-8", id="not UTF-8"),
        pytest.param("Ã©", "has characters outside of ASCII; percent-encode them", id="raw"),
        pytest.param("a%00b", "has U+0000 at character 2", id="NUL"),
        pytest.param("a%0D%0Ab", "has U+000D at character 2", id="line break"),
        pytest.param("", "empty; must have at least one character", id="empty"),
    ],
)
def test_a_wrong_header_over_http_is_named(value: str, expect: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        from_http(DATA, JSON, {"Ce-Subject": value} | binary_headers("Ce-", subject=MISSING))

    assert str(refused.value).startswith(f"ce-subject: {expect}")


def test_a_batch_is_told_apart_from_an_event() -> None:
    assert cloudevent.is_batch("application/cloudevents-batch+json; charset=utf-8")
    assert not cloudevent.is_batch(CLOUDEVENT)
    assert not cloudevent.is_batch(None)


def test_one_bad_event_does_not_spoil_its_batch() -> None:
    bodies = [
        changed(id="1"),
        unknown("NaN"),
        changed(type="other"),
        b"42",
        changed(id="5", data__note="]},{["),
    ]
    body = b" [\n" + b" ,\t".join(bodies) + b"\r\n] "

    outcomes = cloudevent.batch_from_http(body=body, rules=RULES)

    assert [type(outcome) for outcome in outcomes] == [
        StartEvent,
        InvalidEvent,
        NotOurs,
        InvalidEvent,
        StartEvent,
    ]
    assert [outcome.event_id for outcome in outcomes if isinstance(outcome, StartEvent)] == ["1", "5"]
    assert cloudevent.split_batch(body=body, rules=RULES) == [item.strip() for item in bodies]


def test_an_event_of_a_batch_is_held_to_the_size_of_an_event() -> None:
    large = unknown('"' + "x" * 1024 * 1024 + '"')

    small, refused = cloudevent.batch_from_http(body=b"[" + changed(id="1") + b"," + large + b"]", rules=RULES)

    assert isinstance(small, StartEvent)
    assert isinstance(refused, InvalidEvent)
    assert "at most 1048576 are read" in str(refused)


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"\xef\xbb\xbf[]"])
def test_an_empty_batch_is_a_batch(body: bytes) -> None:
    assert cloudevent.batch_from_http(body=body, rules=RULES) == []


@pytest.mark.parametrize(
    ("body", "expect"),
    [
        pytest.param(DOCUMENT, "body: not an array", id="one event"),
        pytest.param(b"", "body: empty", id="empty"),
        pytest.param(b"[{},", "body: not JSON", id="cut off"),
        pytest.param(b"[] []", "body: not JSON: Extra data", id="two"),
        pytest.param(b"[" * 100_000, "body: nested too deeply", id="bomb"),
        pytest.param(b"\xff", "body: not UTF-8", id="not UTF-8"),
        pytest.param(b"[" + b",".join([b"{}"] * 1001) + b"]", "body: more than 1000 events", id="too many"),
        pytest.param(b"[" + b" " * 16 * 1024 * 1024 + b"]", "bytes; at most 16777216 are read", id="too large"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(body: bytes, expect: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        cloudevent.batch_from_http(body=body, rules=RULES)

    assert expect in str(refused.value)


# --- The SDK as the oracle -------------------------------------------------------------------------------

ATTRIBUTE_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=100)
SDK_ATTRIBUTES = st.fixed_dictionaries(
    {"id": ATTRIBUTE_TEXT, "type": st.just(EVENT_TYPE), "source": st.just(EVENT_SOURCE)},
    optional={
        "subject": ATTRIBUTE_TEXT,
        "dataschema": st.just("https://notifi.network/schemas/job-start#1"),
        "datacontenttype": st.sampled_from(["application/json", "application/json; charset=utf-8", "text/json"]),
        "extension1": ATTRIBUTE_TEXT,
        "time": st.datetimes(
            min_value=datetime(1000, 1, 1),
            max_value=datetime(9000, 1, 1),
            timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
        ),
    },
)
NOTES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner, max_size=3)
    ),
    max_leaves=8,
)


def in_decimals(data: Any) -> Any:
    """As PostgreSQL has numbers: 1e+22 and 10000000000000000000000 are one there, and two to Python."""
    return json.loads(json.dumps(data), parse_float=Decimal, parse_int=Decimal)


@given(attributes=SDK_ATTRIBUTES, note=NOTES)
def test_what_the_sdk_writes_is_read_as_it_was_meant(attributes: dict[str, Any], note: Any) -> None:
    written = CloudEvent(dict(attributes), document_event()["data"] | {"note": note})
    plain = rabbitmq.to_structured_event(written)
    headers = rabbitmq.to_binary_event(written)
    older = amqp.to_binary_event(written)
    request = http.to_binary_event(written)
    structured_request = http.to_structured_event(written)

    events = [
        from_amqp(plain.body, plain.content_type, plain.headers),
        from_amqp(headers.body, headers.content_type, headers.headers),
        from_amqp(older.application_data, older.properties.get("content-type"), older.application_properties),
        from_http(request.body, request.headers.get("content-type"), request.headers),
        from_http(structured_request.body, structured_request.headers["content-type"], {}),
    ]

    for event in events:
        assert_storable(event)
        assert event.event_id == attributes["id"]
        assert event.subject == attributes.get("subject", "")
        assert event.dataschema == attributes.get("dataschema", "")
        assert event.extensions.get("extension1") == attributes.get("extension1")
        assert in_decimals(event.data) == in_decimals(written.get_data())
        # AMQP 1.0 has milliseconds only; the SDK gives an event without a time the present one.
        assert event.time is not None
        assert abs(event.time - written.get_attributes()["time"]) < timedelta(milliseconds=1)
    assert len({event.content_hash for event in events}) == 1


def test_the_sdk_reads_what_the_samples_are() -> None:
    message = rabbitmq.RabbitMQMessage(headers={}, content_type=CLOUDEVENT, body=json.dumps(sample_event(3)).encode())

    theirs = rabbitmq.from_rabbitmq_event(message)
    ours = from_amqp(message.body)

    assert (ours.event_id, ours.time, ours.data) == (theirs.get_id(), theirs.get_time(), theirs.get_data())


def test_sample_events_differ_and_the_same_seed_gives_the_same() -> None:
    events = [from_amqp(json.dumps(sample_event(n)).encode()) for n in range(200)]

    assert len({event.event_id for event in events}) == 200
    assert {event.priority for event in events} == set(range(1, 11))
    assert sample_event(7, seed="a") == sample_event(7, seed="a")
    assert sample_event(7, seed="a")["id"] != sample_event(7, seed="b")["id"]
    assert from_amqp(json.dumps(sample_event(1, priority=9, third_party="acme")).encode()).third_party_id == "acme"


# --- Anything at all -------------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters())  # surrogates and NUL included
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)
ANY_HEADER = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.just(UTC))
    | st.lists(st.integers())
)
NAMES = (
    "id",
    "source",
    "type",
    "specversion",
    "subject",
    "time",
    "dataschema",
    "datacontenttype",
    "traceparent",
)
HEADER_NAMES = ANY_TEXT | st.builds(
    str.__add__,
    st.sampled_from(["ce-", "CE-", "cloudEvents:", "cloudEvents_"]),
    st.sampled_from(NAMES) | ANY_TEXT,
)
CONTENT_TYPES = st.none() | ANY_TEXT | st.sampled_from([CLOUDEVENT, JSON, "application/cloudevents-batch+json"])
PLACES = [
    *((name,) for name in (*NAMES, "data", "extension1", "data_base64")),
    *(("data", name) for name in (*document_event()["data"], "note")),
    *(("data", "parameters", name) for name in (*document_event()["data"]["parameters"], "note")),
    ("data", "parameters", "environment", "NAME"),
]


def outcome_of(**message: Any) -> StartEvent | InvalidEvent | NotOurs:
    try:
        read = cloudevent.from_http if message.pop("over_http", False) else cloudevent.from_amqp
        return read(**message, rules=RULES)
    except (InvalidEvent, NotOurs) as outcome:
        return outcome


def assert_sound(outcome: StartEvent | InvalidEvent | NotOurs) -> None:
    if isinstance(outcome, StartEvent):
        assert_storable(outcome)
    elif isinstance(outcome, InvalidEvent):
        assert outcome.faults
        assert str(outcome).isprintable()
        assert is_storable_text(outcome.source + outcome.event_id)
    else:
        assert is_storable_text(outcome.type + outcome.source)


def is_storable_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def values_in(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from values_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from values_in(item)


def assert_storable(event: StartEvent) -> None:
    """What PostgreSQL's text, jsonb and timestamptz take, and nothing changes on the way through JSON."""
    values = [*values_in(event.data), *values_in(event.extensions), *values_in(event.environment)]
    assert all(is_storable_text(value) for value in (*values, *event) if isinstance(value, str))
    assert all(math.isfinite(value) for value in values if isinstance(value, float))
    assert json.loads(event.data_json) == event.data
    assert len(event.content_hash) == 32
    assert 1 <= event.priority <= 10
    assert 1 <= event.build_timeout <= RULES.max_build_timeout
    assert event.time is None or event.time.utcoffset() == timedelta(0)
    assert all((event.event_id, event.third_party_id, event.parser_id, event.correlation_id, event.job_name))


@given(body=st.binary(), content_type=CONTENT_TYPES, over_http=st.booleans())
@example(body=DOCUMENT, content_type=CLOUDEVENT, over_http=True)
def test_any_bytes_have_an_outcome(body: bytes, content_type: str | None, over_http: bool) -> None:
    assert_sound(outcome_of(body=body, content_type=content_type, headers={}, over_http=over_http))


@given(value=ANY_JSON, ascii_only=st.booleans())
def test_any_json_has_an_outcome(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    assert_sound(outcome_of(body=body, content_type=JSON, headers=None))


@given(place=st.sampled_from(PLACES), value=ANY_JSON | st.dictionaries(st.text("AZ_09"), st.text(), max_size=3))
def test_anything_in_any_place_of_an_event_has_an_outcome(place: tuple[str, ...], value: Any) -> None:
    event = document_event()
    target: Any = event
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value

    assert_sound(outcome_of(body=json.dumps(event).encode(), content_type=CLOUDEVENT, headers=None))


@given(headers=st.dictionaries(HEADER_NAMES, ANY_HEADER, max_size=4), body=st.just(DATA) | st.binary())
def test_any_headers_over_amqp_have_an_outcome(headers: dict[str, Any], body: bytes) -> None:
    assert_sound(outcome_of(body=body, content_type=JSON, headers=binary_headers() | headers))


@given(headers=st.dictionaries(HEADER_NAMES, ANY_TEXT, max_size=4), body=st.just(DATA) | st.binary())
def test_any_headers_over_http_have_an_outcome(headers: dict[str, str], body: bytes) -> None:
    assert_sound(outcome_of(body=body, content_type=JSON, headers=binary_headers() | headers, over_http=True))


@given(items=st.lists(st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_any_batch_has_an_outcome(items: list[bytes]) -> None:
    try:
        outcomes = cloudevent.batch_from_http(body=b"[" + b",".join(items) + b"]", rules=RULES)
    except InvalidEvent as refused:
        outcomes = [refused]

    for outcome in outcomes:
        assert_sound(outcome)


@given(cut=st.integers(0, len(DOCUMENT)), length=st.integers(0, 20), junk=st.binary(max_size=8))
def test_an_event_with_a_damaged_piece_has_an_outcome(cut: int, length: int, junk: bytes) -> None:
    body = DOCUMENT[:cut] + junk + DOCUMENT[cut + length :]

    assert_sound(outcome_of(body=body, content_type=CLOUDEVENT, headers=None))
