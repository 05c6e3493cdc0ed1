"""One batch after the other: the rows of a stretch of ids that may go are locked, looked at again, and deleted.

Locked first and then looked at again, because what makes an event needed is in other tables: a foreign key locks the
event of whoever adds to those, so a second look, whose snapshot is newer than our lock, sees all that will ever be.
What somebody else has locked is passed over, and goes the next day.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction

from kanikojobs import tallies
from kanikojobs.models import PruneRun
from kanikojobs.retention.ages import limits
from kanikojobs.retention.kinds import KINDS, Along, Emptied, Kind

log = structlog.get_logger(__name__)

# Rows that one transaction looks at: few enough that whoever waits for one of them waits for some milliseconds.
BATCH = 250
# How much of the time is spent on pruning, in percent; the rest belongs to the work.
SHARE = 10.0
# For how long a worker of the cluster does it at a time.
TASK_SECONDS = 5.0
# Without a batch for so long, whoever was at it has ended.
AT_WORK = timedelta(minutes=5)
# Without a row of one that is going on: somebody else is in the middle of a batch.
ELSEWHERE_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction has removed, by kind, which kind it was at, and whether the run is finished with it."""

    kind: str
    removed: Mapping[str, int]
    finished: bool = False


def plan() -> dict[str, int]:
    """How many rows of each kind a run would remove now. Reads whole tables, and locks nothing."""
    counts: Counter[str] = Counter()
    moments = limits()
    with connection.cursor() as cursor:
        for kind in KINDS.values():
            cursor.execute(f"SELECT count(*) FROM {kind.table} it WHERE {kind.goes}", moments)  # noqa: S608 - of `kinds`
            counts[kind.name] += cursor.fetchone()[0]
            for also in kind.along:
                cursor.execute(_count_along(kind, also), moments)
                counts[also.kind] += cursor.fetchone()[0]
    return dict(counts)


def _count_along(kind: Kind, also: Along) -> str:
    """How many go along, without those that go by themselves before that."""
    gone = f"SELECT it.id FROM {kind.table} it WHERE {kind.goes}"  # noqa: S608 - of `kinds`
    if also.of_jobs:
        gone = f"SELECT id FROM kanikojobs_kanikojob WHERE event_id IN ({gone})"  # noqa: S608
    earlier = " OR ".join(f"({other.goes})" for other in KINDS.values() if other.table == also.table) or "false"
    if also.table == "kanikojobs_replayitem" and kind.name != "dead-letters":
        # They have gone with their dead letters.
        earlier = f"it.letter_id IN (SELECT it.id FROM kanikojobs_deadletter it WHERE {KINDS['dead-letters'].goes})"  # noqa: S608
    return f"SELECT count(*) FROM {also.table} it WHERE {also.column} IN ({gone}) AND ({earlier}) IS NOT TRUE"  # noqa: S608


def begin() -> PruneRun:
    """The run that is going on, or was when its process ended; else a new one."""
    # Of two that begin one at once, the constraint lets one be.
    PruneRun.objects.bulk_create([PruneRun()], ignore_conflicts=True)
    return PruneRun.objects.get(ongoing=True)


def is_at_work(run: PruneRun) -> bool:
    """Whether somebody has done a batch of it lately."""
    return run.last_batch_at is not None and datetime.now(UTC) - run.last_batch_at < AT_WORK


def prune(
    *,
    share: float = SHARE,
    seconds: float | None = None,
    on_batch: Callable[[Batch], None] = lambda batch: None,
) -> bool:
    """Go on with the run that `begin` has given until it is finished; return whether it is.

    `seconds` is for how long at most, `share` the percent of the time that is spent on it.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        started = time.monotonic()
        batch = _next_batch()
        if batch is None:
            if not PruneRun.objects.filter(ongoing=True).exists():
                return True
            time.sleep(ELSEWHERE_PAUSE)
            continue
        on_batch(batch)
        if batch.finished:
            return True
        time.sleep((time.monotonic() - started) * (100 / share - 1))
    return False


def _next_batch() -> Batch | None:
    """Do one batch of the run that is going on; None if there is none, or somebody else is in the middle of one."""
    with transaction.atomic():
        run = PruneRun.objects.select_for_update(skip_locked=True).filter(ongoing=True).first()
        if run is None:
            return None
        removed, last = Counter[str](), None
        for kind in _from(run.kind):
            removed, last = _remove(kind, after=run.after)
            if last is not None:
                break
            # Nothing old is left of it.
            run.after = 0
        run.kind, run.after, run.ongoing = kind.name, last or 0, last is not None
        run.removed = dict(Counter(run.removed) + removed)
        run.last_batch_at = datetime.now(UTC)
        run.finished_at = None if run.ongoing else run.last_batch_at
        run.save(update_fields=["kind", "after", "ongoing", "removed", "last_batch_at", "finished_at"])
        tallies.add(tallies.counts({f"pruned/{name}": count for name, count in removed.items()}))
    if not run.ongoing:
        log.info("pruned", run=run.pk, **run.removed)
    return Batch(kind=kind.name, removed=removed, finished=not run.ongoing)


def _from(name: str) -> list[Kind]:
    """The kinds from this one on; all of them at the beginning, and for the run of a version that had others."""
    names = list(KINDS)
    return [KINDS[name] for name in names[names.index(name) if name in names else 0 :]]


def _remove(kind: Kind, *, after: int) -> tuple[Counter[str], int | None]:
    """Remove what may go of the next rows; return how many of each kind, and the last id that was looked at.

    That is None when nothing behind can be old enough.
    """
    moments: dict[str, Any] = {**limits(), "after": after, "batch": BATCH}
    removed: Counter[str] = Counter()
    with connection.cursor() as cursor:
        # By the indexes that are there for it: without statistics the planner may believe that a table is small.
        cursor.execute("SELECT set_config('enable_seqscan', 'off', true)")
        cursor.execute(
            f"""
            WITH stretch AS MATERIALIZED (
                SELECT id, {kind.born} AS born FROM {kind.table} it WHERE id > %(after)s ORDER BY id LIMIT %(batch)s
            ), locked AS (
                SELECT id FROM {kind.table} it WHERE id = ANY (ARRAY(SELECT id FROM stretch)) AND {kind.goes}
                FOR UPDATE SKIP LOCKED
            )
            SELECT max(id), min(born) >= %({kind.kept})s::timestamptz, ARRAY(SELECT id FROM locked) FROM stretch
            """,  # noqa: S608 - of `kinds`
            moments,
        )
        last, all_young, locked = cursor.fetchone()
        if last is None or all_young:
            return removed, None
        if not locked:
            return removed, last
        cursor.execute(
            f"SELECT id FROM {kind.table} it WHERE id = ANY (%(locked)s) AND {kind.goes}",  # noqa: S608 - of `kinds`
            {**moments, "locked": locked},
        )
        ids = {"ids": [row[0] for row in cursor.fetchall()]}
        for emptied in kind.emptied:
            cursor.execute(
                f"UPDATE {emptied.table} SET {emptied.column} = NULL WHERE {_points_to(emptied)}",  # noqa: S608
                ids,
            )
        for also in kind.along:
            cursor.execute(f"DELETE FROM {also.table} WHERE {_points_to(also)}", ids)  # noqa: S608
            removed[also.kind] += cursor.rowcount
        cursor.execute(f"DELETE FROM {kind.table} WHERE id = ANY (%(ids)s)", ids)  # noqa: S608
        removed[kind.name] += cursor.rowcount
    return +removed, last


def _points_to(reference: Along | Emptied) -> str:
    if reference.of_jobs:
        jobs = "ARRAY(SELECT id FROM kanikojobs_kanikojob WHERE event_id = ANY (%(ids)s))"
        return f"{reference.column} = ANY ({jobs})"
    return f"{reference.column} = ANY (%(ids)s)"
