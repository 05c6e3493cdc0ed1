"""Starting, pausing, resuming and cancelling a replay run: who, why, how fast, and the record of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet

from kanikojobs import audit, claims
from kanikojobs.audit import Author
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, OperatorAction, ReplayItem, ReplayRule, ReplayRun
from kanikojobs.replay import results
from kanikojobs.replay.selection import Selection

Kind = OperatorAction.Kind
State = ReplayRun.State

FASTEST_RATE = 10_000.0  # per second
MOST_PER_BATCH = 1000


class PaceError(ValueError):
    """A pace that cannot be; the message says which part, and what to write instead."""


class NothingToReplay(Exception):
    """No open dead letter matches, or all that do wait in another run."""

    def __init__(self) -> None:
        super().__init__("No open dead letter matches that does not wait in another replay already.")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run goes: dead letters per second (None: as fast as it can), how many at most per transaction, how many
    go first as a probe, and the percentage that may fail again before it pauses by itself (None: it never does).

    Raises `PaceError`.
    """

    rate: float | None = None
    batch: int = 100
    probe: int = 0
    max_failure_rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= FASTEST_RATE:
            raise PaceError(
                f"rate: {self.rate:g}; must be above 0 and at most {FASTEST_RATE:g} per second, or left out"
            )
        if not 1 <= self.batch <= MOST_PER_BATCH:
            raise PaceError(f"batch: {self.batch}; must be from 1 to {MOST_PER_BATCH}")
        if not 0 <= self.probe < 2**31:
            raise PaceError(f"probe: {self.probe}; must be 0 (no probe) or above")
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 100:
            raise PaceError(f"max_failure_rate: {self.max_failure_rate:g}; must be from 0 to 100 percent, or left out")


def start(
    *,
    selection: Selection,
    cut_off: datetime,
    pace: Pace,
    author: Author,
    reason: str,
    limit: int | None = None,
    rule: ReplayRule | None = None,
) -> ReplayRun:
    """Put all that the selection means into a run, in the order of first arrival, and set it going.

    A dead letter that waits in another run stays there. Raises `NothingToReplay` and `audit.ReasonMissing`.
    """
    with transaction.atomic():
        run = _row(selection=selection, cut_off=cut_off, pace=pace, author=author, reason=reason, rule=rule)
        chosen, parameters = (
            selection.replayable(cut_off=cut_off).values_list("id", "arrived_at")[:limit].query.sql_with_params()
        )
        with connection.cursor() as cursor:
            # Of two that start overlapping runs, the second waits here for the first's commit, and then skips what
            # it took: the index of waiting letters decides.
            cursor.execute(
                f"""
                INSERT INTO kanikojobs_replayitem (run_id, letter_id, position)
                SELECT %s, chosen.id, row_number() OVER (ORDER BY chosen.arrived_at, chosen.id) FROM ({chosen}) chosen
                ORDER BY chosen.id
                ON CONFLICT (letter_id) WHERE outcome = 'pending' DO NOTHING
                """,  # noqa: S608 - Django's own statement, with its parameters beside it
                [run.pk, *parameters],
            )
            total = cursor.rowcount
        return _set_going(run, total=total, author=author, kind=Kind.REPLAY)


def start_mended(*, letter: DeadLetter, body: bytes, author: Author, reason: str) -> ReplayRun:
    """A run of one dead letter with another body. Raises `NothingToReplay` and `audit.ReasonMissing`."""
    selection = Selection(ids=(letter.pk,))
    with transaction.atomic():
        # Not against foreign keys: a run that is being started checks those of its letters when it commits.
        row = DeadLetter.objects.select_for_update(no_key=True).get(pk=letter.pk)
        if row.state != DeadLetter.State.OPEN:
            raise NothingToReplay
        run = _row(selection=selection, cut_off=row.first_died_at, pace=Pace(), author=author, reason=reason, rule=None)
        try:
            with transaction.atomic():
                ReplayItem.objects.create(run=run, letter=row, position=1, body=body)
        except IntegrityError:
            # The index of waiting letters: it waits in another run, perhaps since a moment ago.
            raise NothingToReplay from None
        return _set_going(run, total=1, author=author, kind=Kind.EDIT_AND_REPLAY, letter=row)


def _row(
    *, selection: Selection, cut_off: datetime, pace: Pace, author: Author, reason: str, rule: ReplayRule | None
) -> ReplayRun:
    return ReplayRun.objects.create(
        selection=selection.as_json(),
        cut_off=cut_off,
        rate=pace.rate,
        batch=pace.batch,
        probe=pace.probe,
        max_failure_rate=pace.max_failure_rate,
        author=author.user,
        author_name=author.name,
        rule=rule,
        reason=audit.checked_reason(reason),
    )


def _set_going(
    run: ReplayRun, *, total: int, author: Author, kind: OperatorAction.Kind, letter: DeadLetter | None = None
) -> ReplayRun:
    if not total:
        raise NothingToReplay
    run.total = total
    run.save(update_fields=["total"])
    detail: dict[str, Any] = {"total": total, "selection": run.selection, "run": run.pk}
    audit.record(author=author, kind=kind, reason=run.reason, target=letter or run, detail=detail)
    claims.notify()
    run.refresh_from_db()
    return run


def pause(*, run_id: int, author: Author, reason: str) -> bool:
    """Pause a run; return whether it was going. What it has handed over goes on. Raises `audit.ReasonMissing`."""
    reason = audit.checked_reason(reason)
    with transaction.atomic():
        run = _locked(run_id).filter(state__in=ReplayRun.LIVE).first()
        if run is None:
            return False
        run.state = State.PAUSED
        run.note = reason
        run.save(update_fields=["state", "note"])
        audit.record(author=author, kind=Kind.PAUSE_REPLAY, reason=reason, target=run, detail={"handled": run.handled})
    return True


def resume(*, run_id: int, author: Author, reason: str) -> bool:
    """Let a paused run go on; return whether it was paused. Raises `audit.ReasonMissing`.

    What has failed again so far is forgiven: whoever resumes has seen it, and it is not to stop the run again. A probe
    that was out when the run was paused is waited for again, unless the run was paused for having waited too long.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic():
        run = _locked(run_id).filter(state=State.PAUSED).first()
        if run is None:
            return False
        run.state = State.RUNNING
        if results.is_probe_out(run):
            results.begin_to_probe(run, at=now())
        run.note = ""
        run.forgiven_failures, run.forgiven_judged = run.failures, run.judged
        run.save(update_fields=["state", "note", "settle_until", "forgiven_failures", "forgiven_judged"])
        _make_due(run)
        audit.record(author=author, kind=Kind.RESUME_REPLAY, reason=reason, target=run, detail={"handled": run.handled})
    return True


def cancel(*, run_id: int, author: Author, reason: str) -> bool:
    """End a run; return whether it was unfinished. What waits in it is open again. Raises `audit.ReasonMissing`."""
    reason = audit.checked_reason(reason)
    with transaction.atomic():
        run = _locked(run_id).filter(state__in=ReplayRun.UNFINISHED).first()
        if run is None:
            return False
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE kanikojobs_replayitem SET outcome = 'withdrawn', at = clock_timestamp()
                WHERE run_id = %s AND outcome = 'pending'
                """,
                [run.pk],
            )
            run.withdrawn = cursor.rowcount
            cursor.execute(
                "UPDATE kanikojobs_replayrun SET state = 'cancelled', finished_at = clock_timestamp() WHERE id = %s",
                [run.pk],
            )
        run.note = reason
        run.save(update_fields=["withdrawn", "note"])
        audit.record(
            author=author,
            kind=Kind.CANCEL_REPLAY,
            reason=reason,
            target=run,
            detail={"handled": run.handled, "withdrawn": run.withdrawn},
        )
    return True


def _locked(run_id: int) -> QuerySet[ReplayRun]:
    """A step of the run holds this lock for as long as its batch takes."""
    return ReplayRun.objects.select_for_update().filter(pk=run_id)


def _make_due(run: ReplayRun) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE kanikojobs_replayrun SET next_step_at = clock_timestamp() WHERE id = %s", [run.pk])
    claims.notify()
