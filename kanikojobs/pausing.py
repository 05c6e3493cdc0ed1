"""Pausing the consumer: an operator stops it from taking messages, which then wait in RabbitMQ, and says why.

For a migration, a flood of bad events, or a cluster under repair. HTTP callers are not held back: they have nobody to
keep their events meanwhile. The record of who paused and resumed is also the state.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection, transaction

from kanikojobs import audit
from kanikojobs.audit import Author, checked_reason
from kanikojobs.models import OperatorAction

log = structlog.get_logger(__name__)

Kind = OperatorAction.Kind
_KINDS = (Kind.PAUSE_CONSUMER, Kind.RESUME_CONSUMER)

# Keys of PostgreSQL advisory locks are numbers; this one is "kjp" in ASCII.
PAUSE_LOCK = 0x6B6A70


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether consuming is paused, and who said so last; nobody if it was never paused."""

    paused: bool
    by: str = ""
    reason: str = ""
    at: datetime | None = None


def pause(*, author: Author, reason: str) -> bool:
    """Pause consuming; return whether it ran before. Consumers stop within about a second.

    Raises `audit.ReasonMissing`.
    """
    return _switch(to=Kind.PAUSE_CONSUMER, author=author, reason=reason)


def resume(*, author: Author, reason: str) -> bool:
    """Resume consuming; return whether it was paused before. Raises `audit.ReasonMissing`."""
    return _switch(to=Kind.RESUME_CONSUMER, author=author, reason=reason)


def current() -> Pause:
    """The pause as it is now. Costs the same however often it was switched."""
    last = OperatorAction.objects.filter(kind__in=_KINDS).order_by("-id").first()
    if last is None:
        return Pause(paused=False)
    return Pause(paused=last.kind == Kind.PAUSE_CONSUMER, by=last.by, reason=last.reason, at=last.at)


def _switch(*, to: OperatorAction.Kind, author: Author, reason: str) -> bool:
    reason = checked_reason(reason)
    with transaction.atomic():
        # Two who pause at once: the second finds it done, and the record has one row.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PAUSE_LOCK])
        if current().paused == (to == Kind.PAUSE_CONSUMER):
            return False
        audit.record(author=author, kind=to, reason=reason)
    log.warning(str(to), by=author.name, via=str(author.via), reason=reason)
    return True
