"""What a person may read: times as they say them, hostile text without its secrets."""

from datetime import datetime, timedelta

from django import template
from django.utils.dateparse import parse_datetime

from kanikojobs import inspection

register = template.Library()


@register.filter
def length_of_time(length: timedelta) -> str:
    """The two largest units: "3 d 4 h", "12 min 5 s", "4 s"."""
    seconds = max(0, int(length.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        number, seconds = divmod(seconds, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


@register.filter
def ago(at: datetime | None, now: datetime) -> str:
    """How long before `now`."""
    return length_of_time(now - at) if at else "–"


@register.filter
def moment(text: str) -> str:
    """A time as Kubernetes writes it, as the pages do: "31 Jan 14:05:12"."""
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    return f"{at:%d %b %H:%M:%S}" if at else text


def took(seconds: float | None) -> str:
    """How long a call took: "8 ms"."""
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


@register.filter
def words(text: str) -> list[str]:
    return text.split()


@register.filter
def without_secrets(text: str) -> str:
    return inspection.masked_text(text)
