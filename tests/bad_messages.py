"""Messages that are no job start event, each with a part of the sentence that a person is told.

The table serves the reader's own tests, and those that show that a bad message harms neither its batch nor
the database. `GOOD_ODDITIES` look wrong and are right, `OTHERS` are well-formed but not ours.
"""

import base64
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.sample_events import DOCUMENT_EVENT_JSON, EVENT_SOURCE, EVENT_TYPE, document_event

CLOUDEVENT = "application/cloudevents+json"
JSON = "application/json"
MISSING = object()


@dataclass(frozen=True, slots=True)
class BadMessage:
    """`expect` is part of the fault. `headers` are AMQP's."""

    id: str
    body: bytes
    expect: str
    content_type: str | None = CLOUDEVENT
    headers: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class GoodMessage:
    """`expect` are fields of the event that it is."""

    id: str
    body: bytes
    expect: Mapping[str, object] = field(default_factory=dict)
    content_type: str | None = CLOUDEVENT
    headers: Mapping[str, object] | None = None


def changed(**changes: object) -> bytes:
    """The document's event with changes: `data__priority=11` sets `data.priority`, `MISSING` removes."""
    event = document_event()
    for path, value in changes.items():
        *parents, name = path.split("__")
        place: dict[str, Any] = event
        for parent in parents:
            place = place[parent]
        if value is MISSING:
            del place[name]
        else:
            place[name] = value
    return json.dumps(event).encode()


def parameters(**changes: object) -> bytes:
    """The document's event with changes to `data.parameters`."""
    return changed(**{f"data__parameters__{name}": value for name, value in changes.items()})


def environment(value: object) -> bytes:
    """The document's event with another `data.parameters.environment`."""
    return parameters(environment=value)


def replaced(old: str, new: str | bytes) -> bytes:
    """The document's event as text, with one piece of it replaced."""
    assert DOCUMENT_EVENT_JSON.count(old) == 1, old
    before, after = DOCUMENT_EVENT_JSON.split(old)
    return before.encode() + (new.encode() if isinstance(new, str) else new) + after.encode()


def unknown(value: str | bytes) -> bytes:
    """The document's event with `value` as the text of an unknown field, `data.note`."""
    piece = value.encode() if isinstance(value, str) else value
    return replaced('"data": {', b'"data": {"note": ' + piece + b",")


def binary_headers(prefix: str = "ce-", **changes: object) -> dict[str, object]:
    """The attributes of the document's event as headers."""
    event = document_event()
    attributes = {name: event[name] for name in event if name not in ("data", "datacontenttype")} | changes
    return {prefix + name: value for name, value in attributes.items() if value is not MISSING}


DATA = json.dumps(document_event()["data"]).encode()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MEGABYTE = 1024 * 1024

_NOT_JSON = [
    BadMessage("empty", b"", "body: empty; send the event as JSON"),
    BadMessage("only spaces", b" \r\n\t ", "body: empty"),
    BadMessage("only a byte order mark", b"\xef\xbb\xbf", "body: empty"),
    BadMessage("a word", b"hello", "body: not JSON: Expecting value (line 1, column 1)"),
    BadMessage("cut off", DOCUMENT_EVENT_JSON[:-30].encode(), "body: not JSON"),
    BadMessage("two events in one", DOCUMENT_EVENT_JSON.encode() * 2, "body: not JSON: Extra data"),
    BadMessage("single quotes", b"{'id': 'x'}", "body: not JSON: Expecting property name enclosed in double"),
    BadMessage("comma at the end", b'{"id": "x",}', "body: not JSON"),
    BadMessage("a comment", b'{"id": "x" /* mine */}', "body: not JSON"),
    BadMessage("latin-1", replaced("optimized", b"optimi\xe9"), "body: not UTF-8: byte 0xe9 at offset"),
    BadMessage("utf-16", DOCUMENT_EVENT_JSON.encode("utf-16"), "body: not UTF-8: byte 0xff at offset 0"),
    BadMessage("utf-16 without mark", DOCUMENT_EVENT_JSON.encode("utf-16-le"), "body: not JSON"),
    BadMessage("overlong UTF-8", unknown(b'"\xc0\x80"'), "body: not UTF-8: byte 0xc0"),
    BadMessage("surrogate in UTF-8", unknown(b'"\xed\xa0\x80"'), "body: not UTF-8: byte 0xed"),
    BadMessage("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "body: not UTF-8"),
    BadMessage("raw NUL", unknown(b'"a\x00b"'), "body: not JSON: Invalid control character"),
    BadMessage("raw line feed", unknown(b'"a\nb"'), "body: not JSON: Invalid control character"),
    BadMessage("unknown escape", unknown(r'"\x41"'), "body: not JSON: Invalid \\escape"),
    BadMessage("an array", b"[" + DOCUMENT_EVENT_JSON.encode() + b"]", "body: an array; must be one CloudEvent"),
    BadMessage("a string", b'"event"', 'body: the string "event"; must be one CloudEvent'),
    BadMessage("a number", b"42", "body: the number 42; must be one CloudEvent"),
    BadMessage("null", b"null", "body: null; must be one CloudEvent"),
]

_BOMBS = [
    BadMessage("10 MB", unknown(b'"' + b"x" * 10 * MEGABYTE + b'"'), "bytes; at most 1048576 are read"),
    BadMessage("deep arrays", unknown("[" * 100 + "]" * 100), "nested deeper than 32 levels; flatten it"),
    BadMessage("deep objects", unknown('{"a":' * 40 + "1" + "}" * 40), "nested deeper than 32 levels"),
    BadMessage("100,000 arrays", unknown("[" * 100_000), "body: nested too deeply to be read"),
    BadMessage("100,000 objects", unknown('{"a":' * 100_000), "body: nested too deeply to be read"),
    BadMessage("100,000 repeated names", unknown("{" + ",".join(['"a":1'] * 100_000) + "}"), "data.note.a: given"),
    BadMessage("as many faults as names", environment({f"{n}": n for n in range(99)}), "and more; the first 50"),
    BadMessage("5,000 digits", unknown("9" * 5000), "data.note: a number that cannot be kept exactly"),
    BadMessage(
        "5,000 digits as priority",
        replaced('"priority": 1\n', f'"priority": {"9" * 5000}\n'),
        "data.priority:",
    ),
    BadMessage("infinite exponent", unknown("1e400"), "data.note: a number that cannot be kept exactly"),
    BadMessage("vanishing exponent", unknown("1e-400"), "data.note: a number that cannot be kept exactly"),
    BadMessage("absurd exponent", unknown("0e99999999999999999999"), "data.note: a number that cannot be kept"),
    BadMessage("too many decimals", unknown("0.12345678901234567890"), "write it as a string"),
    BadMessage("NaN", unknown("NaN"), "data.note: a number that cannot be kept exactly"),
    BadMessage("Infinity", unknown("[-Infinity]"), "data.note[0]: a number that cannot be kept exactly"),
    BadMessage("escaped NUL", unknown(r'"a\u0000b"'), "data.note: has a NUL character"),
    BadMessage("escaped NUL in a name", unknown(r'{"a\u0000b": 1}'), 'data.note["a\\u0000b"]: the name has a NUL'),
    BadMessage("lone surrogate", unknown(r'"\ud800"'), "data.note: has a lone surrogate (\\ud800)"),
    BadMessage("lone low surrogate", unknown(r'["ok", "\uDFFF"]'), "data.note[1]: has a lone surrogate (\\udfff)"),
    BadMessage("surrogates in wrong order", unknown(r'"\udc00\ud800"'), "data.note: has a lone surrogate"),
    BadMessage("surrogate behind a backslash", unknown(r'"\\ud83d\ude00"'), "data.note: has a lone surrogate"),
    BadMessage("id twice", replaced('"id": "uuid"', '"id": "uuid", "id": "other"'), "id: given more than once"),
    BadMessage(
        "priority twice",
        replaced('"priority": 1\n', '"priority": 1, "priority": 2\n'),
        "data.priority: given",
    ),
    BadMessage(
        "id twice by an escape",
        replaced('"id": "uuid"', r'"id": "uuid", "\u0069d": "x"'),
        "id: given more than once",
    ),
]

_BAD_TIMES: tuple[object, ...] = (
    "",
    "yesterday",
    "2024-01-01",
    "2024-01-01T00:00:00",
    "2024-01-01 00:00:00Z",
    "20240101T000000Z",
    "2024-W01-1T00:00:00Z",
    "٢٠٢٤-01-01T00:00:00Z",
    "2024-01-01T00:00:00Z\n",
    "2024-13-01T00:00:00Z",
    "2024-02-30T00:00:00Z",
    "2024-01-01T25:00:00Z",
    "2024-01-01T00:00:61Z",
    "2024-01-01T00:00:00+24:00",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-01-02T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59-23:59",
    1704067200,
    1.5,
    True,
    [],
)

_ATTRIBUTES = [
    BadMessage("nothing in it", b"{}", "body: no CloudEvent, it has none of id"),
    BadMessage("no id", changed(id=MISSING), 'id: missing; every CloudEvent has "id"'),
    BadMessage("null id", changed(id=None), "id: missing"),
    BadMessage("empty id", changed(id=""), "id: empty"),
    BadMessage("number as id", changed(id=7), "id: the number 7; must be a string"),
    BadMessage("long id", changed(id="x" * 257), "id: 257 characters long; at most 256"),
    BadMessage("line feed in id", changed(id="a\nb"), "id: has U+000A at character 2"),
    BadMessage("NUL in id", changed(id="a\0b"), "id: has a NUL character"),
    BadMessage("noncharacter in id", changed(id="a\uffff"), "id: has U+FFFF at character 2"),
    BadMessage("reserved in id", changed(id="\ufdd0"), "id: has U+FDD0 at character 1"),
    BadMessage("no source", changed(source=MISSING), "source: missing"),
    BadMessage("array as source", changed(source=[EVENT_SOURCE]), "source: an array; must be a string"),
    BadMessage("no type", changed(type=MISSING), "type: missing"),
    BadMessage("NUL in type", changed(type=EVENT_TYPE + "\0"), "type: has a NUL character"),
    BadMessage("long type", changed(type="t" * 300), "type: 300 characters long; at most 256"),
    BadMessage("no specversion", changed(specversion=MISSING), 'specversion: missing; must be the string "1.0"'),
    BadMessage("version 0.3", changed(specversion="0.3"), 'specversion: the string "0.3"; must be the string "1.0"'),
    BadMessage("number as specversion", changed(specversion=1.0), "specversion: the number 1.0; must be the string"),
    BadMessage("empty subject", changed(subject=""), "subject: empty"),
    BadMessage("object as subject", changed(subject={}), "subject: an object; must be a string"),
    BadMessage("long subject", changed(subject="s" * 513), "subject: 513 characters long"),
    BadMessage("relative dataschema", changed(dataschema="schemas/1"), "dataschema: the string"),
    BadMessage("XML data", changed(datacontenttype="application/xml"), "datacontenttype: the string"),
    BadMessage("data in latin-1", changed(datacontenttype="application/json; charset=latin1"), "JSON is always UTF-8"),
    BadMessage("number as datacontenttype", changed(datacontenttype=1), "datacontenttype: the number 1;"),
    BadMessage("camel case extension", changed(correlationId="x"), "correlationId: not the name of a CloudEvents"),
    BadMessage("hyphen in extension", changed(**{"my-ext": "x"}), '["my-ext"]: not the name of a CloudEvents'),
    BadMessage("empty extension name", changed(**{"": "x"}), '[""]: not the name of a CloudEvents attribute'),
    BadMessage("object as extension", changed(extra={"a": 1}), "extra: an object; an extension is"),
    BadMessage("fraction as extension", changed(extra=1.5), "extra: the number 1.5; an extension is"),
    BadMessage("large extension", changed(extra=2**31), "extra: the number 2147483648; an extension is"),
    BadMessage("control in extension", changed(extra="\x1b[2J"), "extra: has U+001B"),
    BadMessage("65 extensions", changed(**{f"e{n}": "" for n in range(65)}), "65 extension attributes"),
    *(BadMessage(f"time {value!r}", changed(time=value), "time: ") for value in _BAD_TIMES),
]

_BAD_PRIORITIES: tuple[object, ...] = (0, 11, -1, 1.0, 1.5, "1", True, False, [], {}, 10**30)

_DATA = [
    BadMessage("no data", changed(data=MISSING), "data: missing or null; must be an object"),
    BadMessage("null data", changed(data=None), "data: missing or null"),
    BadMessage("array as data", changed(data=[]), "data: an array; must be an object"),
    BadMessage("data in a string", changed(data=DATA.decode()), "not JSON wrapped in a string"),
    BadMessage("data twice", changed(data_base64="e30="), "data_base64: given beside data"),
    BadMessage("not Base64", changed(data=MISSING, data_base64="{}"), "data_base64: the string"),
    BadMessage("number as Base64", changed(data=MISSING, data_base64=1), "data_base64: the number 1; must be JSON in"),
    BadMessage("Base64 of no JSON", changed(data=MISSING, data_base64="/w=="), "data_base64: not UTF-8"),
    BadMessage("Base64 of nothing", changed(data=MISSING, data_base64=""), "data_base64: empty"),
    BadMessage("Base64 of an array", changed(data=MISSING, data_base64="W10="), "data: an array"),
    BadMessage(
        "Base64 of a NUL",
        changed(data=MISSING, data_base64=base64.b64encode(rb'{"a": "\u0000"}').decode()),
        "data.a: has a NUL character",
    ),
    BadMessage("no third party", changed(data__third_party_id=MISSING), "data.third_party_id: missing"),
    BadMessage("number as third party", changed(data__third_party_id=307), "data.third_party_id: the number 307"),
    BadMessage("empty third party", changed(data__third_party_id=""), 'data.third_party_id: the string ""'),
    BadMessage("spaces in third party", changed(data__third_party_id="a b"), "data.third_party_id: the string"),
    BadMessage("third party is a path", changed(data__third_party_id="../etc"), "data.third_party_id: the string"),
    BadMessage("line feed ends third party", changed(data__third_party_id="a\n"), 'the string "a\\n"; must be'),
    BadMessage("long third party", changed(data__third_party_id="a" * 129), "(129 characters); must be a string of 1"),
    BadMessage("delete in third party", changed(data__third_party_id="\x7f"), 'the string "\\u007f"; must'),
    BadMessage("markup as third party", changed(data__third_party_id="<script>"), "data.third_party_id: the string"),
    BadMessage("no parser", changed(data__parser_id=MISSING), "data.parser_id: missing"),
    BadMessage("accents in parser", changed(data__parser_id="é"), 'data.parser_id: the string "\\u00e9"'),
    BadMessage("hyphen starts parser", changed(data__parser_id="-rf"), "starting with a letter or digit"),
    BadMessage("object as correlation", changed(data__correlation_id={}), "data.correlation_id: an object"),
    BadMessage("empty correlation", changed(data__correlation_id=""), "data.correlation_id: the string"),
    BadMessage("number as job name", changed(data__job_name=1), "data.job_name: the number 1; must be a string"),
    BadMessage("empty job name", changed(data__job_name=""), "data.job_name: empty"),
    BadMessage("escape in job name", changed(data__job_name="\x1b]0;x"), "data.job_name: has U+001B at character 1"),
    BadMessage("long job name", changed(data__job_name="j" * 257), "data.job_name: 257 characters long"),
    *(BadMessage(f"priority {value!r}", changed(data__priority=value), "data.priority: ") for value in _BAD_PRIORITIES),
    BadMessage("inner priority 0", parameters(priority=0), "data.parameters.priority: the number 0; must be a whole"),
    BadMessage("no parameters", changed(data__parameters=MISSING), "data.parameters: missing or null"),
    BadMessage("array as parameters", changed(data__parameters=[]), "data.parameters: an array"),
    BadMessage("no source URL", parameters(source_url=MISSING), "data.parameters.source_url: missing"),
    BadMessage("empty source URL", parameters(source_url=""), "data.parameters.source_url: empty"),
    BadMessage("object as source URL", parameters(source_url={}), "data.parameters.source_url: an object"),
    BadMessage("long source URL", parameters(source_url="h" * 2049), "2049 characters long; at most 2048"),
    BadMessage("line feed in source URL", parameters(source_url="https://a/\n--x"), "source_url: has U+000A"),
    BadMessage("hidden in source URL", parameters(source_url="https://a/\u202eb"), "characters that cannot be seen"),
    BadMessage("spaces in build type", parameters(build_type="a b"), "data.parameters.build_type: the string"),
    BadMessage("long runtime", parameters(runtime="r" * 64), "data.parameters.runtime: the string"),
    BadMessage("number as runtime", parameters(runtime=18), "data.parameters.runtime: the number 18;"),
    *(
        BadMessage(f"timeout {value!r}", parameters(build_timeout=value), "data.parameters.build_timeout: ")
        for value in (0, -1800, 1800.0, "1800", "30m", True)
    ),
    BadMessage("array as environment", environment([]), "data.parameters.environment: an array; must be an object"),
    BadMessage("digit starts name", environment({"9X": "1"}), 'environment["9X"]: not an environment name'),
    BadMessage("no name", environment({"": "1"}), 'environment[""]: not an environment name'),
    BadMessage("equals in name", environment({"A=B": "1"}), 'environment["A=B"]: not an environment name'),
    BadMessage("long name", environment({"A" * 129: "1"}), "(129 characters)]: not an environment name"),
    BadMessage("number as value", environment({"PORT": 80}), "environment.PORT: the number 80; write it as a string"),
    BadMessage("boolean as value", environment({"CI": True}), "environment.CI: true; write it as a string"),
    BadMessage("null as value", environment({"A": None}), "environment.A: null; write it as a string"),
    BadMessage("long value", environment({"A": "x" * 16385}), "environment.A: 16385 characters long"),
    BadMessage("101 variables", environment({f"A{n}": "" for n in range(101)}), "101 variables; at most 100"),
    BadMessage("large environment", environment({f"A{n}": "x" * 16000 for n in range(9)}), "characters in all"),
]

_BINDINGS = [
    BadMessage("form", b"a=b", "content-type: the string", "application/x-www-form-urlencoded"),
    BadMessage("plain text", DOCUMENT_EVENT_JSON.encode(), "must be application/cloudevents+json", "text/plain"),
    BadMessage("octets", DOCUMENT_EVENT_JSON.encode(), "content-type: the string", "application/octet-stream"),
    BadMessage("not a media type", DOCUMENT_EVENT_JSON.encode(), "content-type: the string", "json"),
    BadMessage("Avro", b"\x00", "of CloudEvents' formats only JSON is read", "application/cloudevents+avro"),
    BadMessage("batch", b"[]", "send each event as a message of its own", "application/cloudevents-batch+json"),
    BadMessage("charset", DOCUMENT_EVENT_JSON.encode(), 'charset "utf-16"', CLOUDEVENT + '; charset="UTF-16"'),
    BadMessage("JSON, other charset", DOCUMENT_EVENT_JSON.encode(), 'charset "latin1"', JSON + ";charset=latin1"),
    BadMessage("data without headers", DATA, "body: no CloudEvent, it has none of id", JSON),
    BadMessage("headers without data", b"", "body: empty", JSON, binary_headers()),
    BadMessage("binary, no id", DATA, "ce-id: missing", JSON, binary_headers(id=MISSING)),
    BadMessage("binary, no source", DATA, "ce-source: missing", JSON, binary_headers(source=MISSING)),
    BadMessage(
        "binary, no type",
        DATA,
        "cloudEvents:type: missing",
        JSON,
        binary_headers("cloudEvents:", type=MISSING),
    ),
    BadMessage(
        "binary, version",
        DATA,
        "cloudEvents_specversion: ",
        JSON,
        binary_headers("cloudEvents_", specversion="2"),
    ),
    BadMessage("binary, number as id", DATA, "ce-id: the number 7; must be a string", JSON, binary_headers(id=7)),
    BadMessage("binary, bytes as id", DATA, "ce-id: bytes that are not UTF-8", JSON, binary_headers(id=b"\xff")),
    BadMessage("binary, table as id", DATA, "ce-id: an object", JSON, binary_headers(id={"a": 1})),
    BadMessage("binary, boolean as time", DATA, "ce-time: true", JSON, binary_headers(time=True)),
    BadMessage("binary, far time", DATA, "ce-time: not in the years", JSON, binary_headers(time=2**62)),
    BadMessage("binary, NUL", DATA, "ce-subject: has U+0000", JSON, binary_headers(subject="a\0")),
    BadMessage("binary, decimal", DATA, "ce-extra: a value of type Decimal", JSON, binary_headers(extra=Decimal(1))),
    BadMessage("binary, name", DATA, "ce-my-ext: not the name", JSON, binary_headers(**{"my-ext": "x"})),
    BadMessage("binary, twice", DATA, "ce-id: given twice", JSON, binary_headers() | {"CE-ID": "other"}),
    BadMessage("binary, XML", DATA, "content-type: the string", "text/xml", binary_headers()),
    BadMessage("binary, no JSON", b"<a/>", "body: not JSON", JSON, binary_headers()),
    BadMessage("binary, latin-1", b'{"a": "\xe9"}', "body: not UTF-8", JSON, binary_headers()),
    BadMessage("binary, array", b"[]", "data: an array; must be an object", JSON, binary_headers()),
    BadMessage("binary, event as data", DOCUMENT_EVENT_JSON.encode(), "data.third_party_id:", JSON, binary_headers()),
    BadMessage("binary, NaN", b'{"a": NaN}', "data.a: a number that cannot be kept", JSON, binary_headers()),
    BadMessage(
        "binary, two content types",
        DATA,
        "ce-datacontenttype: differs from the content type",
        JSON,
        binary_headers(datacontenttype="text/xml"),
    ),
]

BAD_MESSAGES = [*_NOT_JSON, *_BOMBS, *_ATTRIBUTES, *_DATA, *_BINDINGS]

_REORDERED = copy.deepcopy(document_event())
_REORDERED = {name: _REORDERED[name] for name in reversed(_REORDERED)}

GOOD_ODDITIES = [
    GoodMessage("as in the document", DOCUMENT_EVENT_JSON.encode(), {"priority": 1, "event_id": "uuid"}),
    GoodMessage("plain JSON", DOCUMENT_EVENT_JSON.encode(), {}, JSON),
    GoodMessage("no content type", DOCUMENT_EVENT_JSON.encode(), {}, None),
    GoodMessage("empty content type", DOCUMENT_EVENT_JSON.encode(), {}, ""),
    GoodMessage("content type in capitals", DOCUMENT_EVENT_JSON.encode(), {}, "Application/CloudEvents+JSON"),
    GoodMessage("no format named", DOCUMENT_EVENT_JSON.encode(), {}, "application/cloudevents"),
    GoodMessage("charset", DOCUMENT_EVENT_JSON.encode(), {}, CLOUDEVENT + '; charset="UTF-8"'),
    GoodMessage("structured beside other headers", DOCUMENT_EVENT_JSON.encode(), {}, CLOUDEVENT, {"ce-id": "other"}),
    GoodMessage("plain beside headers of the broker", DOCUMENT_EVENT_JSON.encode(), {}, JSON, {"x-death": []}),
    GoodMessage("plain beside a stray header", DOCUMENT_EVENT_JSON.encode(), {}, JSON, {"ce-foo": 1}),
    GoodMessage("byte order mark", b"\xef\xbb\xbf" + DOCUMENT_EVENT_JSON.encode()),
    GoodMessage("other order", json.dumps(_REORDERED).encode(), {"event_id": "uuid"}),
    GoodMessage("nulls for what is optional", changed(subject=None, time=None, data__job_name=None, extra=None)),
    GoodMessage("no time", changed(time=MISSING), {"time": None}),
    GoodMessage("no subject", changed(subject=MISSING), {"subject": ""}),
    GoodMessage("no datacontenttype", changed(datacontenttype=MISSING), {"datacontenttype": "application/json"}),
    GoodMessage("JSON by suffix", changed(datacontenttype="application/vnd.notifi+json; charset=utf-8")),
    GoodMessage(
        "nanoseconds",
        changed(time="2024-01-01T00:00:00.123456789Z"),
        {"time": datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)},
    ),
    GoodMessage("lower case time", changed(time="2024-01-01t00:00:00z"), {"time": datetime(2024, 1, 1, tzinfo=UTC)}),
    GoodMessage("offset", changed(time="2024-01-01T01:30:00+01:30"), {"time": datetime(2024, 1, 1, tzinfo=UTC)}),
    GoodMessage("leap second", changed(time="2016-12-31T23:59:60Z"), {"time": datetime(2017, 1, 1, tzinfo=UTC)}),
    GoodMessage("emoji in escapes", unknown(r'"\ud83d\ude00"'), {}),
    GoodMessage("text that looks like an escape", unknown(r'"\\u0000"'), {}),
    GoodMessage("number of 4,000 digits", unknown("9" * 4000), {}),
    GoodMessage("number in full", unknown("0.1"), {}),
    GoodMessage("largest float", unknown("1.7976931348623157e308"), {}),
    GoodMessage("braces in text", unknown('"' + "{[" * 500 + '"'), {}),
    GoodMessage("depth at the limit", unknown("[" * 30 + "]" * 30), {}),
    GoodMessage("1 MB", unknown(b'"' + b"x" * (MEGABYTE - 2000) + b'"'), {}),
    GoodMessage("no correlation", changed(data__correlation_id=MISSING), {"correlation_id": "uuid"}),
    GoodMessage("no job name", changed(data__job_name=MISSING), {"job_name": document_event()["data"]["job_name"]}),
    GoodMessage("job name with markup", changed(data__job_name="<b>é</b>"), {"job_name": "<b>é</b>"}),
    GoodMessage("two priorities", changed(data__priority=3, data__parameters__priority=7), {"priority": 3}),
    GoodMessage("inner priority only", changed(data__priority=MISSING, data__parameters__priority=7), {"priority": 7}),
    GoodMessage("no priority", changed(data__priority=MISSING, data__parameters__priority=MISSING), {"priority": 5}),
    GoodMessage("long timeout", parameters(build_timeout=10**50), {"build_timeout": 7200}),
    GoodMessage("no timeout", parameters(build_timeout=MISSING), {"build_timeout": 1800}),
    GoodMessage("no build type", parameters(build_type=MISSING), {"build_type": "container"}),
    GoodMessage("no runtime", parameters(runtime=MISSING), {"runtime": ""}),
    GoodMessage("no environment", parameters(environment=MISSING), {"environment": {}}),
    GoodMessage("empty value", environment({"A": "", "_b9": "x\ny"}), {"environment": {"A": "", "_b9": "x\ny"}}),
    GoodMessage("other case is another field", changed(data__Priority=99), {"priority": 1}),
    GoodMessage(
        "Base64",
        changed(data=MISSING, data_base64=base64.b64encode(DATA).decode()),
        {"data": document_event()["data"]},
    ),
    GoodMessage("extensions", changed(a="", b=True, c=-(2**31)), {"extensions": {"a": "", "b": True, "c": -(2**31)}}),
    GoodMessage("broken trace", changed(traceparent="00-zz"), {"traceparent": "", "trace_id": ""}),
    GoodMessage("trace of zeros", changed(traceparent=f"00-{'0' * 32}-{'1' * 16}-01"), {"traceparent": ""}),
    GoodMessage("trace of no version", changed(traceparent=f"ff-{TRACE}"), {"traceparent": ""}),
    GoodMessage("trace with more", changed(traceparent=f"00-{TRACE}-x"), {"traceparent": ""}),
    GoodMessage("later trace", changed(traceparent=f"cc-{TRACE}-x"), {"traceparent": f"cc-{TRACE}"}),
    GoodMessage(
        "trace",
        changed(traceparent=f"00-{TRACE}"),
        {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
    ),
    GoodMessage("binary", DATA, {"event_id": "uuid"}, JSON, binary_headers()),
    GoodMessage("binary, no content type", DATA, {}, None, binary_headers()),
    GoodMessage("binary, header in capitals", DATA, {"subject": "parser-id"}, JSON, binary_headers("CE-")),
    GoodMessage("binary, colon", DATA, {"event_id": "uuid"}, JSON, binary_headers("cloudEvents:")),
    GoodMessage("binary, underscore", DATA, {"event_id": "uuid"}, JSON, binary_headers("cloudEvents_")),
    GoodMessage("binary, per cent stays", DATA, {"subject": "a%20b"}, JSON, binary_headers(subject="a%20b")),
    GoodMessage("binary, emoji", DATA, {"subject": "\U0001f600"}, JSON, binary_headers(subject="\U0001f600")),
    GoodMessage("binary, same twice", DATA, {"event_id": "uuid"}, JSON, binary_headers() | {"CE-ID": "uuid"}),
    GoodMessage(
        "binary, AMQP time",
        DATA,
        {"time": datetime(2024, 1, 1, tzinfo=UTC)},
        JSON,
        binary_headers(time=datetime(2024, 1, 1, tzinfo=UTC)),
    ),
    GoodMessage(
        "binary, milliseconds",
        DATA,
        {"time": datetime(2024, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)},
        JSON,
        binary_headers("cloudEvents_", time=1704067200005),
    ),
]

OTHERS = [
    GoodMessage("other type", changed(type="network.notifi.lambda.job.done")),
    GoodMessage("other source", changed(source="urn:other")),
    GoodMessage("other type with faults", changed(type="other", id=MISSING, data=None)),
    GoodMessage("other type with NaN", replaced(f'"{EVENT_TYPE}",', '"other", "extra": NaN,')),
    GoodMessage("binary, other type, no JSON", b"<a/>", {}, "text/xml", binary_headers(type="other")),
]
