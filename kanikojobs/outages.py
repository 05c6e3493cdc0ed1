"""Outages of the Kubernetes API server: nobody's fault, and nobody's retry.

When the API server cannot be reached, or sheds load for everybody, that is written down once, in the database, and
every cluster stops claiming. One probe at a time, whoever makes it, finds out when it is over.
"""

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from kanikojobs import claims, kube, tallies
from kanikojobs.errors import CreationError
from kanikojobs.models import Outage

log = structlog.get_logger(__name__)

PROBE_EVERY = 1.0  # seconds


def begin(error: CreationError) -> bool:
    """Record that an outage has begun; return whether it was news."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Every worker meets the closed door at about the same time. The unique index lets one of them in.
        cursor.execute(
            """
            INSERT INTO kanikojobs_outage (reason, message, next_probe_at)
            VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s)) ON CONFLICT DO NOTHING
            """,
            [error.reason[:64], error.message, PROBE_EVERY],
        )
        news = cursor.rowcount == 1
        if news:
            tallies.add(tallies.counts({"outage/begun": 1}))
    if news:
        log.error("outage-begun", reason=error.reason, message=error.message)
    return news


def current() -> Outage | None:
    """The outage that is going on, if there is one."""
    return Outage.objects.filter(ongoing=True).first()


def probe_if_due() -> bool:
    """Make the next probe if it is due and nobody else makes it; return whether the outage is over."""
    with connection.cursor() as cursor:
        # Moving the time on is taking the turn: of two that try at once, the second finds it in the future.
        cursor.execute(
            """
            UPDATE kanikojobs_outage
            SET next_probe_at = clock_timestamp() + make_interval(secs => %s), probes = probes + 1
            WHERE ongoing AND next_probe_at <= clock_timestamp() RETURNING id, probes
            """,
            [PROBE_EVERY],
        )
        row = cursor.fetchone()
    if row is None:
        return False
    try:
        kube.probe()
    except CreationError as error:
        log.warning("outage-goes-on", reason=error.reason, probes=row[1])
        return False
    with transaction.atomic():
        Outage.objects.filter(id=row[0], ongoing=True).update(ongoing=False, ended_at=Now())
        claims.notify()
    log.warning("outage-over", probes=row[1])
    return True
