"""The words of logs: what the last lines of kaniko, or of git in the source container, say of why they ended. Pure.

Words are read only where they are kaniko's or git's own last ones: a build prints what it likes.
"""

import re
from collections.abc import Sequence

from kanikojobs.obstacles import quoted

_KANIKO_ERROR = re.compile(r"^(?:Error: |error |(?:FATA|PANI)\[\d+\] |kaniko should only be run )")
_GIT_ERROR = re.compile(r"^(?:fatal: |error: |remote: |fetch-source: |ERROR: )")
_AUTH = r"UNAUTHORIZED|DENIED|FORBIDDEN|authentication required|unauthorized|denied:|no basic auth|\b40[13] "
_NETWORK = (
    r"i/o timeout|TLS handshake timeout|connection refused|connection reset|no such host|no route to host"
    r"|Client\.Timeout|context deadline exceeded|Could not resolve host|Failed to connect|unexpected EOF|\b50[0234] "
    r"|Temporary failure in name resolution|Operation timed out|Connection timed out|x509:"
)
_RATE = r"TOOMANYREQUESTS|toomanyrequests|429 Too Many Requests|pull rate limit"

# In this order: the first that fits is the reason.
_KANIKO_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("RegistryRateLimited", re.compile(_RATE)),
    ("OOMKilled", re.compile(r"signal: killed|cannot allocate memory")),
    ("DiskFull", re.compile(r"no space left on device")),
    (
        "PushDenied",
        re.compile(rf"(?:checking push permission|failed to push to destination|pushing image).*?(?:{_AUTH})"),
    ),
    ("PushFailed", re.compile(r"checking push permission|failed to push to destination|error pushing image")),
    (
        "SourceUnavailable",
        re.compile(rf"(?:resolving source context|getting source context|resolving context).*?(?:{_NETWORK})"),
    ),
    ("SourceNotFound", re.compile(r"resolving source context|getting source context|resolving context")),
    (
        "DockerfileInvalid",
        re.compile(
            r"resolving dockerfile path|path to a Dockerfile|parsing dockerfile|dockerfile parse error"
            r"|unknown instruction|failed to parse (?:stage|Dockerfile)|parsing stages"
        ),
    ),
    ("BuildStepFailed", re.compile(r"failed to execute command|failed to get files used from context|copy failed")),
    ("BaseImageNotFound", re.compile(r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown|NOT_FOUND|\b404 Not Found")),
    ("RegistryAuthFailed", re.compile(_AUTH)),
    ("RegistryUnavailable", re.compile(_NETWORK)),
    ("BuildStepFailed", re.compile(r"error building (?:image: error building )?stage|exit status \d+")),
)
_SOURCE_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("RegistryRateLimited", re.compile(_RATE)),
    ("DiskFull", re.compile(r"No space left on device")),
    (
        "SourceNotFound",
        re.compile(
            r"(?i)not found|could not read (?:username|password)|authentication failed|access denied|permission denied"
            r"|returned error: 40\d|does not exist|has no (?:branch|commit|folder|file)|no branch or tag|leads out of"
        ),
    ),
    ("DockerfileInvalid", re.compile(r"no Dockerfile in the source|is not a file")),
    ("SourceUnavailable", re.compile(rf"{_NETWORK}|returned error: 5\d\d|unable to access|cannot be (?:read|fetched)")),
)


def last_words(log: str, *, init: bool) -> tuple[str, str]:
    """The reason that the end of a log tells, and the line that tells it, with the step of the Dockerfile it was in."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    if init:
        complaints = [line for line in lines if _GIT_ERROR.match(line)]
        for reason, pattern in _SOURCE_WORDS:
            if line := next((line for line in reversed(complaints) if pattern.search(line)), None):
                return reason, quoted(line)
        if complaints:
            return "SourceNotFound", quoted(complaints[-1])
        return "BuildFailed", quoted(lines[-1]) if lines else ""
    complaints = [line for line in lines if _KANIKO_ERROR.match(line)]
    if not complaints:
        return "BuildFailed", quoted(lines[-1]) if lines else ""
    line = complaints[-1]
    for reason, pattern in _KANIKO_WORDS:
        if pattern.search(line):
            step = _step(lines) if reason == "BuildStepFailed" else ""
            return reason, quoted(f"{step}: {line}" if step else line)
    return "BuildFailed", quoted(line)


def _step(lines: Sequence[str]) -> str:
    """The instruction of the Dockerfile that kaniko was at, as it logs it."""
    pattern = re.compile(r"^INFO\[\d+\] ((?:RUN|COPY|ADD) .*)")
    return next((match[1][:200] for line in reversed(lines) if (match := pattern.match(line))), "")
