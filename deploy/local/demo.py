"""`make demo`: the whole system on this machine, with sample events and what became of them.

Starts PostgreSQL, RabbitMQ and a simulated Kubernetes API server, then web, consumer, workers and watcher
against them, sends 220 messages of every kind, and holds the database and the cluster against what was sent.
Stays up until Ctrl-C. With DEMO_ONCE=1 it ends by itself: with 0, or with 1 and what differs.
"""

import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.local import cluster, demo_result
from deploy.local.demo_events import Traffic, traffic
from deploy.local.demo_sending import http_status, send
from deploy.local.processes import StackError
from deploy.local.stack import CHECKOUT, LOCAL, LocalStack, signals_end_this_process

_POLL_SECONDS = 0.3
_PATIENCE_SECONDS = 20.0  # without any change, until what is missing is taken to be missing
_WATCHER = CHECKOUT / "kanikojobs" / "management" / "commands" / "watch_jobs.py"

console = Console()


@dataclass(frozen=True, slots=True)
class Account:
    """The web's socket, bound already so that nobody else can take its port, and a log-in made for this run."""

    web: socket.socket
    user: str
    password: str

    @property
    def port(self) -> int:
        return int(self.web.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def main() -> int:
    """Runs the demo.

    Returns the exit code: 0 when everything sent was accounted for, else 1; 2 could not start.
    """
    try:
        with signals_end_this_process():
            return _demo(once=os.environ.get("DEMO_ONCE", "") not in ("", "0"))
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2


def _demo(*, once: bool) -> int:
    kubeconfig = None
    if cluster.asked_for():
        chosen = cluster.current()
        cluster.confirm(chosen)
        kubeconfig = chosen.kubeconfig
    console.print("Starting PostgreSQL, RabbitMQ and Kubernetes …")
    with LocalStack(folder=LOCAL / "demo", kubeconfig=kubeconfig) as stack:
        account = Account(
            web=_web_socket(),
            # In a database that was given, `admin` may be somebody's.
            user=f"demo-{secrets.token_hex(3)}" if "DATABASE_URL" in os.environ else "admin",
            password=secrets.token_urlsafe(12),
        )
        env = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DJANGO_SECRET_KEY": secrets.token_hex(32),
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1,localhost",
            "DJANGO_SECURE_COOKIES": "false",
            "KANIKOJOBS_LOG_FORMAT": "console",
        }
        _prepare(stack, env=env, account=account)
        _start(stack, env=env, account=account)
        with _env_file(stack, env=env, account=account):
            sent = traffic(seed=secrets.token_hex(8), scripted=stack.simulator is not None)
            result = _send_and_follow(sent, stack=stack, account=account)
            console.print(demo_result.table(sent, result))
            _conclude(sent, result, stack=stack)
            if once:
                return 1 if result.differences else 0
            _stay(stack, account=account)
    return 1 if result.differences else 0


def _prepare(stack: LocalStack, *, env: dict[str, str], account: Account) -> None:
    """Tables, queues, the admin user, static files."""
    console.print("Preparing database, queues and an admin user …")
    superuser = {
        "DJANGO_SUPERUSER_USERNAME": account.user,
        "DJANGO_SUPERUSER_PASSWORD": account.password,
        "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
    }
    for arguments in (
        ["migrate", "--verbosity", "0"],
        ["declare_topology"],
        ["createsuperuser", "--noinput"],
        ["collectstatic", "--noinput", "--verbosity", "0"],
    ):
        stack.run_process(name=arguments[0], command=_manage(*arguments), env=env | superuser)


def _start(stack: LocalStack, *, env: dict[str, str], account: Account) -> None:
    """The system's processes, until the web answers."""
    console.print("Starting web, consumer and workers …")
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:project.web_server", "project.wsgi"]
    number = account.web.fileno()
    web = stack.start_process(
        name="web",
        command=[*gunicorn, "--bind", f"fd://{number}", "--workers", "2", "--no-control-socket"],
        env=env,
        inherits=(number,),
    )
    stack.start_process(name="consumer", command=_manage("consume_queue"), env=env)
    stack.start_process(name="workers", command=_manage("qcluster"), env=env)
    if _WATCHER.exists():
        stack.start_process(name="watcher", command=_manage("watch_jobs"), env=env)
    web.wait_until(lambda: http_status("GET", "/ready", port=account.port) == 200, seconds=60)


def _send_and_follow(sent: Traffic, *, stack: LocalStack, account: Account) -> demo_result.Result:
    """Sends everything and watches until it is all accounted for, or nothing changes any more."""
    if stack.simulator is not None:
        stack.simulator.faults(list(sent.faults))
    expected_jobs = sum(message.kind.jobs_created for message in sent.messages)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        psycopg.connect(stack.postgres.url, autocommit=True) as database,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        sending = progress.add_task("messages sent", total=len(sent.messages))
        creating = progress.add_task("Jobs created ", total=expected_jobs)
        wrong_answers = []
        for wrong in send(sent, rabbitmq_url=stack.rabbitmq.url, web_port=account.port):
            progress.advance(sending)
            wrong_answers += [wrong] if wrong else []
        before, since = None, time.monotonic()
        while True:
            stack.check()
            creates = stack.simulator.stats()["creates"]["by_identity"] if stack.simulator else None
            result = demo_result.read(sent, database=database, cluster=creates)
            progress.update(creating, completed=result.jobs)
            if result != before:
                before, since = result, time.monotonic()
            if not result.differences or time.monotonic() - since > _PATIENCE_SECONDS:
                return demo_result.Result(result.found, (*wrong_answers, *result.differences))
            time.sleep(_POLL_SECONDS)


def _conclude(sent: Traffic, result: demo_result.Result, *, stack: LocalStack) -> None:
    """Says whether it adds up, and if not, what differs."""
    console.print(demo_result.sum_line(sent, result), highlight=False)
    places = "Database and cluster hold" if stack.simulator else "The database holds"
    if not result.differences:
        console.print(f"{places} exactly what was sent, and each event has its one Job.", style="green")
        return
    console.print("That is not what was sent:", style="red")
    for difference in result.differences:
        console.print(f"  {difference}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"The logs are in {stack.folder / 'logs'}", soft_wrap=True)


def _stay(stack: LocalStack, *, account: Account) -> None:
    """Shows where everything is, and returns at Ctrl-C. StackError when a process ends by itself."""
    console.print(
        f"\n  Admin      {account.url}/admin/   {account.user} / {account.password}\n"
        f"  REST       {account.url}/async-jobs/stats, {account.url}/api/docs/\n"
        f"  Metrics    {account.url}/metrics\n"
        f"  Send more  .venv/bin/python tests/create-job-start-event.py\n"
        f"  Logs       {stack.folder / 'logs'}\n\nUp until Ctrl-C.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    with suppress(SystemExit):
        while True:
            stack.check()
            time.sleep(1)
    console.print("Ending …")


@contextmanager
def _env_file(stack: LocalStack, *, env: dict[str, str], account: Account) -> Iterator[Path]:
    """`.local/demo/env`, by which tools find the running demo.

    Readable by its owner alone: there are passwords in it.
    """
    values = stack.environment() | env
    values |= {"DEMO_URL": account.url, "DEMO_USER": account.user, "DEMO_PASSWORD": account.password}
    path = stack.folder / "env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _manage(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


def _web_socket() -> socket.socket:
    """On port 8000, or the next that nobody uses."""
    for port in range(8000, 9000):
        with suppress(OSError):
            # Listening from now on: two demos that looked first and bound later would both find the port free.
            return socket.create_server(("127.0.0.1", port), backlog=2048)
    raise StackError("No port between 8000 and 8999 is free for the web server.")


if __name__ == "__main__":
    sys.exit(main())
