"""Dead letters that nobody is to replay: discarded with a reason, and restored when that was wrong. None is deleted."""

from dataclasses import dataclass

from django.db import IntegrityError, connection, transaction

from kanikojobs import audit, failure_groups
from kanikojobs.audit import Author
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, OperatorAction
from kanikojobs.replay.selection import Selection

Kind = OperatorAction.Kind
State = DeadLetter.State


@dataclass(frozen=True, slots=True)
class Disposal:
    """How many were discarded or restored, and how many that were meant were not."""

    done: int
    left: int = 0


def discard(*, selection: Selection, author: Author, reason: str) -> Disposal:
    """Discard all open dead letters that are meant, in one transaction. Raises `audit.ReasonMissing`."""
    return _move(selection=selection, to=State.DISCARDED, author=author, reason=reason)


def restore(*, selection: Selection, author: Author, reason: str) -> Disposal:
    """Open discarded dead letters again, but for those whose message has died anew meanwhile and is open already.

    Raises `audit.ReasonMissing`.
    """
    try:
        return _move(selection=selection, to=State.OPEN, author=author, reason=reason)
    except IntegrityError:
        # One has died anew between the look and the update. It is open now, so the second look leaves its twin.
        return _move(selection=selection, to=State.OPEN, author=author, reason=reason)


def _move(*, selection: Selection, to: DeadLetter.State, author: Author, reason: str) -> Disposal:
    reason = audit.checked_reason(reason)
    discarding = to == State.DISCARDED
    meant = selection.letters().filter(state=State.OPEN if discarding else State.DISCARDED, first_died_at__lte=now())
    with transaction.atomic():
        ids = list(meant.select_for_update().order_by("pk").values_list("pk", flat=True))
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE kanikojobs_deadletter letter SET
                    state = %(to)s, settled_at = CASE WHEN %(to)s = 'discarded' THEN clock_timestamp() END
                WHERE id = ANY (%(ids)s) AND (
                    %(to)s = 'discarded' OR kaniko_job_id IS NOT NULL OR (
                        NOT EXISTS (
                            SELECT FROM kanikojobs_deadletter again
                            WHERE again.message_hash = letter.message_hash AND again.cause = letter.cause
                              AND again.origin = letter.origin AND again.state = 'open' AND again.kaniko_job_id IS NULL
                        ) AND NOT EXISTS (
                            -- Of two equal ones that were discarded one after the other, the last is restored.
                            SELECT FROM kanikojobs_deadletter twin
                            WHERE twin.message_hash = letter.message_hash AND twin.cause = letter.cause
                              AND twin.origin = letter.origin AND twin.id = ANY (%(ids)s) AND twin.id > letter.id
                        )
                    )
                )
                RETURNING fingerprint
                """,
                {"to": str(to), "ids": ids},
            )
            fingerprints = [row[0] for row in cursor.fetchall()]
        if discarding:
            failure_groups.note_settled(fingerprints, replayed=False)
        else:
            failure_groups.note_restored(fingerprints)
        if ids:
            one = DeadLetter(pk=ids[0]) if len(ids) == 1 else None
            audit.record(
                author=author,
                kind=Kind.DISCARD if discarding else Kind.RESTORE,
                reason=reason,
                target=one,
                detail={"selection": selection.as_json(), "done": len(fingerprints), "ids": ids[:100]},
            )
    return Disposal(done=len(fingerprints), left=len(ids) - len(fingerprints))
