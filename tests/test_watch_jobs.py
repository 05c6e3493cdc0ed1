"""`watch_jobs` as processes: one leads, others take over; nothing is lost through breaks, 410s and SIGKILLs."""

import random
import time

import pytest
from django.db import connection

from deploy.local.simulator import Simulator
from kanikojobs import tallies
from kanikojobs.models import Heartbeat, KanikoJob
from tests.stack_plugin import StartCommand
from tests.test_watching import ENDS
from tests.watched_jobs import create_all, created_jobs, queued_job, wait_finished, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]


def leaders() -> list[int]:
    """The backends that hold a leader's lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted",
            [0x6B6A77],
        )
        return [row[0] for row in cursor.fetchall()]


def test_of_two_one_leads_and_the_other_takes_over_when_it_is_killed(
    simulator: Simulator, start_command: StartCommand
) -> None:
    simulator.settings(run_seconds=1.0)
    first = start_command("watch_jobs")
    wait_until(lambda: leaders())
    second = start_command("watch_jobs")
    wait_until(lambda: Heartbeat.objects.filter(role="watcher").count() == 2)
    assert len(leaders()) == 1
    jobs = created_jobs(30)
    wait_until(lambda: KanikoJob.objects.filter(state="running").exists())

    first.kill()
    finished = wait_finished(jobs)

    assert second.running
    assert len(leaders()) == 1
    assert {job.state for job in finished} == {"succeeded"}
    # Each end was counted in the transaction that wrote it: none was written twice.
    assert tallies.totals(prefix="finished/")["finished/succeeded"].count == 30


def test_it_ends_in_good_order_when_it_is_asked_to(start_command: StartCommand) -> None:
    children = [start_command("watch_jobs"), start_command("watch_jobs")]
    wait_until(lambda: Heartbeat.objects.filter(role="watcher").count() == 2)

    for child in children:
        child.stop()

    assert leaders() == []
    # A sign of life is taken back by who ends in good order; it stays of who is killed.
    assert Heartbeat.objects.filter(role="watcher").count() == 0
    assert "Traceback" not in children[0].log_tail() + children[1].log_tail()


def test_it_ends_while_the_api_server_does_not_answer(simulator: Simulator, start_command: StartCommand) -> None:
    simulator.faults([{"do": "timeout-before", "verb": "list,watch,get", "seconds": 60}])
    child = start_command("watch_jobs")
    wait_until(lambda: leaders())

    child.stop()

    assert Heartbeat.objects.filter(role="watcher").count() == 0


def test_every_row_ends_as_the_server_says_through_breaks_410s_and_kills(
    simulator: Simulator, start_command: StartCommand
) -> None:
    randomness = random.Random(5)
    simulator.settings(run_seconds=0.5, termination_seconds=0.2)
    outcomes = list(ENDS)
    jobs = [queued_job(parser_id=f"{outcomes[n % len(outcomes)]}-{n}") for n in range(96)]
    simulator.outcomes(
        rules=[
            {"labels": {"kanikojobs.notifi.network/parser-id": job.parser_id}, "outcome": outcome_of(job)}
            for job in jobs
        ]
    )
    watcher = start_command("watch_jobs")
    wait_until(lambda: leaders())

    for step in range(8):
        create_some_more(jobs, step=step)
        simulator.break_watches(politely=step % 3 == 0)
        if step % 4 == 1:
            simulator.compact()
        if step in (2, 5):
            watcher.kill()
            watcher = start_command("watch_jobs")
        time.sleep(randomness.uniform(0, 0.3))
    finished = wait_finished(jobs)

    wanted = {job.pk: ENDS[outcome_of(job)] for job in jobs}
    assert {job.pk: (job.state, job.reason) for job in finished} == wanted
    counted = sum(total.count for total in tallies.totals(prefix="finished/").values())
    assert counted == len(jobs)


def outcome_of(job: KanikoJob) -> str:
    return job.parser_id.rpartition("-")[0]


def create_some_more(jobs: list[KanikoJob], *, step: int) -> None:
    """The next eighth of the Jobs: the others are held back until it is their turn."""
    if step == 0:
        KanikoJob.objects.filter(pk__in=[job.pk for job in jobs]).update(run_at="2999-01-01T00:00:00Z")
    KanikoJob.objects.filter(pk__in=[job.pk for job in jobs[step::8]]).update(run_at=None)
    create_all()
