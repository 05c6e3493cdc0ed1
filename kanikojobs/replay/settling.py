"""Dead letters that need nobody any more: what they ask for is queued, being built or built.

Whoever makes an event's next Kaniko Job settles its dead letters in the same transaction, be it a replay or a person
who retries by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from kanikojobs import failure_groups
from kanikojobs.models import DeadLetter
from kanikojobs.replay.forecast import ABOUT_A_KANIKO_JOB


@dataclass(frozen=True, slots=True)
class Settled:
    """A dead letter, and what it was replayed as: an event, and a Kaniko Job of it where there is one."""

    letter_id: int
    event_id: int | None
    kaniko_job_id: int | None


def locked_letters(*, event_id: int) -> list[int]:
    """The open dead letters of an event's failed Kaniko Jobs, locked until the transaction ends.

    Before its next Kaniko Job is made: a replay locks the letters first, too, and then makes it.
    """
    letters = DeadLetter.objects.filter(event=event_id, state=DeadLetter.State.OPEN, cause__in=ABOUT_A_KANIKO_JOB)
    return list(letters.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))


def settle(letters: Sequence[Settled]) -> None:
    """Mark dead letters as replayed, and take them off what is open of their groups. They are locked by now."""
    if not letters:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_deadletter letter SET
                state = 'replayed', replayed_as_id = settled.event_id, replayed_as_job_id = settled.kaniko_job_id,
                settled_at = clock_timestamp()
            FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS settled (id, event_id, kaniko_job_id)
            WHERE letter.id = settled.id AND letter.state = 'open'
            RETURNING letter.fingerprint
            """,
            [
                [letter.letter_id for letter in letters],
                [letter.event_id for letter in letters],
                [letter.kaniko_job_id for letter in letters],
            ],
        )
        fingerprints = [row[0] for row in cursor.fetchall()]
    failure_groups.note_settled(fingerprints, replayed=True)
