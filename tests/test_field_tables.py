"""AMQP's field tables, decoded without ever raising for what a publisher may have written."""

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import data as pikas

from kanikojobs.field_tables import MOST_NESTED, decode_table


def table(*fields: bytes) -> bytes:
    """A table of fields, each of which is a name and a value already encoded."""
    content = b"".join(fields)
    return struct.pack(">I", len(content)) + content


def field(name: str | bytes, value: bytes) -> bytes:
    encoded = name.encode() if isinstance(name, str) else name
    return bytes([len(encoded)]) + encoded + value


def nested(depth: int) -> bytes:
    inner = table(field("x", b"t\x01"))
    for _ in range(depth):
        inner = table(field("x", b"F" + inner))
    return inner


VALUES = [
    pytest.param(b"t\x01", True, id="boolean"),
    pytest.param(b"b\xff", -1, id="8 bits"),
    pytest.param(b"B\xff", 255, id="8 bits unsigned"),
    pytest.param(b"s\xff\xfe", -2, id="16 bits"),
    pytest.param(b"u\xff\xfe", 65_534, id="16 bits unsigned"),
    pytest.param(b"I\xff\xff\xff\xff", -1, id="32 bits"),
    pytest.param(b"i\xff\xff\xff\xff", 2**32 - 1, id="32 bits unsigned"),
    pytest.param(b"l" + struct.pack(">q", -(2**63)), -(2**63), id="64 bits"),
    pytest.param(b"f" + struct.pack(">f", 1.5), 1.5, id="float"),
    pytest.param(b"d" + struct.pack(">d", 0.1), 0.1, id="double"),
    pytest.param(b"d" + struct.pack(">d", math.inf), math.inf, id="infinity"),
    pytest.param(b"D\x02" + struct.pack(">i", 1999), Decimal("19.99"), id="decimal"),
    pytest.param(b"S\x00\x00\x00\x02ok", "ok", id="text"),
    pytest.param(b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe", id="text that is not UTF-8"),
    pytest.param(b"x\x00\x00\x00\x02ok", b"ok", id="bytes"),
    pytest.param(b"V", None, id="nothing"),
    pytest.param(b"T" + struct.pack(">Q", 1_704_067_200), datetime(2024, 1, 1, tzinfo=UTC), id="time"),
    pytest.param(b"T" + struct.pack(">Q", 2**64 - 1), 2**64 - 1, id="time beyond the calendar"),
    pytest.param(b"A\x00\x00\x00\x04t\x01t\x00", [True, False], id="array"),
    pytest.param(b"F" + table(field("a", b"t\x01")), {"a": True}, id="table"),
    pytest.param(b"?unknown", b"?unknown", id="an unknown type"),
]


@pytest.mark.parametrize(("encoded", "value"), VALUES)
def test_a_value_is_decoded(encoded: bytes, value: Any) -> None:
    whole = table(field("name", encoded))

    found, end = decode_table(b"before" + whole + b"behind", len(b"before"))

    assert found == {"name": value}
    assert end == len(b"before") + len(whole)


def test_nan_is_a_number_that_is_none() -> None:
    found, _ = decode_table(table(field("name", b"d" + struct.pack(">d", math.nan))), 0)

    assert math.isnan(found["name"])


def test_a_64_bit_integer_is_a_plain_one() -> None:
    found, _ = decode_table(table(field("name", b"l" + struct.pack(">q", 5))), 0)

    assert repr(found["name"]) == "5"


def test_a_name_that_is_not_utf_8_is_bytes() -> None:
    found, _ = decode_table(table(field(b"\xff", b"t\x01")), 0)

    assert found == {b"\xff": True}


def test_what_is_behind_a_value_that_cannot_be_read_is_kept_as_bytes() -> None:
    whole = table(field("a", b"t\x01"), field("b", b"?rest"), field("c", b"t\x01"))

    found, end = decode_table(whole, 0)

    assert found == {"a": True, "b": b"?rest\x01ct\x01"}
    assert end == len(whole)


@pytest.mark.parametrize("depth", [MOST_NESTED + 1, 15_000])
def test_deep_nesting_ends_in_bytes(depth: int) -> None:
    whole = nested(depth)

    found, end = decode_table(whole, 0)

    for _ in range(MOST_NESTED):
        found = found["x"]
    assert isinstance(found["x"], bytes)
    assert end == len(whole)


SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.none() | st.binary(max_size=20)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=20), TREES, max_size=5))
def test_what_pika_encodes_comes_back(headers: dict[str, Any]) -> None:
    pieces: list[bytes] = []
    pikas.encode_table(pieces, headers)

    found, _ = decode_table(b"".join(pieces), 0)

    assert found == headers


@given(st.binary(max_size=200))
def test_no_well_formed_length_makes_it_raise_anything_but_struct_error(content: bytes) -> None:
    whole = struct.pack(">I", len(content)) + content
    try:
        found, end = decode_table(whole, 0)
    except (struct.error, IndexError):
        return
    assert isinstance(found, dict)
    assert end == len(whole)
