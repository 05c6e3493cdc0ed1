"""The rows of the house. Seeded by a fixed number, so that every browser sees the same.

`python -m tests.house.rows USER PASSWORD FILE` makes and fills the tables of the database that DATABASE_URL names, adds
the user, who may do everything, and writes the address of each page to look at into the file, as JSON by name.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.house.settings")
    django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.urls import reverse

from kanikojobs import dead_letters, heartbeats, intake
from kanikojobs.messages import Message
from kanikojobs.models import (
    BuildProfile,
    DeadLetter,
    Drift,
    FailureGroup,
    FailureGroupHour,
    Heartbeat,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    Outage,
    ReplayRun,
    Tally,
)
from kanikojobs.replay import running, runs
from kanikojobs.replay.runs import Pace
from kanikojobs.replay.selection import Selection
from kanikojobs.tallies import BUCKETS
from tests.factories import a_kaniko_job, a_message, a_replay_rule, an_event
from tests.house import story
from tests.house.story import PERSON, Story
from tests.sample_events import sample_event

HOSTILE = "<script>document.title='forged'</script>"
QUEUE = JobStartEvent.Origin.QUEUE
FAILURES = (
    ("BuildStepFailed", story.ERROR),
    ("OOMKilled", "The container was killed for its memory (limit 2Gi)."),
    ("PushDenied", "denied: requested access to the resource is denied"),
    ("SourceNotFound", f"repository not found: {HOSTILE}"),
)


def furnish() -> dict[str, str]:
    """Fill an empty database. Returns the address of each page of one row, by the page's name."""
    chance, now = random.Random(7), datetime.now(UTC)
    Tally.objects.bulk_create(_tallies(chance, now=now))
    for role in Heartbeat.Role:
        heartbeats.Pulse(role).beat({"leads": True, "workers": 5, "rabbitmq": True, "queue_depth": 412})
    # Nobody beats on, and the house is to look alive for as long as somebody looks.
    Heartbeat.objects.update(seen_at=now + timedelta(hours=1))
    running_job = _unfinished(chance, now=now)
    _failures(chance, now=now)
    told = story.tell(now=now)
    letter = _unusable()
    run = _replays(now=now)
    _odds(now=now, failed=told.failed)
    return _addresses(told, running_job=running_job, letter=letter, run=run)


def _tallies(chance: random.Random, *, now: datetime) -> Iterator[Tally]:
    def row(span: str, at: datetime, series: str, count: int) -> Tally:
        timed = series.startswith("creation/")
        buckets = [0] * (len(BUCKETS) + 1)
        for _ in range(min(count, 60)):
            buckets[min(len(BUCKETS), max(0, round(chance.gauss(2.5, 1.3))))] += 1
        return Tally(
            span=span,
            since=at,
            series=series,
            shard=1,
            count=count,
            seconds=count * 0.02 if timed else 0,
            buckets=buckets if timed else [],
        )

    minute, hour = now.replace(second=0, microsecond=0), now.replace(minute=0, second=0, microsecond=0)
    for at in (minute - timedelta(minutes=age) for age in range(90)):
        busy = chance.randint(30, 70)
        yield row("minute", at, "creation/created", busy)
        yield row("minute", at, "creation/retry", chance.randint(0, 2))
        yield row("minute", at, "intake/queue/recorded", busy + chance.randint(-3, 3))
    for at in (hour - timedelta(hours=age) for age in range(24 * 7 + 1)):
        busy = (3200 if 7 <= at.hour <= 18 else 1400) + chance.randint(-200, 200)
        yield row("hour", at, "creation/created", busy)
        yield row("hour", at, "creation/retry", chance.randint(5, 60))
        yield row("hour", at, "intake/queue/recorded", busy)
    for series, count in (("creation/created", 402_117), ("creation/retry", 4_119), ("intake/queue/recorded", 402_300)):
        yield row("all", datetime.fromtimestamp(0, UTC), series, count)


def _unfinished(chance: random.Random, *, now: datetime) -> KanikoJob:
    """What waits and what runs. Returns one that runs."""
    for number in range(16):
        party = f"third-party-{min(3, number % 7)}"
        event = an_event(third_party_id=party, parser_id=f"parser-{number % 11}", priority=1 + number % 10)
        state = ("queued", "running", "running", "created")[number % 4]
        since = now - timedelta(seconds=chance.randint(40, 90))
        times = {"running_at": now - timedelta(minutes=chance.randint(1, 40))} if state == "running" else {}
        waits = {"reason": "Unschedulable", "message": "0/3 nodes are available"} if number % 12 == 3 else {}
        a_kaniko_job(event=event, state=state, queued_at=since, **times, **waits)
    return KanikoJob.objects.filter(state="running").earliest("id")


def _failures(chance: random.Random, *, now: datetime) -> None:
    for number in range(12):
        reason, message = FAILURES[min(3, number % 9 // 2)]
        event = an_event(third_party_id=f"third-party-{number % 5}", received_at=now - timedelta(hours=2))
        finished = now - timedelta(minutes=chance.randint(1, 50))
        job = a_kaniko_job(
            event=event,
            state="failed",
            reason=reason,
            message=message,
            job_uid=uuid4(),
            created_at=finished - timedelta(minutes=3),
            running_at=finished - timedelta(minutes=2),
            finished_at=finished,
        )
        dead_letters.record_failed_builds({job.pk: message})
    # One cause has been there for days; the others are new.
    old = FailureGroup.objects.get(signature__contains="denied")
    FailureGroup.objects.filter(pk=old.pk).update(first_seen_at=now - timedelta(days=3), state="regressed")
    hour = now.replace(minute=0, second=0, microsecond=0)
    FailureGroupHour.objects.bulk_create(
        FailureGroupHour(group=old, hour=hour - timedelta(hours=age), deaths=chance.randint(1, 9))
        for age in range(1, 60, 3)
    )


def _unusable() -> DeadLetter:
    """What could not be used: one that the broker gave up, one with another's identity, and one with faults."""
    known = a_message(sample_event(9001))
    changed = json.loads(known.body)
    changed["data"]["priority"] = 11 - changed["data"]["priority"]
    late = {"x-death": [{"reason": "expired", "queue": "kaniko-jobs", "count": 1}]}
    faulty = sample_event(9002)
    del faulty["data"]["third_party_id"]
    faulty["data"]["parameters"] |= {"priority": 99, "source_url": f"ftp://{HOSTILE}"}
    intake.record([known, Message(json.dumps(changed).encode(), known.content_type)], origin=QUEUE)
    dead_letters.record_from_broker([Message(a_message(sample_event(9003)).body, known.content_type, late)])
    intake.record([Message(json.dumps(faulty).encode(), known.content_type)], origin=QUEUE)
    return DeadLetter.objects.latest("id")


def _replays(*, now: datetime) -> ReplayRun:
    """A replay that stands still after its first step, and the rule of a person."""
    a_replay_rule(name="Rate limits pass", enabled=True, made_by=PERSON.name)
    group = FailureGroup.objects.get(signature__contains="memory")
    run = runs.start(
        selection=Selection(groups=(group.fingerprint,)),
        cut_off=now + timedelta(minutes=1),
        pace=Pace(rate=20, probe=2, max_failure_rate=10),
        author=PERSON,
        reason="The nodes have more memory now.",
    )
    running.first_step(run)
    runs.pause(run_id=run.pk, author=PERSON, reason="Let us look at the first ones.")
    return run


def _odds(*, now: datetime, failed: KanikoJob) -> None:
    message = "The Job was gone; its row is failed."
    Drift.objects.create(kind="JobVanished", namespace="builds", name=failed.name, message=message)
    began = now - timedelta(hours=5)
    Outage.objects.create(
        ongoing=False,
        reason="ConnectionRefused",
        message="[Errno 111] Connection refused",
        started_at=began,
        ended_at=began + timedelta(seconds=72),
        probes=71,
    )
    BuildProfile.objects.create(third_party_id="third-party-9", resources="memory_limit=8Gi", max_active_jobs=4)


def _addresses(told: Story, *, running_job: KanikoJob, letter: DeadLetter, run: ReplayRun) -> dict[str, str]:
    def page(row: Any) -> str:
        return reverse(f"admin:kanikojobs_{row._meta.model_name}_change", args=[row.pk])

    group = FailureGroup.objects.get(signature__contains="denied")
    return {
        "event": page(told.event),
        "failed Kaniko Job": page(told.failed),
        "running Kaniko Job": page(running_job),
        "attempt": page(told.failed.attempts.earliest("id")),
        "dead letter": page(letter),
        "mending a dead letter": reverse("admin:kanikojobs_deadletter_mend", args=[letter.pk]),
        "failure group": page(group),
        "plan of a replay": f"{reverse('admin:kanikojobs_replayrun_plan')}?groups={group.fingerprint}",
        "replay": page(run),
        "operator action": page(OperatorAction.objects.latest("id")),
        "outage": page(Outage.objects.latest("id")),
        "build profile": page(BuildProfile.objects.latest("id")),
    }


if __name__ == "__main__":
    user, password, file = sys.argv[1:]
    call_command("migrate", verbosity=0, skip_checks=True)
    User.objects.create_superuser(user, password=password)
    Path(file).write_text(json.dumps(furnish()))
