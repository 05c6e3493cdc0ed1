"""Which dead letters are meant: the filter that admin, REST and command share."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware

from kanikojobs.models import DeadLetter, FailureGroup, ReplayItem
from kanikojobs.transience import TransientClass

MOST_IDS = 10_000
_FINGERPRINT_LENGTH = 64

# What a rule has tried and was refused, or what a person has taken from a rule's run: it would come back every time.
_LEFT_TO_A_PERSON = ReplayItem.objects.filter(
    letter=OuterRef("pk"),
    run__rule__isnull=False,
    outcome__in=[
        ReplayItem.Outcome.INVALID,
        ReplayItem.Outcome.NOT_OURS,
        ReplayItem.Outcome.CONFLICT,
        ReplayItem.Outcome.WITHDRAWN,
    ],
)


class SelectionError(ValueError):
    """A filter that means nothing; the message says which part, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that must all hold; with none it means every dead letter. Times are those of the first death."""

    ids: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    reason: str = ""
    third_party_id: str = ""
    parser_id: str = ""
    died_from: datetime | None = None
    died_until: datetime | None = None
    # These two are the rules': passing trouble, and Kaniko Jobs per event up to this number, without what a rule has
    # tried in vain.
    transient_class: str = ""
    most_number: int | None = None

    def letters(self) -> QuerySet[DeadLetter]:
        """The dead letters, in whatever state."""
        letters = DeadLetter.objects.all()
        if self.ids:
            letters = letters.filter(pk__in=self.ids)
        if self.groups:
            letters = letters.filter(fingerprint__in=self.groups)
        if self.causes:
            letters = letters.filter(cause__in=self.causes)
        if self.reason:
            # As a Kaniko Job has it: the CamelCase word before the colon.
            letters = letters.filter(reason__startswith=f"{self.reason}:")
        if self.third_party_id:
            letters = letters.filter(third_party_id=self.third_party_id)
        if self.parser_id:
            letters = letters.filter(parser_id=self.parser_id)
        if self.died_from:
            letters = letters.filter(first_died_at__gte=self.died_from)
        if self.died_until:
            letters = letters.filter(first_died_at__lt=self.died_until)
        if self.transient_class:
            groups = FailureGroup.objects.filter(transient_class=self.transient_class)
            letters = letters.filter(fingerprint__in=groups.values("fingerprint"))
        if self.most_number is not None:
            # Letters that are about no Kaniko Job have no number.
            letters = letters.exclude(kaniko_job__number__gt=self.most_number).filter(~Exists(_LEFT_TO_A_PERSON))
        return letters

    def replayable(self, *, cut_off: datetime) -> QuerySet[DeadLetter]:
        """Those that a run started now would take, in the order of first arrival.

        Open, dead before the cut-off, and not waiting in another run.
        """
        waiting = ReplayItem.objects.filter(letter=OuterRef("pk"), outcome=ReplayItem.Outcome.PENDING)
        return (
            self.letters()
            .filter(~Exists(waiting), state=DeadLetter.State.OPEN, first_died_at__lte=cut_off)
            .order_by("arrived_at", "id")
        )

    def as_json(self) -> dict[str, Any]:
        """What `parse` reads again: only the conditions that are there."""
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in ((), "", None):
                found[field.name] = value.isoformat() if isinstance(value, datetime) else value
        return found

    def __str__(self) -> str:
        """In words, for a person."""
        parts = {
            "dead letters": f"{len(self.ids)} chosen" if len(self.ids) > 5 else ", ".join(map(str, self.ids)),
            "group": ", ".join(name[:12] for name in self.groups),
            "cause": ", ".join(self.causes),
            "reason": self.reason,
            "third party": self.third_party_id,
            "parser": self.parser_id,
            "dead since": f"{self.died_from:%Y-%m-%d %H:%M:%S %Z}" if self.died_from else "",
            "dead before": f"{self.died_until:%Y-%m-%d %H:%M:%S %Z}" if self.died_until else "",
            "passing trouble": self.transient_class,
            "Kaniko Jobs so far at most": str(self.most_number or ""),
        }
        return "; ".join(f"{name}: {value}" for name, value in parts.items() if value) or "all open dead letters"


def parse(given: Mapping[str, Any]) -> Selection:
    """A selection from JSON or from a form. Raises `SelectionError`."""
    known = {field.name for field in fields(Selection)}
    if unknown := sorted(set(given) - known):
        raise SelectionError(f"{unknown[0]}: no such condition; there are {', '.join(sorted(known))}")
    return Selection(
        ids=_ids(given.get("ids")),
        groups=tuple(_group(name) for name in _texts("groups", given.get("groups"))),
        causes=tuple(
            _one_of("causes", cause, DeadLetter.Cause.values) for cause in _texts("causes", given.get("causes"))
        ),
        reason=_text("reason", given.get("reason")),
        third_party_id=_text("third_party_id", given.get("third_party_id")),
        parser_id=_text("parser_id", given.get("parser_id")),
        died_from=_time("died_from", given.get("died_from")),
        died_until=_time("died_until", given.get("died_until")),
        transient_class=_one_of("transient_class", given.get("transient_class") or "", ["", *TransientClass.values]),
        most_number=_number("most_number", given.get("most_number")),
    )


def _ids(value: Any) -> tuple[int, ...]:
    ids = tuple(_number("ids", item) or 0 for item in _list("ids", value))
    if len(ids) > MOST_IDS:
        raise SelectionError(f"ids: {len(ids)} ids; at most {MOST_IDS}, or choose by group, cause or time")
    return tuple(dict.fromkeys(ids))


def _list(name: str, value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value]


def _texts(name: str, value: Any) -> list[str]:
    return [_text(name, item) for item in _list(name, value)]


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 256 or "\0" in value:
        raise SelectionError(f"{name}: must be a string of at most 256 characters")
    return value.strip()


def _group(name: str) -> str:
    if len(name) != _FINGERPRINT_LENGTH:
        raise SelectionError(
            f"groups: {name[:64]!r} is no fingerprint; it has {_FINGERPRINT_LENGTH} hexadecimal digits"
        )
    return name


def _one_of(name: str, value: str, known: list[str]) -> str:
    if value not in known:
        raise SelectionError(f"{name}: {value[:64]!r} is not one of {', '.join(filter(None, known))}")
    return value


def _number(name: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 < number < 2**63:
        raise SelectionError(f"{name}: {str(value)[:64]!r} is not a whole number above 0")
    return number


def _time(name: str, value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = value if isinstance(value, datetime) else parse_datetime(str(value))
    except ValueError:
        moment = None
    if moment is None or not is_aware(moment):
        raise SelectionError(f"{name}: {str(value)[:64]!r} is not a time with an offset, such as 2026-01-31T14:00:00Z")
    return moment
