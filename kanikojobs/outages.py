"""Outages of the Kubernetes API server: nobody's fault, and nobody's retry.

When the API server cannot be reached, or sheds load for everybody, that is written down once, in the database, and
every cluster stops claiming. One probe at a time finds out when it is over: first a question that costs nothing, then,
since a server can answer questions and still refuse to create, a single Kaniko Job on trial.
"""

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from kanikojobs import claims, kube, tallies
from kanikojobs.errors import ClusterUnavailable, TransientError
from kanikojobs.models import Outage

log = structlog.get_logger(__name__)

# Between two probes, in seconds. No Retry-After stretches it further than to the longer one: what waits shall be
# created at full speed within five seconds of the API server's return.
PROBE_EVERY, PROBE_AT_LEAST_EVERY = 1.0, 4.0


def begin(error: ClusterUnavailable) -> bool:
    """Record that an outage has begun, or goes on; return whether it was news."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Every worker meets the closed door at about the same time. The unique index lets one of them in.
        cursor.execute(
            """
            INSERT INTO kanikojobs_outage AS outage (reason, message, next_probe_at)
            VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
            ON CONFLICT (ongoing) WHERE ongoing DO UPDATE SET next_probe_at = excluded.next_probe_at
            RETURNING xmax = 0
            """,
            [error.reason, error.message, _wait_after(error)],
        )
        news = bool(cursor.fetchone()[0])
        if news:
            tallies.add(tallies.counts({"outage/begun": 1}))
    if news:
        log.error("outage-begun", reason=error.reason, message=error.message, http_status=error.http_status)
    return news


def current() -> Outage | None:
    """The outage that is going on, if there is one."""
    return Outage.objects.filter(ongoing=True).first()


def probe_if_due() -> bool:
    """Ask the API server if it is time and nobody else does; return whether a Kaniko Job may be tried."""
    # Whoever takes the turn holds it for as long as the question, and then the trial, can take.
    if not _take_turn(hold=2 * kube.PROBE_SECONDS):
        return False
    try:
        kube.probe()
    except TransientError as error:
        _next_probe(after=_wait_after(error))
        log.warning("outage-goes-on", reason=error.reason, message=error.message)
        return False
    _next_probe(after=3 * settings.KANIKOJOBS_KUBERNETES_TIMEOUT.total_seconds())
    return True


def end() -> None:
    """The API server creates again: let all clusters claim."""
    with transaction.atomic():
        if Outage.objects.filter(ongoing=True).update(ongoing=False, ended_at=Now()):
            claims.notify()
            log.warning("outage-over")


def seconds_until_probe() -> float | None:
    """How long until the next probe is due, or None when there is no outage."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM next_probe_at - clock_timestamp())::float8 FROM kanikojobs_outage WHERE ongoing"
        )
        row = cursor.fetchone()
        return max(0.0, row[0]) if row else None


def _take_turn(*, hold: float) -> bool:
    with connection.cursor() as cursor:
        # Moving the time on is taking the turn: of two that try at once, the second finds it in the future.
        cursor.execute(
            """
            UPDATE kanikojobs_outage
            SET next_probe_at = clock_timestamp() + make_interval(secs => %s), probes = probes + 1
            WHERE ongoing AND next_probe_at <= clock_timestamp()
            """,
            [hold],
        )
        return cursor.rowcount == 1


def _next_probe(*, after: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE kanikojobs_outage SET next_probe_at = clock_timestamp() + make_interval(secs => %s) WHERE ongoing",
            [after],
        )


def _wait_after(error: TransientError) -> float:
    return min(max(PROBE_EVERY, error.retry_after or 0.0), PROBE_AT_LEAST_EVERY)
