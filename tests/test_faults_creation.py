"""Several clusters, an API server that fails now and then, and workers that are killed: still exactly one Job each.

The small size is part of every run of the suite. `FULL_SIZE=1 pytest tests/test_faults_creation.py` is the size that
is promised: 3 clusters and 2,000 events under faults, 5,000 of one third party behind its cap, 5,000 through an outage
of a minute.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db.models import Count, Sum
from django.test import Client

from deploy.local.process_tree import tree
from deploy.local.processes import Child
from deploy.local.simulator import Simulator
from kanikojobs.models import DeadLetter, Heartbeat, JobAttempt, KanikoJob, Outage
from tests.creating import queue_events
from tests.scraped import by_label, scrape, value
from tests.stack_plugin import StartCommand

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]

FULL = bool(os.environ.get("FULL_SIZE"))


@dataclass(frozen=True, slots=True)
class Size:
    clusters: int
    events: int
    kill_every: float
    outage: float
    seconds: float


SIZE = Size(3, 2000, 3.0, 60.0, 300.0) if FULL else Size(2, 200, 1.0, 2.0, 60.0)

# Short, so that what a killed worker held is claimed again within the test.
IMPATIENT = {
    "KANIKOJOBS_KUBERNETES_TIMEOUT": "1s",
    "KANIKOJOBS_TASK_TIMEOUT": "5s",
    "KANIKOJOBS_LEASE": "6s",
    "KANIKOJOBS_WORKER_COUNT": "3",
    "KANIKOJOBS_LOG_LEVEL": "WARNING",
}


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + SIZE.seconds
    while not true():
        assert time.monotonic() < end, dict(
            KanikoJob.objects.values_list("state").annotate(count=Count("id")).values_list("state", "count")
        )
        time.sleep(0.05)


def start_clusters(start_command: StartCommand, count: int, **env: str) -> list[Child]:
    clusters = [start_command("qcluster", env=IMPATIENT | env) for _ in range(count)]
    until(lambda: Heartbeat.objects.filter(role="workers").count() == count)
    return clusters


def kill_a_worker(cluster: Child, *, chance: random.Random) -> None:
    """SIGKILL for one of its workers, if it has some: a child of the sentinel that is not its pusher or monitor."""
    members = tree(cluster.pid)
    sentinel = min(members - {cluster.pid}, default=cluster.pid)
    names = {pid: threads_of(pid) for pid in members - {cluster.pid, sentinel}}
    if names:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(sorted(names)[:3]), signal.SIGKILL)


def threads_of(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    return 0


def outcomes() -> Counter[str]:
    return Counter(dict(JobAttempt.objects.values_list("outcome").annotate(count=Count("id"))))


def assert_that_counters_equal_rows(client: Client) -> None:
    """What `/metrics` says of attempts is what their rows say, to the last one."""
    # The watcher can see a Job end before the worker that made it has written down the answer.
    until(lambda: not JobAttempt.objects.filter(outcome="started").exists())
    rows, samples = outcomes(), scrape(client)
    successes = rows["created"] + rows["adopted"]
    made = JobAttempt.objects.filter(duration__isnull=False).aggregate(count=Count("id"), seconds=Sum("duration"))

    assert by_label(samples, "kanikojobs_creation_attempts_total", "outcome") == rows
    assert value(samples, "kaniko_job_creation_success_total") == successes
    assert value(samples, "kaniko_job_creation_failure_total") == rows.total() - successes
    assert value(samples, "job_creation_duration_seconds_count") == made["count"]
    assert value(samples, "job_creation_duration_seconds_sum") == pytest.approx(made["seconds"])


def test_exactly_one_job_each_under_faults_and_killed_workers(
    simulator: Simulator, start_command: StartCommand, client: Client
) -> None:
    simulator.faults(
        [
            {"do": "status", "status": 500, "verb": "create", "probability": 0.05, "seed": 1},
            {"do": "status", "status": 429, "retry_after": 1, "verb": "create", "probability": 0.05, "seed": 2},
            {"do": "timeout-after", "verb": "create", "probability": 0.02, "seed": 3},
            {"do": "drop", "verb": "create", "probability": 0.005, "seed": 4},
            {"do": "drop-after", "verb": "create", "probability": 0.005, "seed": 5},
        ]
    )
    # Ten tries each: at these rates not one of thousands runs out of them.
    clusters = start_clusters(start_command, SIZE.clusters, KANIKOJOBS_MAX_RETRIES="9")
    chance = random.Random(7)
    queue_events(SIZE.events)

    next_kill = time.monotonic() + SIZE.kill_every
    end = time.monotonic() + SIZE.seconds
    killed = 0
    until(lambda: JobAttempt.objects.exists())
    clusters[0].kill()
    clusters[0].start()
    while KanikoJob.objects.exclude(state="created").exists():
        assert time.monotonic() < end, (outcomes(), list(KanikoJob.objects.exclude(state="created").values()[:3]))
        if time.monotonic() > next_kill:
            kill_a_worker(chance.choice(clusters), chance=chance)
            killed += 1
            next_kill += SIZE.kill_every
        time.sleep(0.1)

    stats = simulator.stats()
    assert killed
    assert stats["creates"]["identities"] == stats["creates"]["total"] == SIZE.events
    assert stats["creates"]["repeated_identities"] == {}
    assert_that_counters_equal_rows(client)
    posts = sum(count for request, count in stats["requests"].items() if request.startswith("create "))
    # A worker that was killed between its row and its call has made no call.
    assert posts <= JobAttempt.objects.count() <= posts + outcomes()["lost"]
    assert outcomes()["created"] + outcomes()["adopted"] == SIZE.events
    print(f"{killed} workers killed, {posts} calls, attempts: {dict(outcomes())}")


def test_no_more_are_active_than_the_caps_allow_and_a_lone_event_passes(
    simulator: Simulator, start_command: StartCommand, client: Client
) -> None:
    cap, third_party_cap = (50, 10) if FULL else (12, 4)
    many = 5000 if FULL else 60
    simulator.settings(pod_start_seconds=0.0, run_seconds=0.2)
    simulator.faults([{"do": "timeout-after", "verb": "create", "probability": 0.05, "seed": 1}])
    caps = {
        "KANIKOJOBS_MAX_ACTIVE_JOBS": str(cap),
        "KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY": str(third_party_cap),
    }
    start_command("watch_jobs", env=caps)
    clusters = start_clusters(start_command, SIZE.clusters, **caps)
    queue_events(many, third_party="busy", priority=5)
    until(lambda: KanikoJob.objects.filter(state="succeeded").count() > third_party_cap)

    queued_at = datetime.now(UTC)
    (lone,) = queue_events(1, seed="lone", third_party="lone", priority=5)
    until(lambda: KanikoJob.objects.filter(pk=lone.pk, created_at__isnull=False).exists())
    waited = KanikoJob.objects.get(pk=lone.pk).created_at - queued_at  # type: ignore[operator]
    still_waiting = KanikoJob.objects.filter(third_party_id="busy", state="queued").count()
    for name in "abcd":
        queue_events(2 * third_party_cap, seed=name, third_party=name, priority=5)
    until(lambda: not KanikoJob.objects.exclude(third_party_id="busy").exclude(state="succeeded").exists())
    if FULL:
        # The rest would take minutes behind its cap, and nothing can be counted while it is being worked off.
        for cluster in clusters:
            cluster.stop()
    else:
        until(lambda: not KanikoJob.objects.exclude(state="succeeded").exists())

    stats = simulator.stats()
    assert still_waiting > third_party_cap
    assert stats["max_active"] <= cap
    assert max(stats["max_active_by"]["third_party"].values()) <= third_party_cap
    assert stats["max_active_by"]["third_party"]["busy"] == third_party_cap
    assert stats["creates"]["repeated_identities"] == {}
    assert_that_counters_equal_rows(client)
    print(
        f"the lone event's Job was there after {waited.total_seconds():.2f} s, {still_waiting} of the others waited, "
        f"at most {stats['max_active']} were active"
    )


def test_an_outage_fails_nothing_and_costs_attempts_in_the_tens(
    simulator: Simulator, start_command: StartCommand, client: Client
) -> None:
    many = 5000 if FULL else 300
    clusters = start_clusters(start_command, SIZE.clusters)
    simulator.outage(SIZE.outage)
    back_at = time.time() + SIZE.outage
    queue_events(many)

    until(lambda: Outage.objects.filter(ongoing=True).exists())
    during = []
    while time.time() < back_at - 0.5:
        # Attempts that were opened and found no use in a call are withdrawn a moment later.
        during.append(JobAttempt.objects.exclude(outcome="started").count())
        time.sleep(0.2)
    until(lambda: not KanikoJob.objects.exclude(state="created").exists())

    stats = simulator.stats()
    created: list[dict[str, Any]] = [entry for entry in stats["sequence"] if entry["do"] == "create"]
    assert all(cluster.running for cluster in clusters)
    assert max(during) <= 50
    assert outcomes()["unavailable"] <= 50
    assert outcomes()["created"] == many
    assert_that_counters_equal_rows(client)
    assert not DeadLetter.objects.exists()
    assert not KanikoJob.objects.exclude(retries_used=0).exists()
    assert stats["creates"]["total"] == many
    print(
        f"{max(during)} attempts during the outage, first Job {created[0]['at'] - back_at:.1f} s after it, "
        f"then {len(created) / (created[-1]['at'] - created[0]['at']):.0f} a second"
    )
