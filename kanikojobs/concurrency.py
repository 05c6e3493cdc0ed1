"""One parser at a time: what becomes of a Kaniko Job while another of the same third party and parser is unfinished.

The words are those of Kubernetes' CronJob, and a fourth. Queue (the default): they run one after the other, in the
order of arrival. Allow: all run. Forbid: the later one is skipped. Replace: the earlier ones are cancelled. Decided
once for each row, by the claim that first meets it, under the claims' lock; so however many clusters there are, a
decision is never made twice, and a row that waits costs a claim nothing.
"""

from django.conf import settings
from django.db import connection

from kanikojobs import lines, tallies
from kanikojobs.models import KanikoJob, Move
from kanikojobs.states import State

FORBIDDEN, REPLACED = "ConcurrencyForbidden", "ConcurrencyReplaced"
REPLACING = "Replacing"

# More than arrive between two claims at full speed.
MOST_AT_ONCE = 2000


def line_up() -> int:
    """Give new rows their place, in the order of arrival; return how many. Call it in a claim's transaction."""
    if not _somebody_is_new():
        return 0
    if settings.KANIKOJOBS_CONCURRENCY_POLICY == "Allow":
        return _let_all_run()
    lines.lock()
    behind, count = _stand_in_line()
    if behind and settings.KANIKOJOBS_CONCURRENCY_POLICY == "Forbid":
        _skip(behind)
    elif behind and settings.KANIKOJOBS_CONCURRENCY_POLICY == "Replace":
        _replace_those_before(behind)
    return count


def _somebody_is_new() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM kanikojobs_kanikojob WHERE state = 'queued' AND place IS NULL LIMIT 1")
        return cursor.fetchone() is not None


def _let_all_run() -> int:
    """Place 0 is outside every line."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob SET place = 0 WHERE id IN (
                SELECT id FROM kanikojobs_kanikojob WHERE state = 'queued' AND place IS NULL
                ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
            )
            """,
            [MOST_AT_ONCE],
        )
        return cursor.rowcount


def _stand_in_line() -> tuple[dict[int, int], int]:
    """Put new rows at the ends of their lines; return whom each that has somebody before it waits for, and how many
    there were."""
    with connection.cursor() as cursor:
        # The end of the line is looked up for each row and not once for each line: that needs no join of the new rows
        # with themselves, which a planner that expects one row, and finds two thousand, does row by row.
        cursor.execute(
            """
            WITH fresh AS (
                SELECT id, third_party_id, parser_id FROM kanikojobs_kanikojob
                WHERE state = 'queued' AND place IS NULL ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
            ), lined AS (
                SELECT fresh.id, COALESCE(lag(fresh.id) OVER line, last.id) AS waits_for_id,
                       COALESCE(last.place, 0) + row_number() OVER line AS place
                FROM fresh LEFT JOIN LATERAL (
                    SELECT id, place FROM kanikojobs_kanikojob job
                    WHERE job.third_party_id = fresh.third_party_id AND job.parser_id = fresh.parser_id
                      AND place > 0 AND state IN ('queued', 'creating', 'created', 'running')
                    ORDER BY place DESC LIMIT 1
                ) last ON true
                WINDOW line AS (PARTITION BY third_party_id, parser_id ORDER BY fresh.id)
            )
            UPDATE kanikojobs_kanikojob job SET place = lined.place, waits_for_id = lined.waits_for_id
            FROM lined WHERE job.id = lined.id
            RETURNING job.id, job.waits_for_id
            """,
            [MOST_AT_ONCE],
        )
        rows = cursor.fetchall()
    return {id: before for id, before in rows if before is not None}, len(rows)


def _skip(behind: dict[int, int]) -> None:
    # One that is behind another that is skipped too is skipped for the head of the line.
    behind = {id: _head(before, behind=behind) for id, before in behind.items()}
    names = dict(KanikoJob.objects.filter(id__in=set(behind.values())).values_list("id", "name"))
    moves = [
        Move(
            id=id,
            to=State.CANCELLED,
            reason=FORBIDDEN,
            message=f"Skipped: {names[before]} of the same parser was unfinished.",
        )
        for id, before in behind.items()
    ]
    moved = KanikoJob.objects.move(moves)
    tallies.add(tallies.counts({f"finished/cancelled/{FORBIDDEN}": len(moved)}))


def _head(id: int, *, behind: dict[int, int]) -> int:
    while id in behind:
        id = behind[id]
    return id


def _replace_those_before(behind: dict[int, int]) -> None:
    """Of each line only the last stays. Those before it that have no Job are cancelled here, the others by the watcher.

    Rows that somebody else is moving now are passed over: whoever moves them may wait for our lock.
    """
    for last in KanikoJob.objects.filter(id__in=set(behind) - set(behind.values())):
        earlier = (
            KanikoJob.objects.filter(third_party_id=last.third_party_id, parser_id=last.parser_id)
            .filter(state=State.QUEUED, may_exist=False, place__gt=0, place__lt=last.place)
            .select_for_update(no_key=True, skip_locked=True)
        )
        told = f"Replaced by {last.name}, a newer one of the same parser."
        moved = KanikoJob.objects.move(
            [Move(id=job.pk, to=State.CANCELLED, reason=REPLACED, message=told) for job in earlier]
        )
        tallies.add(tallies.counts({f"finished/cancelled/{REPLACED}": len(moved)}))


def replace_active() -> int:
    """With `Replace`, have those cancelled that are in the cluster and that a newer one waits for; return how many."""
    if settings.KANIKOJOBS_CONCURRENCY_POLICY != "Replace":
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob job SET
                cancel_requested_at = clock_timestamp(), reason = %s,
                message = 'Replaced by ' || newer.name || ', a newer one of the same parser.'
            FROM kanikojobs_kanikojob newer
            WHERE newer.waits_for_id IS NOT NULL AND job.id = newer.waits_for_id AND job.cancel_requested_at IS NULL
              AND (job.state IN ('created', 'running') OR (job.state = 'queued' AND job.may_exist))
            """,
            [REPLACING],
        )
        return cursor.rowcount
