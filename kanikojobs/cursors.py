"""Cursors that send values apart from the statement, for the hot paths and for large values.

Django's own cursors quote each value into the statement's text: for a body of 10 MB that takes 80 MB for a moment, and
for a batch of events the statement cannot be prepared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection


@contextmanager
def binding_cursor() -> Iterator[Any]:
    """A `psycopg.Cursor` on Django's connection, in its transaction and with its errors."""
    connection.ensure_connection()
    with psycopg.Cursor(connection.connection) as cursor, connection.wrap_database_errors:
        yield cursor
