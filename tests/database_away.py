"""PostgreSQL gone for a while, as this thread sees it: its connection is closed and new ones are refused."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


@contextmanager
def database_away() -> Iterator[None]:
    """For tests with `transaction=True`: a transaction that is open would be lost."""
    there = {key: connection.settings_dict[key] for key in ("HOST", "PORT")}
    connection.close()
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and whoever calls is refused.
        taken.bind(("127.0.0.1", 0))
        connection.settings_dict |= {"HOST": "127.0.0.1", "PORT": taken.getsockname()[1]}
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict |= there
