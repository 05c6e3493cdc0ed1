"""The outbox: outcomes that wait are published to RabbitMQ, the oldest first, until it has confirmed each.

At least once: a row is marked when RabbitMQ has confirmed the message, so one that was confirmed unheard is published
again, under the same CloudEvents id. While RabbitMQ is away rows wait in Postgres, and `backlog` says how many.
"""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from kanikojobs import amqp, outcomes, tallies, tracing
from kanikojobs.models import OutcomeEvent

log = structlog.get_logger(__name__)

BATCH = 100
POLL = 0.5  # seconds between two looks into an empty outbox
LONGEST_BACKOFF = 10.0
MOST_COUNTED = 10_000

# A key of PostgreSQL's advisory locks, "kjo" in ASCII: held by whoever publishes.
OUTBOX_LOCK = 0x6B6A6F


def publish_some(link: amqp.BlockingConnection, *, most: int = BATCH) -> int:
    """Publish the outcomes that wait, the oldest first; return how many: 0 while somebody else does that.

    Raises one of `amqp.CONNECTION_ERRORS`; what RabbitMQ had confirmed before is marked all the same.
    """
    problem: Exception | None = None
    with transaction.atomic():
        waiting = _waiting(most=most)
        if not waiting:
            return 0
        reached: list[bool] = []
        events = [outcomes.cloud_event(row.kaniko_job) for row in waiting]
        began_at = time.time()
        try:
            # One that reaches no queue is done as well: nobody has bound one, so nobody wants to know.
            for has_reached in amqp.publish_each(link, map(outcomes.publication, events)):
                if has_reached:
                    tracing.published(events[len(reached)], began_at=began_at)
                reached.append(has_reached)
                began_at = time.time()
        except amqp.CONNECTION_ERRORS as error:
            problem = error
        OutcomeEvent.objects.filter(pk__in=[row.pk for row in waiting[: len(reached)]]).update(published_at=Now())
        counts = {"outcome-event/published": reached.count(True), "outcome-event/unroutable": reached.count(False)}
        tallies.add(tallies.counts({series: count for series, count in counts.items() if count}))
    if problem is not None:
        raise problem
    return len(reached)


def _waiting(*, most: int) -> list[OutcomeEvent]:
    """The oldest outcomes that wait, for one publisher at a time, or two would tell them in no order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [OUTBOX_LOCK])
        if not cursor.fetchone()[0]:
            return []
    return list(
        OutcomeEvent.objects.filter(published_at=None)
        .select_related("kaniko_job__event", "kaniko_job__evidence")
        .order_by("id")[:most]
    )


@dataclass(frozen=True, slots=True)
class Backlog:
    """The outcomes that are still to be told: how many, counted up to `MOST_COUNTED`, and since when the oldest."""

    waiting: int
    oldest: datetime | None


def backlog() -> Backlog:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), min(made_at) FROM (
                SELECT made_at FROM kanikojobs_outcomeevent WHERE published_at IS NULL ORDER BY id LIMIT %s
            ) waiting
            """,
            [MOST_COUNTED],
        )
        return Backlog(*cursor.fetchone())


class Publisher:
    """A thread that empties the outbox until it is closed. Several may run; one publishes at a time."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def join(self, within: float) -> None:
        self._thread.join(within)

    def _run(self) -> None:
        failures = 0
        try:
            while not self._closed.is_set():
                try:
                    link = amqp.connect(settings.RABBITMQ_URL, name="kanikojobs outcomes")
                    try:
                        self._publish(link)
                        failures = 0
                    finally:
                        with suppress(*amqp.CONNECTION_ERRORS):
                            link.close()
                except amqp.CONNECTION_ERRORS as error:
                    failures += 1
                    wait = min(LONGEST_BACKOFF, 0.2 * 2**failures)
                    log.warning("rabbitmq-away", error=amqp.brief(error), retry_in=wait)
                    self._closed.wait(wait)
                except (OperationalError, InterfaceError) as error:
                    log.warning("database-away", error=str(error).splitlines()[0])
                    connection.close()
                    self._closed.wait(1.0)
                except Exception:
                    # One that cannot be told must not end the telling for good, and silently.
                    log.exception("outcomes-failed")
                    connection.close()
                    self._closed.wait(LONGEST_BACKOFF)
        finally:
            connection.close()

    def _publish(self, link: amqp.BlockingConnection) -> None:
        while not self._closed.is_set():
            if not publish_some(link):
                # Answers heartbeats, which nobody else does on this connection.
                link.process_data_events(time_limit=0)
                self._closed.wait(POLL)
