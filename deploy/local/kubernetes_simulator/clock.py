"""The time as objects show it. Whole seconds, as metav1.Time; made once per second."""

import time
from datetime import UTC, datetime

_second = 0
_text = ""


def now() -> str:
    """The current time as `2024-01-01T00:00:00Z`."""
    global _second, _text
    second = int(time.time())
    if second != _second:
        _second = second
        _text = stamp(second)
    return _text


def stamp(seconds: float) -> str:
    """A moment, in seconds since 1970, as `2024-01-01T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def nano_stamp(seconds: float) -> str:
    """A moment with nanoseconds, as the kubelet puts it before log lines."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
