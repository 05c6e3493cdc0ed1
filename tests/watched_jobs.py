"""Kaniko Jobs in the simulated cluster, and a watcher that follows them, for the tests of what comes after creation."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import connection, connections

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, naming
from kanikojobs.models import JobStartEvent, KanikoJob
from kanikojobs.states import FINISHED
from kanikojobs.watching import Watching
from tests.factories import a_kaniko_job, an_event

PATIENCE = 60.0  # seconds after which a test stops waiting and fails


def queued_job(**fields: Any) -> KanikoJob:
    """A queued Kaniko Job of an event of its own, under the name that creation gives it."""
    event: JobStartEvent = an_event(**{"source_url": "https://github.com/notifi/parsers/p"} | fields)
    return a_kaniko_job(
        event=event,
        namespace="kaniko-builds",
        name=naming.kubernetes_name(source=event.source, event_id=event.event_id, number=1, job_name=event.job_name),
    )


def created_jobs(count: int, **fields: Any) -> list[KanikoJob]:
    """Kaniko Jobs that exist in the cluster."""
    jobs = [queued_job(**fields) for _ in range(count)]
    create_all()
    return list(KanikoJob.objects.filter(id__in=[job.pk for job in jobs]).order_by("id"))


def create_all() -> None:
    """What a cluster does: claims and creates, until nothing is due."""
    while create_some():
        pass


def create_some(most: int = 40) -> int:
    """One claim and its task; return how many were claimed."""
    claim = claims.claim(most=most, lease=timedelta(minutes=1))
    creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)
    return len(claim.kaniko_jobs)


@contextmanager
def watching(**options: Any) -> Iterator[Watching]:
    """A watcher in a thread of this process."""
    watcher = Watching(**options)

    def run() -> None:
        try:
            watcher.run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="watcher")
    thread.start()
    try:
        yield watcher
    finally:
        watcher.stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until(true: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait for something to be so; fail when it takes too long."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def wait_finished(jobs: Sequence[KanikoJob], *, seconds: float = PATIENCE) -> list[KanikoJob]:
    """Wait until these are finished and their evidence is captured; return them anew, in their order."""
    ids = [job.pk for job in jobs]

    def done() -> bool:
        finished = KanikoJob.objects.filter(id__in=ids, state__in=FINISHED)
        return finished.count() == len(ids)

    wait_until(done, seconds=seconds)
    found = KanikoJob.objects.select_related("event").in_bulk(ids)
    return [found[id] for id in ids]


def wait_captured(jobs: Sequence[KanikoJob]) -> None:
    """Wait until the evidence of these has been read."""
    ids = [job.pk for job in jobs]
    with connection.cursor() as cursor:

        def done() -> bool:
            cursor.execute(
                "SELECT count(captured_at) FROM kanikojobs_jobevidence WHERE kaniko_job_id = ANY (%s)",
                [ids],
            )
            return bool(cursor.fetchone()[0] == len(ids))

        wait_until(done)


def outcome_of_each(simulator: Simulator, outcomes: Sequence[str]) -> dict[str, KanikoJob]:
    """A Kaniko Job in the cluster for each outcome, by outcome."""
    parsers = {outcome: f"parser-{outcome}" for outcome in outcomes}
    simulator.outcomes(
        rules=[
            {"labels": {f"{naming.PREFIX}parser-id": parser}, "outcome": outcome} for outcome, parser in parsers.items()
        ]
    )
    jobs = {outcome: queued_job(parser_id=parser) for outcome, parser in parsers.items()}
    create_all()
    return jobs
