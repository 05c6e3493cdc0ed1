"""Striking secrets out of text that is kept: logs, messages of containers, Kubernetes Events. Pure.

Only known forms are found; a secret without a form of its own is found by the name in front of it. What is struck out
is replaced by a mark that says what it was.
"""

import re
from collections.abc import Callable

MARK = "[redacted: {0}]"

# The words that stand before a secret in configuration, environments and command lines.
_NAMES = (
    r"(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|client[_-]?secret|auth[_-]?key"
    r"|credentials?)"
)

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN (?P<kind>[A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?)-----(?:(?!-----BEGIN ).){0,16384}?"
            r"-----END (?P=kind)-----",
            re.DOTALL,
        ),
    ),
    # The halves of a key whose other half is beyond the cut: the beginning with the lines that look like more, and
    # the end with all that is before it.
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?:\s{1,4}[A-Za-z0-9+/=]{8,128}(?=\s|\Z))*", re.DOTALL
        ),
    ),
    ("private key", re.compile(r"\A(?:(?!-----BEGIN ).)*?-----END [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----", re.DOTALL)),
    ("AWS access key", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|ANPA|ABIA|ACCA)[A-Z0-9]{16}\b")),
    (
        "AWS secret key",
        re.compile(r"(?i)(?P<keep>aws.{0,20}?(?:secret|session).{0,20}?[=:]\s*['\"]?)[A-Za-z0-9/+=]{40,}"),
    ),
    ("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{22,255})\b")),
    ("GitLab token", re.compile(r"\bgl(?:pat|ptt|dt|rt|cbt|oas|soat|ft|imt|agent)-[A-Za-z0-9_.-]{16,}")),
    ("npm token", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("PyPI token", re.compile(r"\bpypi-[A-Za-z0-9_-]{16,}")),
    ("Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("Docker token", re.compile(r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}")),
    ("Google key", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("API key", re.compile(r"\b(?:sk|pk|rk)[_-](?:live|test|proj|ant)[_-][A-Za-z0-9_-]{16,}")),
    ("web token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
    ("password", re.compile(r"(?P<keep>\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@'\"]{0,256}:)[^\s/@'\"]{1,512}(?=@)")),
    ("user", re.compile(r"(?P<keep>\bhttps?://)[A-Za-z0-9_.~%-]{16,512}(?=@)")),
    (
        "credentials",
        re.compile(
            r"(?i)(?P<keep>\b(?:proxy-)?authorization\b['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token)?\s*)[^\s'\",]{6,}"
        ),
    ),
    ("credentials", re.compile(r"(?i)(?P<keep>\bbearer\s+)[A-Za-z0-9._~+/-]{16,}=*")),
    # Docker's config.json and npm's _auth hold user:password in base64.
    (
        "credentials",
        re.compile(r"(?i)(?P<keep>['\"]?\b_?auth(?:Token)?['\"]?\s*[:=]\s*['\"]?)[A-Za-z0-9+/_-]{8,}={0,2}"),
    ),
    (
        "secret",
        re.compile(rf"(?i)(?P<keep>(?<![a-z0-9])[a-z0-9_.-]{{0,64}}{_NAMES}['\"]?\s*[=:]\s*\")[^\"\n]{{1,512}}(?=\")"),
    ),
    (
        "secret",
        re.compile(rf"(?i)(?P<keep>(?<![a-z0-9])[a-z0-9_.-]{{0,64}}{_NAMES}['\"]?\s*[=:]\s*')[^'\n]{{1,512}}(?=')"),
    ),
    (
        "secret",
        re.compile(rf"(?i)(?P<keep>(?<![a-z0-9])[a-z0-9_.-]{{0,64}}{_NAMES}\s*=\s*)(?!\[redacted)[^\s'\"&;,]{{3,512}}"),
    ),
    ("secret", re.compile(rf"(?i)(?P<keep>--?[a-z0-9-]{{0,64}}{_NAMES}\s+)(?!\[redacted|-)[^\s'\"]{{3,512}}")),
)


# Only lines that have one of these can have a secret of the kinds above that fit into a line: most lines have none,
# and trying every pattern on each would cost a long log a quarter of a second.
_HINT = re.compile(
    r"pass|pwd|secret|token|key|auth|credential|bearer|://|eyj|akia|asia|ro?ida|anpa|abia|acca|aroa|aiza"
    r"|gh[pousr]_|github_pat|gl[a-z]+-|npm_|pypi-|xox|dckr_|[spr]k[_-]",
    re.IGNORECASE,
)
_WHOLE = tuple((what, pattern) for what, pattern in _PATTERNS if pattern.flags & re.DOTALL)
_IN_A_LINE = tuple((what, pattern) for what, pattern in _PATTERNS if not pattern.flags & re.DOTALL)


def redact(text: str) -> str:
    """The text without the secrets in it that are known by their form or by the name before them."""
    if "PRIVATE KEY" in text:
        for what, pattern in _WHOLE:
            text = pattern.sub(_mark(what), text)
    if _HINT.search(text) is None:
        return text
    return "\n".join(_redact_line(line) if _HINT.search(line) else line for line in text.split("\n"))


def _redact_line(line: str) -> str:
    for what, pattern in _IN_A_LINE:
        line = pattern.sub(_mark(what), line)
    return line


def _mark(what: str) -> Callable[[re.Match[str]], str]:
    mark = MARK.format(what)

    def replace(match: re.Match[str]) -> str:
        return (match.groupdict().get("keep") or "") + mark

    return replace


class LineRedactor:
    """Redacts a text that comes line by line: a private key is struck out although it has many."""

    _MORE_OF_A_KEY = re.compile(r"\s*(?:[A-Za-z0-9+/=]+|[A-Za-z-]+: .*|-----END .*)?\s*")

    def __init__(self) -> None:
        self._in_key = False

    def redact(self, line: str) -> str:
        """The line, without its end, as it may be shown."""
        if self._in_key:
            self._in_key = "-----END" not in line and self._MORE_OF_A_KEY.fullmatch(line) is not None
            if self._in_key or "-----END" in line:
                return ""
        if "-----BEGIN" in line and "PRIVATE KEY" in line and "-----END" not in line:
            self._in_key = True
        return redact(line)
