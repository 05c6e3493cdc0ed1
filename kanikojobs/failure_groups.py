"""Groups of equal failures, kept up to date by the transactions that record, replay and discard.

Each such transaction adds to its groups' rows in one statement, so that a list of groups costs the same after a day
and after a year, and nothing is ever counted over history.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import connection, transaction

from kanikojobs import audit, transience
from kanikojobs.audit import Author
from kanikojobs.models import FailureGroup, OperatorAction


@dataclass(frozen=True, slots=True)
class Death:
    """One failure, or one that happened `times` in a row. `opened` says whether it made a new open dead letter."""

    fingerprint: str
    cause: str
    signature: str
    sample: str
    third_party_id: str
    times: int
    opened: bool


MOST_SAMPLE_CHARACTERS = 4000


def note_deaths(deaths: Sequence[Death]) -> None:
    """Add failures to their groups. Late in a transaction: it locks the groups' rows until the commit."""
    if not deaths:
        return
    last = {death.fingerprint: death for death in deaths}
    times: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    parties: dict[str, dict[str, None]] = {}
    for death in deaths:
        times[death.fingerprint] += death.times
        opened[death.fingerprint] += death.opened
        if death.third_party_id:
            parties.setdefault(death.fingerprint, {})[death.third_party_id] = None
    # One order for everybody: two that note the same groups the other way round would deadlock.
    fingerprints = sorted(last)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH died AS (
                SELECT *, string_to_array(parties, E'\\n') AS third_parties FROM unnest(
                    %(fingerprints)s::text[], %(causes)s::text[], %(signatures)s::text[], %(samples)s::text[],
                    %(classes)s::text[], %(times)s::bigint[], %(opened)s::bigint[], %(parties)s::text[]
                ) AS died (fingerprint, cause, signature, sample, transient_class, times, opened, parties)
            ), noted AS (
                INSERT INTO kanikojobs_failuregroup AS noted (
                    fingerprint, cause, signature, sample, transient_class, deaths, open_letters, third_parties,
                    more_third_parties
                )
                SELECT fingerprint, cause, signature, sample, transient_class, times, opened,
                       third_parties[:%(most)s], cardinality(third_parties) > %(most)s
                FROM died ORDER BY fingerprint
                ON CONFLICT (fingerprint) DO UPDATE SET
                    sample = excluded.sample,
                    transient_class = excluded.transient_class,
                    deaths = noted.deaths + excluded.deaths,
                    open_letters = noted.open_letters + excluded.open_letters,
                    third_parties = noted.third_parties || ARRAY (
                        SELECT new FROM unnest(excluded.third_parties) AS new
                        WHERE new <> ALL (noted.third_parties)
                        LIMIT GREATEST(0, %(most)s - cardinality(noted.third_parties))
                    ),
                    more_third_parties = noted.more_third_parties OR excluded.more_third_parties OR (
                        SELECT count(*) FROM unnest(excluded.third_parties) AS new
                        WHERE new <> ALL (noted.third_parties)
                    ) > %(most)s - cardinality(noted.third_parties),
                    last_seen_at = GREATEST(noted.last_seen_at, clock_timestamp()),
                    replayed = false,
                    state = CASE
                        WHEN noted.replayed THEN 'regressed'
                        WHEN noted.state = 'settled' THEN 'ongoing'
                        WHEN noted.state = 'new' AND noted.first_seen_at < clock_timestamp() - interval '1 day'
                        THEN 'ongoing'
                        ELSE noted.state END
                RETURNING id, fingerprint
            )
            INSERT INTO kanikojobs_failuregrouphour AS trend (group_id, hour, deaths)
            SELECT noted.id, date_trunc('hour', clock_timestamp(), 'UTC'), died.times
            FROM noted JOIN died USING (fingerprint) ORDER BY fingerprint
            ON CONFLICT (group_id, hour) DO UPDATE SET deaths = trend.deaths + excluded.deaths
            """,
            {
                "fingerprints": fingerprints,
                "causes": [last[name].cause for name in fingerprints],
                "signatures": [last[name].signature for name in fingerprints],
                "samples": [last[name].sample[:MOST_SAMPLE_CHARACTERS] for name in fingerprints],
                "classes": [
                    transience.classify(cause=last[name].cause, reason=last[name].sample) for name in fingerprints
                ],
                "times": [times[name] for name in fingerprints],
                "opened": [opened[name] for name in fingerprints],
                "parties": ["\n".join(parties.get(name, ())) for name in fingerprints],
                "most": FailureGroup.MOST_THIRD_PARTIES,
            },
        )


def note_settled(letters: Sequence[str], *, replayed: bool) -> None:
    """Take dead letters, each by its fingerprint, off what is open of their groups: replayed, or else discarded."""
    _shift({name: -count for name, count in Counter(letters).items()}, replayed=replayed)


def note_restored(letters: Sequence[str]) -> None:
    """Put discarded dead letters, each by its fingerprint, back to what is open of their groups."""
    _shift(Counter(letters), replayed=False)


def _shift(by: dict[str, int], *, replayed: bool) -> None:
    if not by:
        return
    fingerprints = sorted(by)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH locked AS (
                SELECT id, shift FROM kanikojobs_failuregroup
                JOIN unnest(%(fingerprints)s::text[], %(shifts)s::bigint[]) AS shifted (fingerprint, shift)
                USING (fingerprint)
                ORDER BY fingerprint FOR UPDATE OF kanikojobs_failuregroup
            )
            UPDATE kanikojobs_failuregroup noted SET
                open_letters = GREATEST(0, noted.open_letters + locked.shift),
                replayed = noted.replayed OR %(replayed)s,
                replayed_at = CASE WHEN %(replayed)s THEN clock_timestamp() ELSE noted.replayed_at END,
                state = CASE
                    WHEN noted.open_letters + locked.shift <= 0 THEN 'settled'
                    WHEN noted.state = 'settled' THEN 'ongoing'
                    ELSE noted.state END
            FROM locked WHERE noted.id = locked.id
            """,
            {"fingerprints": fingerprints, "shifts": [by[name] for name in fingerprints], "replayed": replayed},
        )


def take_note(group: FailureGroup, *, note: str, assignee: User | None, author: Author, reason: str) -> FailureGroup:
    """Write down what a person knows of a group, and who looks after it: it is new no longer.

    Raises `audit.ReasonMissing`.
    """
    with transaction.atomic():
        row = FailureGroup.objects.select_for_update().get(pk=group.pk)
        row.note, row.assignee = note, assignee
        if row.state == FailureGroup.State.NEW:
            row.state = FailureGroup.State.ONGOING
        row.save(update_fields=["note", "assignee", "state"])
        audit.record(
            author=author,
            kind=OperatorAction.Kind.NOTE_GROUP,
            reason=reason,
            target=row,
            detail={"note": note, "assignee": assignee.get_username() if assignee else ""},
        )
    return row
