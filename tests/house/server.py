"""The demo for a browser: the system that `make demo` starts, what it sends, and what its operator does.

Real processes on the stack's servers, with a database and queues of their own.
"""

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import psycopg
from rich.console import Console

from deploy.local import demo_operator
from deploy.local.demo_events import Traffic, traffic
from deploy.local.demo_following import send_and_follow
from deploy.local.demo_system import System
from deploy.local.processes import StackError
from deploy.local.stack import LocalStack
from tests.house.story import Story, pods, story

USER = "admin"


@dataclass(frozen=True, slots=True)
class House:
    """What runs, what was sent, and the build that failed and was retried as the cluster knows it."""

    system: System
    sent: Traffic
    story: Story

    def furnish(self) -> dict[str, int]:
        """Add what the demo has not; return which rows are worth looking at, by `tests.house.rows`."""
        stack, file = self.system.stack, self.system.stack.folder / "rows.json"
        command = [sys.executable, "-m", "tests.house.rows", self.password, str(file)]
        stack.run_process(name="furnish", command=command, env=self.system.environment)
        rows: dict[str, int] = json.loads(file.read_text())
        return rows

    @property
    def address(self) -> str:
        return self.system.url

    @property
    def password(self) -> str:
        return self.system.password


@contextmanager
def a_house(stack: LocalStack) -> Iterator[House]:
    """The demo after its operator has done. The stack's servers have to be up; its simulator is emptied."""
    name = f"house_{secrets.token_hex(4)}"
    server = stack.postgres.url
    system = System(
        stack,
        user=USER,
        env={
            "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
            "DJANGO_SETTINGS_MODULE": "tests.house.settings",
            "KANIKOJOBS_QUEUE": name,
            "KANIKOJOBS_DLQ": f"{name}.dlq",
            "KANIKOJOBS_DLX": f"{name}.dlx",
            "KANIKOJOBS_LOG_LEVEL": "ERROR",
            "KANIKOJOBS_TRACE_URL": "https://traces.example.com/{trace_id}",
        },
    )
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield from _demo(system)
    finally:
        system.web.close()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _demo(system: System) -> Iterator[House]:
    stack = system.stack
    assert stack.simulator is not None
    stack.simulator.reset()
    system.prepare(static_files=False)
    started = system.start(web_arguments=("--threads", "4"))
    try:
        sent = traffic(seed=secrets.token_hex(8), scripted=True)
        result = send_and_follow(sent, system=system, console=Console(quiet=True))
        if result.differences:
            raise StackError("\n".join(result.differences))
        broken = demo_operator.broken(sent)
        assert broken is not None
        before = pods(stack.simulator, event_id=broken.event_id)
        demo_operator.act(sent, system=system)
        yield House(system, sent, story(broken, before=before, simulator=stack.simulator))
    finally:
        for child in reversed(started):
            child.stop()
            stack.forget(child)
