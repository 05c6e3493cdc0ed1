"""Who acts, and the record of it: written in the transaction of the action, so that neither is without the other."""

import getpass
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model

from kanikojobs.models import OperatorAction

MOST_REASON_CHARACTERS = 500


class ReasonMissing(ValueError):
    """Whoever acts says why, in 1 to `MOST_REASON_CHARACTERS` characters."""

    def __init__(self) -> None:
        super().__init__(f"Say why, in 1 to {MOST_REASON_CHARACTERS} characters.")


@dataclass(frozen=True, slots=True)
class Author:
    """A person, by which way they act, or a rule that a person made. `user` is empty for who has no account."""

    name: str
    via: OperatorAction.Via
    user: User | None = None


def by_user(user: Any, *, via: OperatorAction.Via) -> Author:
    return Author(name=user.get_username()[:150], via=via, user=user)


def checked_reason(reason: str) -> str:
    """The reason without blanks around it. Raises `ReasonMissing`."""
    reason = reason.strip()
    if not 0 < len(reason) <= MOST_REASON_CHARACTERS or "\0" in reason:
        raise ReasonMissing
    return reason


def record(
    *,
    author: Author,
    kind: OperatorAction.Kind,
    reason: str,
    target: Model | None = None,
    outcome: str = "done",
    detail: dict[str, Any] | None = None,
) -> OperatorAction:
    """Write down what was done, to one row or to the system. Raises `ReasonMissing`."""
    return OperatorAction.objects.create(
        kind=kind,
        by=author.name,
        user=author.user,
        via=author.via,
        reason=checked_reason(reason),
        target_type=str(target._meta.model_name) if target is not None else "",
        target_id=str(target.pk) if target is not None else "",
        outcome=outcome,
        detail=detail or {},
    )


def at_the_command_line() -> Author:
    """Who the operating system says is asking. A container's user need not have a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Author(name=name[:150], via=OperatorAction.Via.COMMAND)
