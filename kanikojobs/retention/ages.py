"""How long rows are kept, and since when they may go, by the database's clock."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

# The setting of each age, by the name that the conditions of `kinds` give to the moment before which rows may go.
SETTINGS = {
    "events": "KANIKOJOBS_KEEP_EVENTS",
    "attempts": "KANIKOJOBS_KEEP_ATTEMPTS",
    "logs": "KANIKOJOBS_KEEP_LOGS",
    "dead_letters": "KANIKOJOBS_KEEP_DEAD_LETTERS",
    "outbox": "KANIKOJOBS_KEEP_OUTBOX",
    "tallies": "KANIKOJOBS_KEEP_TALLIES",
    "audit": "KANIKOJOBS_KEEP_AUDIT",
}


def ages() -> dict[str, timedelta]:
    """How long each is kept; zero is for ever."""
    return {key: getattr(settings, name) for key, name in SETTINGS.items()}


def limits() -> Mapping[str, str]:
    """The moment before which rows of each age may go, as PostgreSQL reads it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return {key: (now - age).isoformat() if age else "-infinity" for key, age in ages().items()}
