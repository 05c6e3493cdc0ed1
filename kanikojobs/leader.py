"""One watcher works, the others stand by: who holds a session lock of PostgreSQL leads.

The lock and the writes use the same database connection on purpose. When it breaks, the lock is gone and nothing can be
written through it any more, in one instant: there is no moment in which one still writes while another leads already.
"""

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

log = structlog.get_logger(__name__)

# The first key of the advisory lock, "kjw" in ASCII; the second is of the namespace that is watched.
LEADER_LOCK = 0x6B6A77


class LostLeadership(Exception):
    """The connection that held the lock is not the present one: somebody else may lead by now."""


class Leadership:
    """Whether this process leads. For one thread, which is also the one that writes."""

    def __init__(self) -> None:
        self._held_on: object = None

    def acquire(self) -> bool:
        """Try to become the leader; do not wait for it."""
        connection.close_if_unusable_or_obsolete()
        connection.ensure_connection()
        with connection.cursor() as cursor:
            # A host that is gone says no good-bye: its connection, and its lock with it, would live for hours.
            cursor.execute("SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3")
            cursor.execute(
                "SELECT pg_try_advisory_lock(%s, hashtext(%s))", [LEADER_LOCK, settings.KANIKOJOBS_NAMESPACE]
            )
            leads = bool(cursor.fetchone()[0])
        self._held_on = connection.connection if leads else None
        return leads

    def check(self) -> None:
        """Call it inside each transaction. Raises `LostLeadership`."""
        if self._held_on is None or connection.connection is not self._held_on:
            raise LostLeadership

    def release(self) -> None:
        """Let another one lead. A connection that is broken has let go already."""
        if self._held_on is None:
            return
        try:
            self.check()
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_advisory_unlock(%s, hashtext(%s))", [LEADER_LOCK, settings.KANIKOJOBS_NAMESPACE]
                )
        except (OperationalError, InterfaceError, LostLeadership) as error:
            log.warning("leadership-lost", error=type(error).__name__)
            connection.close()
        finally:
            self._held_on = None
