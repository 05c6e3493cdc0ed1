"""CloudEvents attributes, each read by its type (CloudEvents 1.0.2, "Context Attributes" and "Type System").

The specification sets no upper bounds; a row in a database has them. Every function appends what is wrong to
`faults` and returns an empty value for it, so that one reading finds all faults. `prefix` is what the names
carry where they came from: nothing in JSON, `ce-` in headers.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from kanikojobs.cloudevent.hostile_text import header_name, kind, member, quoted, text_problem
from kanikojobs.errors import Fault

MAX_EVENT_ID_LENGTH = 256
MAX_SOURCE_LENGTH = 512
MAX_TYPE_LENGTH = 256
MAX_SUBJECT_LENGTH = 512
MAX_DATASCHEMA_LENGTH = 2048
MAX_CONTENT_TYPE_LENGTH = 256
MAX_EXTENSIONS = 64
MAX_EXTENSION_NAME_LENGTH = 64
MAX_EXTENSION_LENGTH = 4096

REQUIRED = frozenset({"id", "source", "type", "specversion"})
_DEFINED = REQUIRED | {"subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}

_EXTENSION_NAME = re.compile(rf"[a-z0-9]{{1,{MAX_EXTENSION_NAME_LENGTH}}}").fullmatch
_ABSOLUTE_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
).fullmatch
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch
_TRACEPARENT_LENGTH = 55
_JSON_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+\+)?json").fullmatch
_UTF8_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})

Extensions = dict[str, str | int | bool]


def required_text(attributes: dict[str, Any], name: str, *, max_length: int, prefix: str, faults: list[Fault]) -> str:
    """A String that every CloudEvent has."""
    if attributes.get(name) is None:
        faults.append(Fault(f"{prefix}{name}", f'missing; every CloudEvent has "{name}"'))
        return ""
    return optional_text(attributes, name, max_length=max_length, prefix=prefix, faults=faults)


def optional_text(attributes: dict[str, Any], name: str, *, max_length: int, prefix: str, faults: list[Fault]) -> str:
    """A String, empty if absent. null is absent (JSON event format 1.0.2, section 2.2)."""
    value = attributes.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        problem = text_problem(value, max_length=max_length)
        if not problem:
            return value
    else:
        problem = f"{kind(value)}; must be a string"
    faults.append(Fault(f"{prefix}{name}", problem))
    return ""


def readable_text(attributes: dict[str, Any], name: str, *, max_length: int) -> str:
    """A String if it is a good one, without a word if it is not."""
    value = attributes.get(name)
    return value if isinstance(value, str) and not text_problem(value, max_length=max_length) else ""


def dataschema(attributes: dict[str, Any], *, prefix: str, faults: list[Fault]) -> str:
    """The URI of the schema of `data`."""
    value = optional_text(attributes, "dataschema", max_length=MAX_DATASCHEMA_LENGTH, prefix=prefix, faults=faults)
    if value and not _ABSOLUTE_URI(value):
        faults.append(Fault(f"{prefix}dataschema", f"{kind(value)}; must be an absolute URI, or left out"))
    return value


def time(attributes: dict[str, Any], *, prefix: str, faults: list[Fault]) -> datetime | None:
    """`time` in UTC, cut to microseconds. A leap second becomes the next minute, as in PostgreSQL."""
    value = attributes.get("time")
    if value is None:
        return None
    if not isinstance(value, str) or not _RFC3339(value):
        wanted = "a time of RFC 3339 with an offset, such as 2024-01-01T00:00:00Z"
        faults.append(Fault(f"{prefix}time", f"{kind(value)}; must be {wanted}"))
        return None
    text = value.upper()
    leap_second = text[17:19] == "60"
    if leap_second:
        text = f"{text[:17]}59{text[19:]}"
    try:
        moment = (datetime.fromisoformat(text) + timedelta(seconds=leap_second)).astimezone(UTC)
        # The first and the last year are refused because not every time zone can show them.
        if 1 < moment.year < 9999:
            return moment
    except (ValueError, OverflowError):
        pass
    problem = "no such time, or not in the years 0002 to 9998; leave it out if unknown"
    faults.append(Fault(f"{prefix}time", f"{kind(value)}; {problem}"))
    return None


def datacontenttype(attributes: dict[str, Any], *, prefix: str, faults: list[Fault]) -> str:
    """The content type of `data`, which must be JSON. If absent it is that (section "datacontenttype")."""
    value = attributes.get("datacontenttype")
    if value is None or value == "application/json":
        return "application/json"
    if problem := content_type_problem(value):
        faults.append(Fault("content-type" if prefix else "datacontenttype", problem))
        return ""
    return str(value)


def extensions(attributes: dict[str, Any], *, prefix: str, faults: list[Fault]) -> Extensions:
    """All other attributes: strings, booleans and 32-bit integers by lower-case names."""
    names = attributes.keys() - _DEFINED
    if not names:
        return {}
    if len(names) > MAX_EXTENSIONS:
        problem = f"{len(names)} extension attributes; at most {MAX_EXTENSIONS} are kept, put the rest into data"
        faults.append(Fault("", problem))
        return {}
    found: Extensions = {}
    for name in sorted(names):
        value = attributes[name]
        if value is None:
            continue
        if problem := _name_problem(name) or _extension_problem(value):
            faults.append(Fault(header_name(prefix + name) if prefix else member("", name), problem))
        found[name] = value
    return found


def _name_problem(name: str) -> str:
    if _EXTENSION_NAME(name):
        return ""
    rule = f"1 to {MAX_EXTENSION_NAME_LENGTH} lower-case letters and digits"
    return f"not the name of a CloudEvents attribute ({rule}); put it into data"


def _extension_problem(value: object) -> str:
    if isinstance(value, str):
        return text_problem(value, max_length=MAX_EXTENSION_LENGTH) if value else ""
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return ""
    return f"{kind(value)}; an extension is a string, a boolean or a whole number of 32 bits"


def trace(value: object) -> tuple[str, str]:
    """A `traceparent` and its trace id if valid (W3C Trace Context, level 1); a broken one harms no build."""
    parts = _TRACEPARENT(value) if isinstance(value, str) else None
    if parts is None or (parts[0].startswith("00") and parts[2] is not None):
        return "", ""
    return parts[0][:_TRACEPARENT_LENGTH], parts[1]  # later versions may append fields


def media_type(content_type: object) -> tuple[str, str]:
    """The media type and the charset of a content type, in lower case, empty where not given."""
    if content_type is None:
        return "", ""
    if not isinstance(content_type, str) or len(content_type) > MAX_CONTENT_TYPE_LENGTH:
        return "unreadable", ""
    return _parsed(content_type)


@lru_cache(maxsize=128)
def _parsed(content_type: str) -> tuple[str, str]:
    essence, *parameters = content_type.lower().split(";")
    pairs = [parameter.partition("=") for parameter in parameters]
    charsets = [value.strip(' "') for name, _, value in pairs if name.strip() == "charset"]
    return essence.strip(), charsets[0] if charsets else ""


def content_type_problem(content_type: object) -> str:
    """Why a content type is not that of JSON in UTF-8; empty if it is."""
    essence, charset = media_type(content_type)
    if not _JSON_MEDIA_TYPE(essence):
        return f"{kind(content_type)}; must be application/json, because data is read as JSON"
    return charset_problem(charset)


def charset_problem(charset: str) -> str:
    """Why a charset is refused: JSON is always UTF-8 (RFC 8259, section 8.1). Empty if it is that."""
    return "" if charset in _UTF8_CHARSETS else f"charset {quoted(charset)}; JSON is always UTF-8, send it so"
