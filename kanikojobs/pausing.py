"""Pausing the consumer: an operator stops it from taking messages, which then wait in RabbitMQ, and says why.

For a migration, a flood of bad events, or a cluster under repair. HTTP callers are not held back: they have nobody to
keep their events meanwhile. The record of who paused and resumed is also the state.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.contrib.auth.models import AbstractBaseUser as User
from django.db import connection, transaction

from kanikojobs.models import OperatorAction

log = structlog.get_logger(__name__)

Kind = OperatorAction.Kind
_KINDS = (Kind.PAUSE_CONSUMER, Kind.RESUME_CONSUMER)
MOST_CHARACTERS = 500

# Keys of PostgreSQL advisory locks are numbers; this one is "kjp" in ASCII.
PAUSE_LOCK = 0x6B6A70


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether consuming is paused, and who said so last; nobody if it was never paused."""

    paused: bool
    by: str = ""
    reason: str = ""
    at: datetime | None = None


class ReasonMissing(ValueError):
    """Pausing and resuming ask for a reason of 1 to `MOST_CHARACTERS` characters."""

    def __init__(self) -> None:
        super().__init__(f"Say why, in 1 to {MOST_CHARACTERS} characters.")


def pause(*, by: str | User, reason: str, via: OperatorAction.Via) -> bool:
    """Pause consuming; return whether it ran before. Consumers stop within about a second. Raises `ReasonMissing`."""
    return _switch(to=Kind.PAUSE_CONSUMER, by=by, reason=reason, via=via)


def resume(*, by: str | User, reason: str, via: OperatorAction.Via) -> bool:
    """Resume consuming; return whether it was paused before. Raises `ReasonMissing`."""
    return _switch(to=Kind.RESUME_CONSUMER, by=by, reason=reason, via=via)


def current() -> Pause:
    """The pause as it is now. Costs the same however often it was switched."""
    last = OperatorAction.objects.filter(kind__in=_KINDS).order_by("-id").first()
    if last is None:
        return Pause(paused=False)
    return Pause(paused=last.kind == Kind.PAUSE_CONSUMER, by=last.by, reason=last.reason, at=last.at)


def _switch(*, to: OperatorAction.Kind, by: str | User, reason: str, via: OperatorAction.Via) -> bool:
    reason = reason.strip()
    if not 0 < len(reason) <= MOST_CHARACTERS or "\0" in reason:
        raise ReasonMissing
    with transaction.atomic():
        # Two who pause at once: the second finds it done, and the record has one row.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PAUSE_LOCK])
        if current().paused == (to == Kind.PAUSE_CONSUMER):
            return False
        name, user = (by, None) if isinstance(by, str) else (by.get_username(), by)
        OperatorAction.objects.create(kind=to, by=name, user=user, via=via, reason=reason)
    log.warning(str(to), by=name, via=str(via), reason=reason)
    return True
