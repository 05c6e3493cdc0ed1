"""Words about text that somebody else wrote: what may be stored, and how it is quoted in a message.

Everything in an event is hostile until checked. PostgreSQL refuses NUL and lone surrogates, terminals obey
control characters, and a fault that repeats a megabyte helps nobody. So every message about an event goes
through `quoted`, `kind` and `member`, and every text that becomes a column goes through `text_problem`.
"""

import json
import re

_QUOTED_LENGTH = 60
_LONG_NUMBER = 10**18
_PLAIN_MEMBER = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{_QUOTED_LENGTH}}}").fullmatch
_PLAIN_HEADER = re.compile(rf"[A-Za-z0-9:_-]{{1,{_QUOTED_LENGTH}}}").fullmatch
# CloudEvents 1.0.2, "Type System", String: no control characters, no noncharacters, no unpaired surrogates.
_NONCHARACTERS = "".join(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]").search


def quoted(text: str) -> str:
    """`text` as a JSON string in ASCII, cut to a length that fits into a sentence."""
    cut = text[:_QUOTED_LENGTH]
    escaped = json.dumps(cut).replace("\x7f", "\\u007f")
    return escaped if cut == text else f"{escaped}… ({len(text)} characters)"


def kind(value: object) -> str:
    """What a value is, in JSON's words and short: a number may have 4,000 digits, a string a million."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {quoted(value)}"
        case int() | float():
            return f"the number {value}" if abs(value) < _LONG_NUMBER else "a number"
        case dict():
            return "an object"
        case list():
            return "an array"
        case bytes():
            return "bytes that are not UTF-8"
    return f"a value of type {type(value).__name__}"


def member(path: str, name: str) -> str:
    """The JSON path of a member: `data.priority`, or `data.environment["9X"]` for what is no plain word."""
    if not _PLAIN_MEMBER(name):
        return f"{path}[{quoted(name)}]"
    return f"{path}.{name}" if path else name


def header_name(name: str) -> str:
    """A header's name as it is if that is harmless, else quoted."""
    return name if _PLAIN_HEADER(name) else quoted(name)


def text_problem(text: str, *, max_length: int) -> str:
    """Why `text` is no CloudEvents String of 1 to `max_length` characters; empty if it is one."""
    if not text:
        return "empty; must have at least one character"
    if len(text) > max_length:
        return f"{len(text)} characters long; at most {max_length} are kept"
    if text.isascii() and text.isprintable():
        return ""
    if found := _FORBIDDEN(text):
        return (
            f"has U+{ord(found[0]):04X} at character {found.start() + 1}; "
            "control characters, noncharacters and lone surrogates are not allowed"
        )
    return ""
