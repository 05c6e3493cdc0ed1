"""Which failures have one cause: a message is normalised until only what the cause decides is left.

Masked are ids, digests, addresses, paths, times, sizes, numbers and whatever is quoted; words stay. Failures with
the same kind and the same words are one group. Pure and fast: intake asks for a fingerprint within its transaction.

The order of the masks matters: what is longer and more telling goes first, so that a time does not lose its hours to
the mask for numbers. Every expression is linear in the length of the text, because the text is whatever a build
printed or a sender wrote.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from kanikojobs.errors import Fault

# What is behind the first so many characters or lines of a log tells one failure from another, not one cause.
MOST_CHARACTERS = 4000
MOST_LINES = 20

_HEX = r"[0-9a-fA-F]"


def _masks(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), mask) for pattern, mask in pairs)


_QUOTED = _masks(
    (r"\x1b\[[0-9;]*[A-Za-z]", ""),
    # What a person or a program put into quotes is a value. An apostrophe within a word is none.
    (r'"(?:[^"\\\n]|\\.)*"', "<value>"),
    (r"`[^`\n]*`", "<value>"),
    (r"(?<![A-Za-z0-9])'[^'\n]*'(?![A-Za-z0-9])", "<value>"),
)
_PLACES_TIMES_AND_SIZES = _masks(
    (r"\b(?:[a-z][a-z0-9+.-]{1,15})://[^\s\"'<>|,;)\]}]+", "<url>"),
    (r"\bsha(?:256|512):[0-9a-fA-F]{6,128}", "<digest>"),
    (rf"\b{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}\b", "<id>"),
    # RFC 3339 and the logs' own times: 2026-11-23T14:02:03.123Z, 2026/11/23 14:02:03, 14:02:03.5
    (
        r"\b\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z\b|UTC\b|[+-]\d\d:?\d\d))?)?",
        "<time>",
    ),
    (r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b", "<time>"),
    # Addresses: IPv6 in brackets or bare, IPv4, both with a port.
    (rf"\[(?:{_HEX}{{0,4}}:){{2,7}}{_HEX}{{0,4}}\](?::\d+)?", "<address>"),
    (rf"(?<![\w:])(?:{_HEX}{{1,4}}:){{3,7}}:?{_HEX}{{1,4}}(?![\w:])", "<address>"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+|/\d+)?\b", "<address>"),
    # An image or a host with a path: registry.example.com:5000/team/name:tag
    (r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){0,10}:\d{2,5}/[\w./@:-]+", "<image>"),
    (r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){1,10}/[\w./@:-]+", "<image>"),
    (r"(?<![\w/.])(?:/[\w.@+-]{1,255}/|[\w.@+-]{2,255}/)(?:[\w.@+-]{1,255}/)*[\w.@+-]*", "<path>"),
    (r"(?<!\w)/[\w.@+-]+", "<path>"),
    # A host: at least two dots, or one before a well-known end or a port. `data.priority` is a field, not a host.
    (r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){1,10}:\d{1,5}\b", "<host>"),
    (r"\b[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,10}\.(?:com|org|net|io|dev|local|internal|svc|network)\b", "<host>"),
    (r"\b[\w-]{1,63}:\d{2,5}\b", "<host>"),
    # Durations and sizes before numbers: 1h2m3.5s, 512Mi, 250m, 37 bytes, 1.5 GiB
    (r"\b\d+(?:\.\d+)?(?:ns|us|µs|ms|h\d|m\d)[\d.hmsnuµ]*\b", "<n>"),
    (r"\b\d+(?:[.,]\d+)*\s?(?:[KMGTPE]i?B?|[kmg]i?b|bytes?|B|s|m|h|d|ms|%)(?![\w])", "<n>"),
)
_NUMBERS = _masks(
    # Long hexadecimal with a digit in it, because `deadbeef` may be a word. The same mask as a number's: one commit
    # in thirty has a short hash without letters.
    (rf"\b(?=[a-fA-F]*\d){_HEX}{{7,128}}\b", "<n>"),
    (r"\bv?\d+(?:\.\d+)+\b", "<n>"),
    (r"\b(?=[A-Za-z_]*\d)\w+\b", "<n>"),
    (r"[+-]?\d+(?:[.,]\d+)*", "<n>"),
)
# Names that programs make: words with a number or a hash in them, such as kaniko-job-7f9c-x2k4q.
_HYPHENATED = re.compile(r"(?<![\w-])\w+(?:-\w+)+(?![\w-])")
# The few numbers that are the cause: how a process ended, what a server answered.
_TELLING = re.compile(
    r"\b(?:exit(?:ed)?(?: with)?(?: non-zero)?(?: status| code)?|status(?: code)?|HTTP(?:/[\d.]+)?|signal):? \d{1,3}\b",
    re.IGNORECASE,
)
_HIDE = {ord("0") + digit: 0xE000 + digit for digit in range(10)}
_SHOW = {0xE000 + digit: ord("0") + digit for digit in range(10)}
_SPACE = re.compile(r"\s+")
# Masks beside each other, as from `10.0.0.7->10.0.0.8` or a list of ids: how many there are is no cause either.
_REPEATED = re.compile(r"(<\w+>)(?:(?:, | |,|->)<\w+>)+")
# The identifiers that Kubernetes, kaniko and this program write in their own sentences, not always in quotes.
_NAMED = re.compile(
    r"\b(pod|pods|job|jobs|jobs\.batch|secret|configmap|namespace|node|container|image|service account|"
    r"serviceaccount|quota|exceeded quota|queue|branch|tag|user)(:? )([\w][\w./@:-]{0,252}[\w])",
    re.IGNORECASE,
)
# Words that follow those and are part of the sentence.
_SENTENCE = frozenset(
    "a an and are as at be been by can cannot could did does exceeds exists failed for from had has have in into is "  # noqa: SIM905
    "it its limit limits may must name names no not of on or pull pulls push quota ran refused requires should spec "
    "status template that the to too was were which with without would".split()
)


def normalise(text: str) -> str:
    """What is left of a message when everything that differs between two failures of one cause is masked."""
    return _normalise("\n".join(text[:MOST_CHARACTERS].split("\n", MOST_LINES)[:MOST_LINES]))


@lru_cache(maxsize=1024)
def _normalise(text: str) -> str:
    # Values first, names next: `Job "x" not found` and `job x not found` are one cause.
    text = _mask(text, _QUOTED)
    text = _NAMED.sub(_mask_name, text)
    text = _TELLING.sub(lambda match: match[0].translate(_HIDE), text)
    text = _mask(text, _PLACES_TIMES_AND_SIZES)
    text = _HYPHENATED.sub(_mask_hyphenated, text)
    text = _mask(text, _NUMBERS)
    text = _SPACE.sub(" ", text).strip()
    return _REPEATED.sub(r"\1", text).translate(_SHOW)[:MOST_CHARACTERS]


def _mask(text: str, masks: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, mask in masks:
        text = pattern.sub(mask, text)
    return text


def _mask_hyphenated(match: re.Match[str]) -> str:
    # UTF-8 and the like are words; what is left of a shorter name is masked as a number.
    made = len(match[0]) > 6 and any(character.isdigit() for character in match[0])
    return "<name>" if made else match[0]


def _mask_name(match: re.Match[str]) -> str:
    kind, space, name = match.groups()
    telling = any(character in "-./0123456789@:_" for character in name)
    return f"{kind}{space}<name>" if telling and name.lower() not in _SENTENCE else match[0]


def normalise_faults(faults: Sequence[Fault]) -> str:
    """The same for the faults of an invalid event, whichever was found first and however often one repeats."""
    return "\n".join(sorted({f"{_place(fault.path)}: {normalise(fault.problem)}" for fault in faults}))


def _place(path: str) -> str:
    """The JSON path without what the sender chose: members in quotes, and positions in arrays."""
    return re.sub(r"\[[^\]]*\]", "[…]", path[:256])


def signature(*, reason: str, faults: Sequence[Fault] = ()) -> str:
    """What a group is called: the normalised message, or faults."""
    return normalise_faults(faults) if faults else normalise(reason)


def fingerprint(*, kind: str, signature: str) -> str:
    """64 hexadecimal digits that are equal for deaths of one kind and cause."""
    return hashlib.sha256(f"{kind}\n{signature}".encode("utf-8", "backslashreplace")).hexdigest()
