"""Cursors that send values apart from the statement, for the hot paths and for large values.

Django's own cursors quote each value into the statement's text: for a body of 10 MB that takes 80 MB for a moment, and
no statement can be prepared, so that PostgreSQL plans it each time. For a batch of sixteen that costs more than
carrying it out.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import connection

# Seconds for which a prepared statement keeps its plan. One that was made for a table of ten rows reads all of it, and
# PostgreSQL itself thinks of another only after autovacuum's next look: a minute, and half a million rows later.
PLANS_LAST = 10.0

_planned_at: WeakKeyDictionary[psycopg.Connection[Any], float] = WeakKeyDictionary()


@contextmanager
def binding_cursor() -> Iterator[Any]:
    """A `psycopg.Cursor` on Django's connection, in its transaction and with its errors.

    psycopg prepares what it has executed a few times, and PostgreSQL then plans that once in `PLANS_LAST`.
    """
    connection.ensure_connection()
    with psycopg.Cursor(connection.connection) as cursor, connection.wrap_database_errors:
        now = time.monotonic()
        if now - _planned_at.setdefault(connection.connection, now) > PLANS_LAST:
            cursor.execute("DISCARD PLANS")
            _planned_at[connection.connection] = now
        yield cursor
