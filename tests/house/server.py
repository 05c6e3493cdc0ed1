"""The web server before the furnished database: gunicorn with the project's own settings, as it runs in earnest."""

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import psycopg

from deploy.local.demo_sending import http_status
from deploy.local.processes import free_port
from deploy.local.stack import LocalStack

USER = "night-shift"


@dataclass(frozen=True, slots=True)
class House:
    """Where it is, who may log in, and the addresses of single rows' pages by name."""

    address: str
    password: str
    pages: Mapping[str, str]


@contextmanager
def a_house(stack: LocalStack) -> Iterator[House]:
    """A house in a database of its own in the stack's PostgreSQL, which has to be up."""
    name = f"house_{secrets.token_hex(4)}"
    server = stack.postgres.url
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    env = {
        "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
        "RABBITMQ_URL": "",
        "DJANGO_SETTINGS_MODULE": "tests.house.settings",
        "DJANGO_SECRET_KEY": secrets.token_hex(32),
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
        "DJANGO_SECURE_COOKIES": "false",
        "KANIKOJOBS_LOG_LEVEL": "ERROR",
        "KANIKOJOBS_TRACE_URL": "https://traces.example.com/{trace_id}",
    }
    try:
        yield from _open(stack, env=env)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _open(stack: LocalStack, *, env: dict[str, str]) -> Iterator[House]:
    pages, password, port = stack.folder / "pages.json", secrets.token_urlsafe(12), free_port()
    furnish = [sys.executable, "-m", "tests.house.rows", USER, password, str(pages)]
    stack.run_process(name="furnish", command=furnish, env=env)
    serve = [sys.executable, "-m", "gunicorn", "project.wsgi", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
    web = stack.start_process(name="house", command=[*serve, "--no-control-socket"], env=env)
    try:
        web.wait_until(lambda: http_status("GET", "/ready", port=port) == 200, seconds=120)
        yield House(f"http://127.0.0.1:{port}", password, json.loads(pages.read_text()))
    finally:
        web.stop()
        stack.forget(web)
