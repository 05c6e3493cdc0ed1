"""Sends the demo's messages to a running system and watches until all are accounted for, or nothing changes."""

import time

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.local import demo_result
from deploy.local.demo_events import Traffic
from deploy.local.demo_result import Result
from deploy.local.demo_sending import send
from deploy.local.demo_system import System

POLL_SECONDS = 0.3
PATIENCE_SECONDS = 20.0  # without any change, until what is missing is taken to be missing


def send_and_follow(sent: Traffic, *, system: System, console: Console) -> Result:
    """Scripts the faults and outcomes, sends, and follows. The bars show only on a terminal."""
    stack = system.stack
    if stack.simulator is not None:
        stack.simulator.faults(list(sent.faults))
        stack.simulator.outcomes(rules=list(sent.outcomes))
    expected_jobs = sum(message.kind.jobs_created for message in sent.messages)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        psycopg.connect(system.database_url, autocommit=True) as database,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        sending = progress.add_task("messages sent", total=len(sent.messages))
        creating = progress.add_task("Jobs created ", total=expected_jobs)
        wrong_answers = []
        for wrong in send(sent, rabbitmq_url=stack.rabbitmq.url, queue=system.queue, web_port=system.port):
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
            if not result.differences or time.monotonic() - since > PATIENCE_SECONDS:
                return Result(result.found, (*wrong_answers, *result.differences))
            time.sleep(POLL_SECONDS)
