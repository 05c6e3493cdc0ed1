"""The database's clock: what it wrote is compared with its own time, and not with that of whoever asks."""

from datetime import datetime

from django.db import connection


def now() -> datetime:
    """The time at this moment, also within a transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment
