"""The reader at once and the careful one agree, whatever the text; what is written of a value never changes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kanikojobs.cloudevent import strict_json
from kanikojobs.errors import InvalidEvent
from tests.bad_messages import BAD_MESSAGES, GOOD_ODDITIES
from tests.sample_events import DOCUMENT_EVENT_JSON

MAX_DEPTH = 5
# Each is harmless in one reader and not in another, or changes how many quotes there are.
PIECES = (
    *("a", "b", " ", "é", "😀", "\x7f", "/", "{", "[", ",", ":", "1.5", "\u2028", "\n", "\x00", '"', "\\"),
    *(r"\"", r"\\", r"\/", r"\n", r"\u0061", r"\u0022", r"\u005c", r"\u0000", r"\ud83d\ude00", r"\ud800", r"\udc00"),
)
STRINGS = st.lists(st.sampled_from(PIECES), max_size=3).map(lambda pieces: f'"{"".join(pieces)}"')
NUMBERS = st.sampled_from(
    [
        *(
            "0",
            "-0",
            "-0.0",
            "7",
            "1.0",
            "0.1",
            "1e3",
            "1E-7",
            "1e22",
            "1e400",
            "0e999999999999",
            "0.1234567890123456789",
        ),
        *("01", "+1", ".5", "1.", "1e", "-", "NaN", "-Infinity", str(2**63), str(2**64), str(-(10**30)), "9" * 5000),
    ]
)
WORDS = st.sampled_from(["true", "false", "null", "tru", "", "'a'", "/**/1"])


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(STRINGS, inner).map(": ".join)
    return (
        st.lists(inner, max_size=3).map(", ".join).map("[{}]".format)
        | st.lists(members, max_size=4).map(",\n".join).map("{{{}}}".format)
        | members.map("{{{},}}".format)
    )


TEXTS = st.recursive(STRINGS | NUMBERS | WORDS, containers, max_leaves=12)


def outcome(read: Any, body: bytes) -> str:
    """The value with the types of all that is in it, and the faults."""
    try:
        return repr(read(body, root="", max_depth=MAX_DEPTH))
    except InvalidEvent as refused:
        return repr(refused.faults)


@given(text=TEXTS | TEXTS.map(lambda text: f"\ufeff{text}") | TEXTS.map(lambda text: f" {text}\n\t"))
@example(text='{"a": "1", "a": "1"}')
@example(text=r'{"a": "\u0022\u0022", "b": 1}')
@example(text=r'{"a": 1, "\u0061": ""}')
@example(text=r'{"a": [{"b": "", "b": "\""}]}')
@example(text=r'{"a": 1, "a": "\u0022\u0022"}')
def test_any_text_is_read_the_same_with_care_and_without(text: str) -> None:
    body = text.encode()

    assert outcome(strict_json.read, body) == outcome(strict_json.read_carefully, body)


@given(body=st.binary(max_size=12).map(lambda junk: b'{"a": "' + junk + b'"}'))
def test_any_bytes_are_read_the_same_with_care_and_without(body: bytes) -> None:
    assert outcome(strict_json.read, body) == outcome(strict_json.read_carefully, body)


@pytest.mark.parametrize("message", [*BAD_MESSAGES, *GOOD_ODDITIES], ids=lambda message: message.id)
def test_every_message_of_the_table_is_read_the_same_with_care_and_without(message: Any) -> None:
    assert outcome(strict_json.read, message.body) == outcome(strict_json.read_carefully, message.body)


SOUND = [
    DOCUMENT_EVENT_JSON,
    json.dumps(json.loads(DOCUMENT_EVENT_JSON), separators=(",", ":")),
    r'{"a": "\"quoted\" \\ \n", "\"": [1, -0, 1.5, 1e3, 12345678901234567890123], "é😀": null}',
]


@pytest.mark.parametrize("text", SOUND)
def test_what_most_messages_are_is_read_at_once(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delattr(strict_json, "read_carefully")

    assert strict_json.read(text.encode(), root="", max_depth=MAX_DEPTH) == (json.loads(text), [])


ANY_TEXT = st.text(st.characters(codec="utf-8"))
WITHOUT_FRACTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(value=WITHOUT_FRACTIONS)
def test_the_canonical_text_is_that_of_pythons_own_writer(value: Any) -> None:
    wanted = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert strict_json.canonical(value) == wanted


# The content hash is over this text, and is kept: another text for the same value would be another content.
@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (1.0, "1.0"), (1e-7, "1e-7"), (1.5e-300, "1.5e-300"), (123456789.125, "123456789.125")],
)
def test_the_canonical_text_of_a_fraction_stays_what_it_is(number: float, text: str) -> None:
    assert strict_json.canonical([number]) == f"[{text}]"
