"""AMQP's field tables (headers, mostly), decoded so that nothing in them can stop the consumer.

pika's own decoder raises for a timestamp beyond the year 9999 and for tables nested a few hundred deep, which RabbitMQ
accepts from any publisher. The exception ends the connection, RabbitMQ hands the message over again, and the consumer
would fall over it for ever. Here such a value is kept as a number or as bytes. Besides, 64-bit integers are plain ones
here, and fractions are not cut off.

Pure. `kanikojobs.amqp` puts it in the place of pika's. The field types are those that RabbitMQ writes (AMQP 0-9-1,
section 4.2.5.5, with RabbitMQ's errata).
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Table = dict[str | bytes, Any]

# Deeper ones are kept as the bytes that they are. The interpreter's stack bears some hundreds of levels.
MOST_NESTED = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_table(encoded: bytes, offset: int, *, depth: int = 0) -> tuple[Table, int]:
    """The table at `offset`, and the offset behind it. Raises `struct.error` or `IndexError` if it is cut off.

    A value of an unknown type hides where the next one starts: what is left of the table is then one value, in bytes.
    """
    start, end = _extent(encoded, offset)
    table: Table = {}
    offset = start
    while offset < end:
        length = encoded[offset]
        name = _text(encoded[offset + 1 : offset + 1 + length])
        table[name], offset = _value(encoded, offset + 1 + length, end=end, depth=depth)
    return table, end


def _extent(encoded: bytes, offset: int) -> tuple[int, int]:
    (length,) = _LENGTH.unpack_from(encoded, offset)
    return offset + 4, offset + 4 + length


def _value(encoded: bytes, offset: int, *, end: int, depth: int) -> tuple[Any, int]:
    kind = encoded[offset : offset + 1]
    offset += 1
    if kind == b"S":
        start, offset = _extent(encoded, offset)
        return _text(encoded[start:offset]), offset
    if fixed := _FIXED.get(kind):
        layout, convert = fixed
        return convert(*layout.unpack_from(encoded, offset)), offset + layout.size
    if kind == b"V":
        return None, offset
    if kind in (b"F", b"A", b"x"):
        start, behind = _extent(encoded, offset)
        if kind == b"x" or depth == MOST_NESTED:
            return encoded[start:behind], behind
        if kind == b"F":
            return decode_table(encoded, offset, depth=depth + 1)
        items: list[Any] = []
        position = start
        while position < behind:
            item, position = _value(encoded, position, end=behind, depth=depth + 1)
            items.append(item)
        return items, behind
    return encoded[offset - 1 : end], end


def _text(encoded: bytes) -> str | bytes:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded


def _time(seconds: int) -> datetime | int:
    """AMQP counts seconds in 64 bits; Python's calendar ends with the year 9999."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return seconds


def _decimal(places: int, digits: int) -> Decimal:
    return Decimal(digits).scaleb(-places)


_LENGTH = struct.Struct(">I")
_FIXED: dict[bytes, tuple[struct.Struct, Callable[..., Any]]] = {
    b"t": (struct.Struct(">B"), bool),
    b"b": (struct.Struct(">b"), int),
    b"B": (struct.Struct(">B"), int),
    b"s": (struct.Struct(">h"), int),
    b"U": (struct.Struct(">h"), int),
    b"u": (struct.Struct(">H"), int),
    b"I": (struct.Struct(">i"), int),
    b"i": (struct.Struct(">I"), int),
    b"l": (struct.Struct(">q"), int),
    b"L": (struct.Struct(">q"), int),
    b"f": (struct.Struct(">f"), float),
    b"d": (struct.Struct(">d"), float),
    b"D": (struct.Struct(">Bi"), _decimal),
    b"T": (struct.Struct(">Q"), _time),
}
