"""The daily run, as a schedule of Django-Q2: one row, made and kept up to the settings by `manage.py migrate`."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django_q.models import Schedule

NAME, TASK = "prune", "kanikojobs.tasks.prune"


def keep_schedule(**_: Any) -> Schedule | None:
    """Make the schedule what KANIKOJOBS_PRUNE_AT says, and return it; None if that is never.

    A receiver of Django's `post_migrate`. A schedule that is right already stays as it is, with its next time.
    """
    if Schedule._meta.db_table not in connection.introspection.table_names():
        # Only some applications were migrated, or one was migrated back.
        return None
    at = settings.KANIKOJOBS_PRUNE_AT
    if at is None:
        Schedule.objects.filter(name=NAME).delete()
        return None
    schedule, made = Schedule.objects.get_or_create(
        name=NAME, defaults={"func": TASK, "schedule_type": Schedule.DAILY, "next_run": _next(at)}
    )
    if not made and schedule.next_run.astimezone(UTC).time() != at:
        schedule.next_run = _next(at)
        schedule.save(update_fields=["next_run"])
    return schedule


def _next(at: Any) -> datetime:
    """The next time that it is so late, in UTC."""
    now = datetime.now(UTC)
    today = datetime.combine(now.date(), at, tzinfo=UTC)
    return today if today > now else today + timedelta(days=1)
