"""Standing orders: what died of passing trouble is replayed by a rule that a person made.

A rule waits its delay, so that the trouble can pass, goes at its rate, stops when too much fails again, and lets go of
an event after so many Kaniko Jobs. Each time it finds something it starts a run, on record like any other.
"""

from datetime import timedelta

from django.db import connection, transaction

from kanikojobs import audit
from kanikojobs.audit import Author
from kanikojobs.database_time import now
from kanikojobs.models import OperatorAction, ReplayRule, ReplayRun
from kanikojobs.replay import runs
from kanikojobs.replay.runs import NothingToReplay, Pace
from kanikojobs.replay.selection import Selection

# How often a rule looks for what has become due, in seconds, whatever its delay.
LOOKS_EVERY = 15.0
# What a rule may ask for: dead letters per second, and Kaniko Jobs per event.
SLOWEST_RATE, FASTEST_RATE = 0.001, 1000.0
FEWEST_TIMES, MOST_TIMES = 2, 100


def claim_due() -> list[int]:
    """The ids of the enabled rules whose next look is due; each is due again a while later."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_replayrule SET next_look_at = clock_timestamp() + make_interval(secs => %s)
            WHERE id IN (
                SELECT id FROM kanikojobs_replayrule
                WHERE enabled AND next_look_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
            ) RETURNING id
            """,
            [LOOKS_EVERY],
        )
        return [row[0] for row in cursor.fetchall()]


def apply(rule_id: int) -> ReplayRun | None:
    """Start a run of all that is due by a rule; None if nothing is, or if its last run is not over."""
    with transaction.atomic():
        rule = ReplayRule.objects.select_for_update().filter(pk=rule_id, enabled=True).first()
        if rule is None or rule.runs.filter(state__in=ReplayRun.UNFINISHED).exists():
            return None
        moment = now()
        try:
            return runs.start(
                selection=Selection(
                    transient_class=rule.transient_class,
                    # One that is replayed gets the next number.
                    most_number=rule.most_times - 1,
                    died_until=moment - timedelta(seconds=rule.delay),
                ),
                cut_off=moment,
                pace=Pace(rate=rule.rate, max_failure_rate=rule.max_failure_rate),
                author=Author(f"rule: {rule.name}"[:150], OperatorAction.Via.RULE),
                reason=rule.reason,
                rule=rule,
            )
        except NothingToReplay:
            return None


def save(rule: ReplayRule, *, author: Author) -> None:
    """Write a rule down, with a record of who did and of all that it says.

    Raises `audit.ReasonMissing`, and `IntegrityError` for a name that is taken.
    """
    rule.reason = audit.checked_reason(rule.reason)
    rule.made_by = author.name
    with transaction.atomic():
        rule.save()
        audit.record(
            author=author,
            kind=OperatorAction.Kind.CHANGE_RULE,
            reason=rule.reason,
            target=rule,
            outcome="enabled" if rule.enabled else "disabled",
            detail={
                name: getattr(rule, name)
                for name in ("name", "transient_class", "delay", "rate", "max_failure_rate", "most_times")
            },
        )


def switch_off(*, rule_id: int, author: Author, reason: str) -> bool:
    """Switch a rule off; return whether it was on. A run that it has started goes on. Raises `audit.ReasonMissing`."""
    reason = audit.checked_reason(reason)
    with transaction.atomic():
        rule = ReplayRule.objects.select_for_update().filter(pk=rule_id, enabled=True).first()
        if rule is None:
            return False
        rule.enabled = False
        rule.reason = reason
        save(rule, author=author)
    return True
