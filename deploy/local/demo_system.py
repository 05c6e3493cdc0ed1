"""The demo's own processes: web, consumer, workers and watcher, made ready and started on a stack's servers.

`make demo` runs them, and so do the browser tests and `make screenshots`: what these look at is what the demo shows.
"""

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from deploy.local.demo_sending import http_status
from deploy.local.processes import Child, StackError
from deploy.local.stack import LocalStack


@dataclass(frozen=True, slots=True)
class System:
    """On which servers, in which environment, and a log-in made for this run.

    The web's socket is bound already, so that nobody else can take its port.
    """

    stack: LocalStack
    user: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(32))
    env: Mapping[str, str] = field(default_factory=dict)
    web: socket.socket = field(default_factory=lambda: _web_socket())

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are given; `env` wins."""
        return {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DJANGO_SECRET_KEY": self.secret_key,
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1,localhost",
            "DJANGO_SECURE_COOKIES": "false",
            "KANIKOJOBS_LOG_FORMAT": "console",
            **self.stack.environment(),
            **self.env,
        }

    @property
    def database_url(self) -> str:
        return self.environment["DATABASE_URL"]

    @property
    def queue(self) -> str:
        return (os.environ | self.environment).get("KANIKOJOBS_QUEUE", "kaniko-jobs")

    @property
    def port(self) -> int:
        return int(self.web.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self, *, static_files: bool) -> None:
        """Tables, queues, the user who may log in, and with `static_files` a copy of those as web servers want it."""
        superuser = {
            "DJANGO_SUPERUSER_USERNAME": self.user,
            "DJANGO_SUPERUSER_PASSWORD": self.password,
            "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
        }
        command = [sys.executable, "-m", "deploy.local.demo_tables", *(["--static-files"] if static_files else [])]
        self.stack.run_process(name="prepare", command=command, env=self.environment | superuser)

    def start(self, *, web_arguments: tuple[str, ...] = ("--workers", "2")) -> list[Child]:
        """Starts the processes and waits until the web answers."""
        number = self.web.fileno()
        gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:project.web_server", "project.wsgi"]
        web = self.stack.start_process(
            name="web",
            command=[*gunicorn, "--bind", f"fd://{number}", "--no-control-socket", *web_arguments],
            env=self.environment,
            inherits=(number,),
        )
        others = [
            self.stack.start_process(name=name, command=[sys.executable, "manage.py", command], env=self.environment)
            for name, command in (("consumer", "consume_queue"), ("workers", "qcluster"), ("watcher", "watch_jobs"))
        ]
        web.wait_until(lambda: http_status("GET", "/ready", port=self.port) == 200, seconds=120)
        return [web, *others]


def _web_socket() -> socket.socket:
    """On port 8000, or the next that nobody uses."""
    for port in range(8000, 9000):
        with suppress(OSError):
            # Listening from now on: two demos that looked first and bound later would both find the port free.
            return socket.create_server(("127.0.0.1", port), backlog=2048)
    raise StackError("No port between 8000 and 8999 is free for the web server.")
