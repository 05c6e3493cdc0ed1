"""The filters of `manage.py replay_dlq` as a selection."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime, parse_time

from kanikojobs.models import DeadLetter, FailureGroup
from kanikojobs.replay.selection import Selection, SelectionError, parse

FEWEST_CHARACTERS_OF_A_GROUP = 8


def selection_of(options: Mapping[str, Any]) -> Selection:
    """Raises `SelectionError`."""
    causes = [reason for reason in options["reason"] if reason in DeadLetter.Cause.values]
    reasons = [reason for reason in options["reason"] if reason not in DeadLetter.Cause.values]
    if len(reasons) > 1:
        raise SelectionError(f"--reason: one Kaniko Job's reason at a time, not {' and '.join(reasons)}")
    if reasons and not reasons[0].isalnum():
        raise SelectionError(f"--reason: {reasons[0]!r} is neither a cause nor a CamelCase reason")
    return parse(
        {
            "ids": options["id"],
            "groups": [fingerprint_of(group) for group in options["group"]],
            "causes": causes,
            "reason": reasons[0] if reasons else "",
            "third_party_id": options["third_party"],
            "parser_id": options["parser"],
            "died_from": moment_of("--since", options["since"]),
            "died_until": moment_of("--until", options["until"]),
        }
    )


def fingerprint_of(group: str) -> str:
    """The whole fingerprint of a group by its start. Raises `SelectionError`."""
    if len(group) < FEWEST_CHARACTERS_OF_A_GROUP:
        raise SelectionError(f"--group: write at least {FEWEST_CHARACTERS_OF_A_GROUP} characters of its fingerprint")
    found = list(FailureGroup.objects.filter(fingerprint__startswith=group).values_list("fingerprint", flat=True)[:2])
    if len(found) != 1:
        raise SelectionError(f"--group: {'no group starts' if not found else 'several groups start'} with {group!r}")
    return found[0]


def moment_of(option: str, text: str | None) -> str | None:
    """A time of today as a whole one. Raises `SelectionError`."""
    if not text:
        return None
    try:
        if clock := parse_time(text):
            return datetime.combine(timezone.now().date(), clock, tzinfo=UTC).isoformat()
        if moment := parse_datetime(text):
            return (moment if timezone.is_aware(moment) else timezone.make_aware(moment)).isoformat()
    except ValueError:
        pass
    raise SelectionError(f"{option}: {text!r} is no time; write 14:00 (today, UTC) or 2026-01-31T14:00:00Z")
