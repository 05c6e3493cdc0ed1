"""Gunicorn's configuration: `gunicorn -c python:project.web_server project.wsgi`.

Gives the workers of one web server a folder in which they count their requests together (`/metrics/web`), and takes it
away with them. Everything else is left to the command line.
"""

import os
import shutil
import tempfile
from pathlib import Path

from gunicorn.arbiter import Arbiter

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# The files are written with every request. In memory that costs nothing, and the root file system may be read-only.
MEMORY = Path("/dev/shm")  # noqa: S108


def on_starting(server: Arbiter) -> None:
    """Make the folder, before any worker imports the client library, which looks for it only then."""
    os.environ[VARIABLE] = tempfile.mkdtemp(
        prefix="kanikojobs-requests-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
    )


def on_exit(server: Arbiter) -> None:
    shutil.rmtree(Path(os.environ.pop(VARIABLE)), ignore_errors=True)
