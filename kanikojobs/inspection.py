"""One dead letter as a person looks at it: the bytes, the event in them line by line with every fault at its place,
and a command that sends it again. Secrets are struck out unless whoever looks may see them.

The read side that admin and REST share. Everything in a letter is hostile text; nothing here is markup.
"""

import base64
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kanikojobs.cloudevent.hostile_text import member
from kanikojobs.errors import Fault
from kanikojobs.models import DeadLetter, JobStartEvent
from kanikojobs.redaction import MARK, redact

MOST_LINES = 2000
MOST_NESTED = 64
MOST_ON_A_LINE = 4096  # characters
MOST_SHOWN = 256 * 1024  # bytes of a body on a page; the download has all
MOST_READ = 1024 * 1024  # bytes of a body that are searched for secrets and taken apart line by line
_HEX_ROW = 16
_HIDDEN = MARK.format("secret")
_TELLING_NAME = r"(?:passw|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|auth)"
_NAMED_VALUE = re.compile(
    rf'(?i)("[^"\\\n]{{0,128}}{_TELLING_NAME}[^"\\\n]{{0,64}}"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*)',
    re.DOTALL,
)
# A fault repeats the value that it is about.
_TOLD_VALUE = re.compile(
    rf'(?im)^([^\n:]{{0,256}}{_TELLING_NAME}[^\n:]{{0,64}}: )the (?:string "(?:[^"\\\n]|\\.)*"|number [^\s;,]+)'
)
_TELLING = re.compile(_TELLING_NAME, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the event as JSON, indented, and what is wrong there."""

    number: int
    indent: int
    text: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is shown of a letter. `text` is empty where the body is no text, and `hex` where it is."""

    size: int
    is_text: bool
    text: str
    hex: str
    is_cut: bool
    lines: tuple[Line, ...]
    elsewhere: tuple[Fault, ...]
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    deaths: tuple[Mapping[str, Any], ...]
    command: str
    masked: bool


def inspect(letter: DeadLetter, *, secrets: bool, sink_url: str = "http://localhost:8000/events") -> Inspection:
    """All of a letter; with `secrets`, word for word."""
    whole = bytes(letter.body)
    try:
        whole.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    part = whole[:MOST_READ]
    body = part if secrets else _without_secrets(part)
    text = body.decode("utf-8", "ignore") if is_text else ""
    headers = letter.headers if secrets else masked(letter.headers)
    faults = [Fault(str(fault.get("path", "")), str(fault.get("problem", ""))) for fault in letter.faults]
    if not secrets:
        faults = [masked_fault(fault) for fault in faults]
    lines, elsewhere = _lines(text if part == whole else "", headers=headers, faults=faults)
    deaths = headers.get("x-death")
    deaths = tuple(death for death in deaths if isinstance(death, dict)) if isinstance(deaths, list) else ()
    return Inspection(
        size=len(whole),
        is_text=is_text,
        text=text[:MOST_SHOWN],
        hex="" if is_text else hex_dump(body[:MOST_SHOWN]),
        is_cut=len(whole) > MOST_SHOWN,
        lines=lines,
        elsewhere=elsewhere,
        headers={name: value for name, value in headers.items() if name != "x-death" or not deaths},
        properties=letter.properties if secrets else masked(letter.properties),
        deaths=deaths,
        command=command(letter, body=body if part == whole else None, headers=headers, sink_url=sink_url),
        masked=not secrets,
    )


def visible_body(letter: DeadLetter, *, secrets: bool) -> bytes:
    """The body as received, or with its secrets struck out."""
    return bytes(letter.body) if secrets else _without_secrets(bytes(letter.body))


def _without_secrets(body: bytes) -> bytes:
    try:
        return masked_text(body.decode()).encode()
    except UnicodeDecodeError:
        # As Latin-1 every byte is a character: what is ASCII in it can be told, and the rest stays as it is.
        return masked_text(body.decode("latin-1")).encode("latin-1", "replace")


def masked_text(text: str) -> str:
    """The text without the values whose name says that they are secret, and without what has the form of a secret."""
    return redact(_TOLD_VALUE.sub(rf"\1{_HIDDEN}", _NAMED_VALUE.sub(rf'\1"{_HIDDEN}"', text)))


def masked_fault(fault: Fault) -> Fault:
    """The fault without the value that it repeats, where the path or the form of it says that it is secret."""
    return Fault(fault.path, masked_text(f"{fault.path}: {fault.problem}").removeprefix(f"{fault.path}: "))


def masked(value: Any, *, name: str = "") -> Any:
    """A copy of a JSON value, masked."""
    match value:
        case dict():
            return {key: masked(item, name=key) for key, item in value.items()}
        case list():
            return [masked(item, name=name) for item in value]
        case str():
            return _HIDDEN if value and _TELLING.search(name) else redact(value)
    return value


def hex_dump(body: bytes) -> str:
    """Rows of sixteen bytes, as `hexdump -C` writes them."""
    rows = []
    for start in range(0, len(body), _HEX_ROW):
        row = body[start : start + _HEX_ROW]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        rows.append(f"{start:08x}  {row.hex(' '):<{3 * _HEX_ROW - 1}}  |{characters}|")
    return "\n".join(rows)


def command(letter: DeadLetter, *, body: bytes | None, headers: Mapping[str, Any], sink_url: str) -> str:
    """A shell command that sends the message again, to the sink, which reads the same content modes.

    Without a body, as for one that is too large for a page, it sends the file that was downloaded.
    """
    attributes = {
        _http_name(name): value for name, value in headers.items() if name.lower().startswith(("ce-", "cloudevents"))
    }
    lines = [f"curl --fail-with-body {shlex.quote(sink_url)}"]
    content_type = letter.content_type or "application/cloudevents+json"
    # Whatever is in a header is hostile text: quoted for the shell, and on one line.
    for header in (f"Content-Type: {content_type}", *(f"{name}: {value}" for name, value in attributes.items())):
        lines.append(f"-H {shlex.quote(' '.join(header.split()))}")
    lines.append('-H "Authorization: Bearer $KANIKOJOBS_SINK_TOKEN"')
    if body is None:
        return f"{' '.join(lines)} --data-binary @{file_name(letter)}"
    encoded = base64.b64encode(body).decode()
    return f"base64 -d <<'BODY' | {' '.join(lines)} --data-binary @-\n{_folded(encoded)}\nBODY"


def file_name(letter: DeadLetter) -> str:
    """What the download is called."""
    return f"dead-letter-{letter.pk}.bin"


def _folded(text: str) -> str:
    return "\n".join(text[start : start + 76] for start in range(0, len(text), 76))


def _http_name(name: str) -> str:
    attribute = re.sub(r"^(?:ce-|cloudevents[_:])", "", name, flags=re.IGNORECASE)
    return "ce-" + re.sub(r"[^A-Za-z0-9]", "", attribute).lower()


def _lines(
    text: str, *, headers: Mapping[str, Any], faults: Sequence[Fault]
) -> tuple[tuple[Line, ...], tuple[Fault, ...]]:
    """The event as indented JSON with each fault on the line of its path, and the faults that have none there."""
    try:
        event = json.loads(text) if text else None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return (), tuple(faults)
    in_headers = {
        name.lower(): value for name, value in headers.items() if name.lower().startswith(("ce-", "cloudevents"))
    }
    root = "data" if in_headers else ""
    found: list[tuple[int, str, str]] = [(0, f"{name}: {value}", name) for name, value in in_headers.items()]
    found += islice(_json_lines(event, path=root, indent=0, before=""), MOST_LINES)
    shown = found[:MOST_LINES]
    places = {path: index for index, (_, _, path) in reversed(list(enumerate(shown))) if path or not root}
    at: dict[int, list[Fault]] = {}
    elsewhere: list[Fault] = []
    for fault in faults:
        index = _place(fault.path, places)
        if index is None:
            elsewhere.append(fault)
        else:
            at.setdefault(index, []).append(fault)
    return (
        tuple(
            Line(index + 1, indent, _cut(line), tuple(at.get(index, ())))
            for index, (indent, line, _) in enumerate(shown)
        ),
        tuple(elsewhere),
    )


def _cut(line: str) -> str:
    return line if len(line) <= MOST_ON_A_LINE else f"{line[:MOST_ON_A_LINE]}… ({len(line)} characters)"


def _place(path: str, places: Mapping[str, int]) -> int | None:
    """The line of the path, or of what encloses what is missing."""
    path = path[0].lower() + path[1:] if path[:3].lower() == "ce-" else path
    while path:
        if path in places:
            return places[path]
        shorter = re.sub(r"(?:\.[^.\[\]]*|\[[^\[\]]*\])$", "", path)
        if shorter == path:
            break
        path = shorter
    # What is missing at the top is told at the opening bracket; what is no path at all, such as `body`, is not.
    return places.get("") if re.fullmatch(r"[a-z0-9]+", path) and path != "body" else None


def _json_lines(value: Any, *, path: str, indent: int, before: str) -> Iterator[tuple[int, str, str]]:
    match value:
        case dict() | list() if value and indent == MOST_NESTED:
            # Hostile nesting would be deeper than the interpreter's stack.
            yield indent, f"{before}… (nested deeper than {MOST_NESTED} levels)", path
        case dict() if value:
            yield indent, before + "{", path
            for name, item in value.items():
                inner = f"{json.dumps(name, ensure_ascii=False)}: "
                yield from _json_lines(item, path=member(path, name), indent=indent + 1, before=inner)
            yield indent, "}", f"{path}\0end"
        case list() if value:
            yield indent, before + "[", path
            for index, item in enumerate(value):
                yield from _json_lines(item, path=f"{path}[{index}]", indent=indent + 1, before="")
            yield indent, "]", f"{path}\0end"
        case _:
            yield indent, before + json.dumps(value, ensure_ascii=False), path


def story(letter: DeadLetter) -> JobStartEvent | None:
    """The event that a letter is about, or became."""
    return letter.replayed_as or letter.event
