"""Many hands on the same rows at once: leases that run out too early, releases, cancellations; still one Job each."""

import random
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, tallies
from kanikojobs.models import JobAttempt, KanikoJob, Move
from kanikojobs.states import State
from tests.creating import queue_events, work_off

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], None]) -> None:
    failures: list[Exception] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as failure:
            failures.append(failure)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_leases_that_run_out_while_the_work_goes_on_give_one_job_each(simulator: Simulator) -> None:
    queue_events(60)

    def hasty() -> None:
        for _ in range(8):
            claim = claims.claim(most=12, lease=timedelta(milliseconds=1))
            creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    at_once(*[hasty] * 4)
    work_off()

    stats = simulator.stats()
    assert stats["creates"]["identities"] == stats["creates"]["total"] == 60
    assert set(KanikoJob.objects.values_list("state", flat=True)) == {"created"}
    counted = {
        name.removeprefix("creation/"): total.count for name, total in tallies.totals(prefix="creation/").items()
    }
    assert counted == {
        outcome: JobAttempt.objects.filter(outcome=outcome).count()
        for outcome in JobAttempt.objects.values_list("outcome", flat=True)
    }


def test_claims_that_are_given_back_meanwhile_lose_no_row(simulator: Simulator) -> None:
    queue_events(60)
    chance = random.Random(3)

    def fickle() -> None:
        for _ in range(8):
            claim = claims.claim(most=12, lease=timedelta(seconds=60))
            if chance.random() < 0.5:
                claims.release(token=claim.token)
            creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    at_once(*[fickle] * 4)
    work_off()

    assert simulator.stats()["creates"]["total"] == simulator.stats()["creates"]["identities"] == 60
    assert not JobAttempt.objects.filter(outcome="started").exists()


def test_who_cancels_and_who_creates_agree_on_the_outcome(simulator: Simulator) -> None:
    jobs = queue_events(60)

    def create() -> None:
        for _ in range(10):
            claim = claims.claim(most=8, lease=timedelta(seconds=60))
            creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    def cancel() -> None:
        for job in jobs[::2]:
            KanikoJob.objects.move([Move(id=job.pk, to=State.CANCELLED, reason="Cancelled")])

    at_once(create, create, cancel)
    work_off()

    states = dict(KanikoJob.objects.values_list("id", "state"))
    assert {states[job.pk] for job in jobs[::2]} == {"cancelled"}
    assert {states[job.pk] for job in jobs[1::2]} == {"created"}
    assert not KanikoJob.objects.filter(claim__isnull=False).exists()
    assert not JobAttempt.objects.filter(outcome="started").exists()
