"""What is known of pruning, for the statistics, the metrics and the doctor."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from kanikojobs.models import PruneRun

# Without a finished run for so long somebody has to look: it is done every day.
LATE_AFTER = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class LastRun:
    """What is known of pruning: when it was last finished, how long that is ago, what it removed, and what goes on.

    `since` is from the last end; before the first, from when the tables were made.
    """

    finished_at: datetime | None
    since: timedelta
    removed: Mapping[str, int]
    ongoing: PruneRun | None


def last_run() -> LastRun:
    finished = PruneRun.objects.filter(ongoing=False).order_by("-id").first()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT clock_timestamp()
                - COALESCE(%s, (SELECT min(applied) FROM django_migrations WHERE app = 'kanikojobs'))
            """,
            [finished.finished_at if finished else None],
        )
        since = cursor.fetchone()[0]
    return LastRun(
        finished_at=finished.finished_at if finished else None,
        since=max(timedelta(), since),
        removed=finished.removed if finished else {},
        ongoing=PruneRun.objects.filter(ongoing=True).first(),
    )
