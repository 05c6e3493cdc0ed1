"""`make demo`: the whole system on this machine, with sample events and what became of them.

Starts PostgreSQL, RabbitMQ and a simulated Kubernetes API server, then web, consumer, workers and watcher
against them, sends 220 messages of every kind, and holds the database and the cluster against what was sent. Then an
operator retries a build and replays dead letters. Stays up until Ctrl-C. With DEMO_ONCE=1 it ends by itself: with 0,
or with 1 and what differs.
"""

import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from deploy.local import cluster, demo_operator, demo_result
from deploy.local.demo_events import Message, Traffic, traffic
from deploy.local.demo_following import send_and_follow
from deploy.local.demo_system import System
from deploy.local.processes import StackError
from deploy.local.stack import LOCAL, LocalStack, signals_end_this_process

console = Console()


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
        # In a database that was given, `admin` may be somebody's.
        user = f"demo-{secrets.token_hex(3)}" if "DATABASE_URL" in os.environ else "admin"
        system = System(stack, user=user)
        console.print("Preparing database, queues and an admin user …")
        system.prepare(static_files=True)
        console.print("Starting web, consumer and workers …")
        system.start()
        with _env_file(system):
            sent = traffic(seed=secrets.token_hex(8), scripted=stack.simulator is not None)
            result = send_and_follow(sent, system=system, console=console)
            console.print(demo_result.table(sent, result))
            _conclude(sent, result, stack=stack)
            if not result.differences:
                demo_operator.act(sent, system=system)
            if once:
                return 1 if result.differences else 0
            _stay(system, broken=demo_operator.broken(sent))
    return 1 if result.differences else 0


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


def _stay(system: System, *, broken: Message | None) -> None:
    """Shows where everything is, and returns at Ctrl-C. StackError when a process ends by itself."""
    failed = f"  A failure  {system.url}/admin/find/?q={broken.event_id}, retried and built\n" if broken else ""
    console.print(
        f"\n  Admin      {system.url}/admin/   {system.user} / {system.password}\n"
        f"{failed}"
        f"  REST       {system.url}/async-jobs/stats, {system.url}/api/docs/\n"
        f"  Metrics    {system.url}/metrics\n"
        f"  Send more  .venv/bin/python tests/create-job-start-event.py\n"
        f"  Logs       {system.stack.folder / 'logs'}\n\nUp until Ctrl-C.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    with suppress(SystemExit):
        while True:
            system.stack.check()
            time.sleep(1)
    console.print("Ending …")


@contextmanager
def _env_file(system: System) -> Iterator[Path]:
    """`.local/demo/env`, by which tools find the running demo.

    Readable by its owner alone: there are passwords in it.
    """
    values = system.environment | {"DEMO_URL": system.url, "DEMO_USER": system.user, "DEMO_PASSWORD": system.password}
    path = system.stack.folder / "env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
