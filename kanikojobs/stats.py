"""The read side: the numbers that admin, REST and metrics share. Each costs the same at any length of history."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from kanikojobs import tallies
from kanikojobs.states import State

SUCCESSES = ("creation/created", "creation/adopted")
FAILURES = ("creation/retry", "creation/refused", "creation/unavailable", "creation/lost")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what is under way."""

    queued: int
    creating: int
    created: int
    running: int
    oldest_queued_at: datetime | None


def backlog() -> Backlog:
    """Counts of the unfinished Kaniko Jobs, read from the index of those."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT state, count(*), min(queued_at) FROM kanikojobs_kanikojob
            WHERE state IN ('queued', 'creating', 'created', 'running') GROUP BY state
            """
        )
        rows = {state: (count, oldest) for state, count, oldest in cursor.fetchall()}
    count = {state: rows.get(state, (0, None))[0] for state in State.values}
    return Backlog(
        queued=count[State.QUEUED],
        creating=count[State.CREATING],
        created=count[State.CREATED],
        running=count[State.RUNNING],
        oldest_queued_at=rows.get(State.QUEUED, (0, None))[1],
    )


def first_version(
    *, waiting: Backlog | None = None, creation: dict[str, tallies.Total] | None = None
) -> dict[str, Any]:
    """The flat keys that callers of the system's first version read.

    There `queue_size` was the in-memory queue of the job creator; here it is what waits for a worker. `total_queued`
    is how many events were ever queued for creation, `results_count` how many creation calls have an answer.
    """
    waiting = waiting or backlog()
    creation = tallies.totals(prefix="creation/") if creation is None else creation
    intake = tallies.totals(prefix="intake/")
    recorded = [series for series in intake if series.endswith("/recorded")]
    return {
        "worker_count": settings.KANIKOJOBS_WORKER_COUNT,
        "queue_size": waiting.queued + waiting.creating,
        "max_queue_size": settings.KANIKOJOBS_MAX_QUEUE_SIZE,
        "total_queued": tallies.count(intake, recorded),
        "results_count": tallies.count(creation, (*SUCCESSES, *FAILURES)),
        "is_shutdown": False,
    }


def everything() -> dict[str, Any]:
    """What `/async-jobs/stats` answers: the flat keys of the first version, and the rest nested beside them."""
    waiting = backlog()
    creation = tallies.totals(prefix="creation/")
    intake = tallies.totals(prefix="intake/")
    letters = tallies.totals(prefix="dead-letter/")
    origins = sorted({series.split("/")[1] for series in intake})
    return {
        **first_version(waiting=waiting, creation=creation),
        "settings": {
            "max_retries": settings.KANIKOJOBS_MAX_RETRIES,
            "retry_delay_ms": round(settings.KANIKOJOBS_RETRY_DELAY.total_seconds() * 1000),
            "direct_events": settings.KANIKOJOBS_DIRECT_EVENTS,
        },
        "kaniko_jobs": {
            "queued": waiting.queued,
            "creating": waiting.creating,
            "created": waiting.created,
            "running": waiting.running,
            "oldest_queued_at": waiting.oldest_queued_at,
        },
        "intake": {
            origin: {
                series.split("/")[2].replace("-", "_"): total.count
                for series, total in sorted(intake.items())
                if series.split("/")[1] == origin
            }
            for origin in origins
        },
        "attempts": {series.split("/")[1]: total.count for series, total in sorted(creation.items())},
        "dead_letters": {
            "open": open_dead_letters(),
            "recorded": {series.split("/")[1]: total.count for series, total in sorted(letters.items())},
        },
    }


def open_dead_letters(*, most: int = 10_000) -> int:
    """How many dead letters are open, counted up to `most`: a number for a person, not worth a long scan."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT 1 FROM kanikojobs_deadletter WHERE state = 'open' LIMIT %s) AS opened",
            [most],
        )
        return int(cursor.fetchone()[0])
