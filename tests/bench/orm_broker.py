"""Django-Q2 as it comes, for comparison: settings with its own ORM broker, and a task that creates one Job.

`DJANGO_SETTINGS_MODULE=tests.bench.orm_broker manage.py qcluster` runs it. Connections are kept open, as with ours.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from project.settings import *  # noqa: F403
from project.settings import Q_CLUSTER as _OURS

Q_CLUSTER = {name: value for name, value in _OURS.items() if name not in ("broker_class", "poll")}
Q_CLUSTER |= {"save_limit": -1, "queue_limit": 50}


def create(kaniko_job: int) -> None:
    """Create the Job of a queued row."""
    _creator()([kaniko_job])


@cache
def _creator() -> Callable[[list[Any]], bool]:
    from tests.bench.creators import creator

    return creator(which="SELECT %s")


def enqueue() -> None:
    """A task for each queued row, to be run in an hour."""
    import django

    django.setup()
    from datetime import UTC, datetime, timedelta

    from django_q.brokers import get_broker
    from django_q.models import OrmQ
    from django_q.tasks import async_task

    from kanikojobs.models import KanikoJob

    broker = get_broker()
    for kaniko_job in KanikoJob.objects.filter(state="queued").order_by("priority", "id").values_list("id", flat=True):
        async_task("tests.bench.orm_broker.create", kaniko_job, broker=broker)
    OrmQ.objects.update(lock=datetime.now(UTC) + timedelta(hours=1))
    print("{}")


if __name__ == "__main__":
    import os

    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.orm_broker"
    enqueue()
