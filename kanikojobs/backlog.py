"""What is unfinished: how much, in which state, what it waits for, and whose it is.

Read from the index of the unfinished rows, so that its cost grows with the backlog and never with the history.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from kanikojobs.advice import ADVICE
from kanikojobs.states import State

# What a Kaniko Job waits for when no reason in its row says so.
FOR_A_WORKER, FOR_ITS_NEXT_TRY = "ForAWorker", "ForItsNextTry"
FOR_THE_ONE_BEFORE, OTHER = "ForTheOneBefore", "Other"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what is under way. `waiting` counts by (state, what it waits for)."""

    queued: int
    creating: int
    created: int
    running: int
    oldest_queued_at: datetime | None
    active: int = 0
    waiting: Mapping[tuple[str, str], int] = field(default_factory=dict)


def backlog() -> Backlog:
    """The unfinished Kaniko Jobs. `active` are those that count under the caps."""
    states: Counter[str] = Counter()
    waiting: Counter[tuple[str, str]] = Counter()
    oldest: list[datetime] = []
    kept_places = 0
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT state,
                   CASE WHEN run_at IS NOT NULL THEN %s WHEN waits_for_id IS NOT NULL THEN %s ELSE reason END AS wait,
                   count(*), min(queued_at), count(*) FILTER (WHERE may_exist)
            FROM kanikojobs_kanikojob
            WHERE state IN ('queued', 'creating', 'created', 'running') GROUP BY state, wait
            """,
            [FOR_ITS_NEXT_TRY, FOR_THE_ONE_BEFORE],
        )
        for state, wait, count, oldest_queued_at, places in cursor.fetchall():
            states[state] += count
            if state == State.QUEUED:
                oldest.append(oldest_queued_at)
                kept_places += places
                wait = wait or FOR_A_WORKER
            if wait:
                # The API server's reasons are its own: as labels of a metric they could be without end.
                known = wait in ADVICE or wait in (FOR_A_WORKER, FOR_ITS_NEXT_TRY, FOR_THE_ONE_BEFORE)
                waiting[state, wait if known else OTHER] += count
    return Backlog(
        queued=states[State.QUEUED],
        creating=states[State.CREATING],
        created=states[State.CREATED],
        running=states[State.RUNNING],
        oldest_queued_at=min(oldest, default=None),
        active=states[State.CREATING] + states[State.CREATED] + states[State.RUNNING] + kept_places,
        waiting=waiting,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """One third party's part of the backlog."""

    third_party_id: str
    queued: int
    active: int


def busiest(*, most: int = 5) -> list[Share]:
    """The third parties with the most unfinished Kaniko Jobs."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT third_party_id, count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state <> 'queued')
            FROM kanikojobs_kanikojob WHERE state IN ('queued', 'creating', 'created', 'running')
            GROUP BY third_party_id ORDER BY count(*) DESC, third_party_id LIMIT %s
            """,
            [most],
        )
        return [Share(*row) for row in cursor.fetchall()]


def open_dead_letters(*, most: int = 10_000) -> int:
    """How many dead letters are open, counted up to `most`: a number for a person, not worth a long scan."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT 1 FROM kanikojobs_deadletter WHERE state = 'open' LIMIT %s) AS opened",
            [most],
        )
        return int(cursor.fetchone()[0])
