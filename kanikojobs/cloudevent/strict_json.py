"""JSON read so that what is stored is what was sent, or a fault says why it cannot be.

Python's parser is more generous than the rest of the way: it takes NaN, rounds long decimals, turns 1e400
into infinity, keeps the last of two equal names, and lets through NUL and lone surrogates, which PostgreSQL's
jsonb refuses. Each of these is a fault here, with its JSON path. Repeated names are a fault because readers
disagree on which one counts (RFC 8259, section 4), so the same bytes would ask for different builds.

Sound text costs one pass of a parser in C. Only suspicious text is read by Python's, to say what is wrong and where.
"""

import json
import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from kanikojobs.cloudevent.hostile_text import member
from kanikojobs.errors import Fault, InvalidEvent

MAX_FAULTS = 50
"""As many as a person reads. A message can have a hundred thousand."""

# NUL, a surrogate, or a quote, which `_read_at_once` counts.
_SUSPICIOUS_ESCAPE = re.compile(rb"\\u(?:0000|0022|[dD][89a-fA-F])").search
_LONE_SURROGATE = re.compile("[\ud800-\udfff]").search
_BOM = "\ufeff"


class _SuspiciousError(ValueError):
    """Read again, carefully."""


class _Number(str):
    """A number as it was written, because neither an int nor a float holds exactly that."""


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its names came more than once."""

    repeated: tuple[str, ...] = ()


def read(body: bytes, *, root: str, max_depth: int) -> tuple[Any, list[Fault]]:
    """The value of a JSON text and the faults in it; `root` is the path that the value has in the event.

    With faults the value serves only to find out what else is wrong. Raises `InvalidEvent` where there is no
    value.
    """
    try:
        return _read_at_once(body, max_depth=max_depth), []
    except (ValueError, RecursionError):
        return read_carefully(body, root=root, max_depth=max_depth)


def _read_at_once(body: bytes, *, max_depth: int) -> Any:
    """The value of a text that cannot have a fault. Raises `ValueError` or `RecursionError` for others."""
    if b"\\" in body and _SUSPICIOUS_ESCAPE(body):
        raise _SuspiciousError
    if body.count(b"{") + body.count(b"[") > max_depth:  # cheaper than measuring, and nearly always enough
        raise _SuspiciousError
    value = _READER.decode(body)
    # Of a name that is repeated the reader keeps the last value, and then fewer quotes are written than were read. No
    # other text changes their number: each is the end of a string, or behind a backslash in both texts.
    if msgspec.json.encode(value).count(b'"') != body.count(b'"'):
        raise _SuspiciousError
    return value


def canonical(value: Any) -> str:
    """A value that was read without a fault as JSON with sorted names and no spaces: equal for equal values."""
    return _WRITER.encode(value).decode()


def split_array(body: bytes, *, max_items: int) -> list[bytes]:
    """The texts of the items of a JSON array, so that a fault in one does not touch the others.

    Raises `InvalidEvent` if it is not an array, or has more than `max_items` items.
    """
    text = _decoded(body).strip(" \t\n\r")
    _refuse_if_unparsable(text)
    if not text.startswith("["):
        raise InvalidEvent([Fault("body", "not an array; a batch is a JSON array of CloudEvents")])
    items: list[bytes] = []
    position = _after_space(text, 1)
    while text[position] != "]":
        if len(items) == max_items:
            raise InvalidEvent([Fault("body", f"more than {max_items} events; send smaller batches")])
        _, end = _CAREFUL.raw_decode(text, position)
        items.append(text[position:end].encode())
        position = _after_space(text, end)
        if text[position] == ",":
            position = _after_space(text, position + 1)
    return items


_after_space_match = re.compile(r"[ \t\n\r]*").match


def _after_space(text: str, position: int) -> int:
    found = _after_space_match(text, position)
    return found.end() if found else position


def _decoded(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(
            [
                Fault(
                    "body",
                    f"not UTF-8: byte 0x{body[error.start]:02x} at offset {error.start}; send JSON as UTF-8",
                )
            ]
        ) from None
    text = text.removeprefix(_BOM)  # RFC 8259, section 8.1, lets a reader ignore it
    if not text or text.isspace():
        raise InvalidEvent([Fault("body", "empty; send the event as JSON")])
    return text


def _refuse_if_unparsable(text: str) -> Any:
    try:
        return _CAREFUL.decode(text)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        problem = "nested too deeply to be read; flatten it"
    raise InvalidEvent([Fault("body", problem)])


def read_carefully(body: bytes, *, root: str, max_depth: int) -> tuple[Any, list[Fault]]:
    """`read` for any text, ten times as slow."""
    text = _decoded(body)
    value = _refuse_if_unparsable(text)
    faults = _faults_in(value, root=root, max_depth=max_depth)
    return (value, faults) if faults else (_SOUND.decode(text), faults)


def _faults_in(value: Any, *, root: str, max_depth: int) -> list[Fault]:
    """Every fault in document order, one over `MAX_FAULTS` at most. A loop: depth is the sender's choice."""
    faults: list[Fault] = []
    pending: list[tuple[Any, str, int]] = [(value, root, 1)]
    while pending and len(faults) <= MAX_FAULTS:
        item, path, depth = pending.pop()
        if isinstance(item, _Number):
            faults.append(Fault(path, "a number that cannot be kept exactly; write it as a string"))
        elif isinstance(item, str):
            if problem := _unstorable(item):
                faults.append(Fault(path, problem))
        elif isinstance(item, list | _Object) and depth > max_depth:
            faults.append(Fault(path, f"nested deeper than {max_depth} levels; flatten it"))
        elif isinstance(item, list):
            pending.extend((item[i], f"{path}[{i}]", depth + 1) for i in reversed(range(len(item))))
        elif isinstance(item, _Object):
            faults += [Fault(member(path, name), "given more than once; keep one") for name in item.repeated]
            for name in item:
                if problem := _unstorable(name):
                    faults.append(Fault(member(path, name), f"the name {problem}"))
            pending.extend((item[name], member(path, name), depth + 1) for name in reversed(item))
    return faults[: MAX_FAULTS + 1]


def _unstorable(text: str) -> str:
    if "\0" in text:
        return "has a NUL character (\\u0000), which cannot be stored; remove it"
    if found := _LONE_SURROGATE(text):
        return f"has a lone surrogate (\\u{ord(found[0]):04x}), which is no character; remove it"
    return ""


def _exact(text: str) -> float | None:
    """The number that is exactly the decimal `text`, in the form in which jsonb will give it back, if there is one.

    jsonb writes neither exponents nor a negative zero, and an event that is read again from its row must be the same.
    """
    number = float(text)
    shortest = repr(number)
    try:
        if Decimal(text) != Decimal(shortest):
            return None
    except InvalidOperation:  # an exponent beyond what Decimal reads, such as 0e99999999999999999999
        return None
    return int(Decimal(shortest)) if "e+" in shortest else number or 0.0


def _exact_or_suspicious(text: str) -> float:
    number = _exact(text)
    if number is None:
        raise _SuspiciousError
    return number


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    members = _Object(pairs)
    if len(members) != len(pairs):
        times = Counter(name for name, _ in pairs)
        members.repeated = tuple(name for name, count in times.items() if count > 1)[:MAX_FAULTS]
    return members


def _float_or_number(text: str) -> float | _Number:
    number = _exact(text)
    return _Number(text) if number is None else number


def _int_or_number(text: str) -> int | _Number:
    try:
        return int(text)
    except ValueError:  # longer than Python converts (sys.get_int_max_str_digits)
        return _Number(text)


_READER = msgspec.json.Decoder(float_hook=_exact_or_suspicious)
_WRITER = msgspec.json.Encoder(order="sorted")
_SOUND = json.JSONDecoder(parse_float=_exact_or_suspicious)
_CAREFUL = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float_or_number, parse_int=_int_or_number, parse_constant=_Number
)
