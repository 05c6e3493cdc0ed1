"""System checks of how long rows are kept: nothing that can come again, or is shown, may outlive what is known."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core import checks

# What the home shows at the longest, and a day.
LEAST_FOR_CHARTS = timedelta(days=8)


def check_events_kept(**_: Any) -> list[checks.CheckMessage]:
    """An event that is forgotten is built again when its message comes again: it must outlive whatever may come."""
    kept: timedelta = settings.KANIKOJOBS_KEEP_EVENTS
    if not kept:
        return []
    found: list[checks.CheckMessage] = []
    message_ttl = timedelta(milliseconds=settings.KANIKOJOBS_MESSAGE_TTL_MS)
    # Once in the queue, and as long again for whoever has to mend a consumer that does not drain the dead letters.
    least = max(2 * message_ttl, timedelta(seconds=settings.KANIKOJOBS_JOB_TTL) + timedelta(days=1))
    if kept < least:
        found.append(
            checks.Error(
                f"KANIKOJOBS_KEEP_EVENTS ({_hours(kept)}) is too short: a message may come again for "
                f"{_hours(message_ttl)}, and a Job stays in the cluster for {settings.KANIKOJOBS_JOB_TTL / 3600:g}h.",
                hint="What comes again after its event was pruned would be built twice. "
                f"Write at least {_hours(least)}, or 0s to keep events for ever.",
                id="kanikojobs.E007",
            )
        )
    if not settings.KANIKOJOBS_DRAIN_DLQ:
        found.append(
            checks.Warning(
                f"Messages wait in {settings.KANIKOJOBS_DLQ} without an end, and their events are kept for "
                f"{_hours(kept)}: KANIKOJOBS_DRAIN_DLQ is 0.",
                hint="One that is replayed after its event was pruned would be built twice. Drain the queue into rows, "
                "which keep the events that they name, or write KANIKOJOBS_KEEP_EVENTS=0s.",
                id="kanikojobs.W005",
            )
        )
    return found


def check_tallies_kept(**_: Any) -> list[checks.CheckMessage]:
    """The charts reach back a week, and a run of pruning must not come upon the tallies of its own hour."""
    kept: timedelta = settings.KANIKOJOBS_KEEP_TALLIES
    if not kept or kept >= LEAST_FOR_CHARTS:
        return []
    return [
        checks.Error(
            f"KANIKOJOBS_KEEP_TALLIES ({_hours(kept)}) is shorter than what the charts show.",
            hint=f"Write at least {_hours(LEAST_FOR_CHARTS)}, or 0s to keep the counts per hour for ever.",
            id="kanikojobs.E008",
        )
    ]


def _hours(length: timedelta) -> str:
    return f"{length.total_seconds() / 3600:g}h"
