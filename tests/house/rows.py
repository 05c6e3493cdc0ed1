"""What the demo has not, for a browser to look at: a week's counts, and rows that take days or an accident.

`python -m tests.house.rows PASSWORD FILE` adds them to the database that DATABASE_URL names and writes which row of
each model is worth looking at into the file, as JSON: primary keys by the model's name, and some rows by their own.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.house.settings")
    django.setup()

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from rest_framework.authtoken.models import TokenProxy

from kanikojobs import dead_letters
from kanikojobs.audit import Author
from kanikojobs.messages import Message
from kanikojobs.models import (
    BuildProfile,
    DeadLetter,
    Drift,
    FailureGroup,
    FailureGroupHour,
    KanikoJob,
    OperatorAction,
    Outage,
    PruneRun,
    ReplayItem,
    ReplayRun,
    Tally,
)
from kanikojobs.replay import running, runs
from kanikojobs.replay.runs import Pace
from kanikojobs.replay.selection import Selection
from kanikojobs.tallies import BUCKETS
from tests.factories import a_kaniko_job, a_message, a_replay_rule, an_event
from tests.sample_events import sample_event

HOSTILE = "<script>document.title='forged'</script>"
STRANGER = "stranger"
PERSON = Author(name="night-shift", via=OperatorAction.Via.ADMIN)


def furnish(*, password: str) -> dict[str, int]:
    """Add the rows, with a person of this password; return which to look at."""
    chance, now = random.Random(7), datetime.now(UTC)
    Tally.objects.bulk_create(_tallies(chance, now=now), ignore_conflicts=True)
    _people(password)
    hostile = _hostile(now=now)
    _an_old_cause(chance, now=now)
    _expired()
    _replays(now=now)
    _accidents(now=now, job=hostile)
    return _worth_looking_at()


def _tallies(chance: random.Random, *, now: datetime) -> Iterator[Tally]:
    """A week of work, by day more than by night, up to the hour before the demo."""

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
    for at in (minute - timedelta(minutes=age) for age in range(5, 90)):
        busy = chance.randint(30, 70)
        yield row("minute", at, "creation/created", busy)
        yield row("minute", at, "creation/retry", chance.randint(0, 2))
        yield row("minute", at, "intake/queue/recorded", busy + chance.randint(-3, 3))
    for at in (hour - timedelta(hours=age) for age in range(1, 24 * 7 + 1)):
        busy = (3200 if 7 <= at.hour <= 18 else 1400) + chance.randint(-200, 200)
        yield row("hour", at, "creation/created", busy)
        yield row("hour", at, "creation/retry", chance.randint(5, 60))
        yield row("hour", at, "intake/queue/recorded", busy)


def _people(password: str) -> None:
    """Somebody who may log in and see nothing, a group, a token, and a change in somebody's history."""
    stranger = User.objects.create_user(STRANGER, password=password, is_staff=True)
    Group.objects.create(name="Those who only look")
    TokenProxy.objects.create(user=stranger)
    LogEntry.objects.create(
        user=User.objects.get(is_superuser=True),
        content_type=ContentType.objects.get_for_model(User),
        object_id=str(stranger.pk),
        object_repr=str(stranger),
        action_flag=CHANGE,
        change_message="Changed password.",
    )


def _hostile(*, now: datetime) -> KanikoJob:
    """A build whose failure is told in words that would like to be a script."""
    message = f"repository not found: {HOSTILE}"
    job = a_kaniko_job(
        event=an_event(third_party_id="third-party-1", received_at=now - timedelta(hours=2)),
        state="failed",
        reason="SourceNotFound",
        message=message,
        job_uid=uuid4(),
        created_at=now - timedelta(minutes=53),
        running_at=now - timedelta(minutes=52),
        finished_at=now - timedelta(minutes=50),
    )
    dead_letters.record_failed_builds({job.pk: message})
    return job


def _an_old_cause(chance: random.Random, *, now: datetime) -> None:
    """One cause has been there for days, was replayed, and came back."""
    old = FailureGroup.objects.get(signature__startswith="PushDenied")
    FailureGroup.objects.filter(pk=old.pk).update(first_seen_at=now - timedelta(days=3), state="regressed")
    hour = now.replace(minute=0, second=0, microsecond=0)
    FailureGroupHour.objects.bulk_create(
        FailureGroupHour(group=old, hour=hour - timedelta(hours=age), deaths=chance.randint(1, 9))
        for age in range(1, 60, 3)
    )


def _expired() -> None:
    late = {"x-death": [{"reason": "expired", "queue": "kaniko-jobs", "count": 1}]}
    message = a_message(sample_event(9003))
    dead_letters.record_from_broker([Message(message.body, message.content_type, late)])


def _replays(*, now: datetime) -> None:
    """A replay that stands still after its first step, and the rule of a person."""
    a_replay_rule(name="Rate limits pass", enabled=True, made_by=PERSON.name)
    group = FailureGroup.objects.get(signature__startswith="SourceNotAllowed")
    run = runs.start(
        selection=Selection(groups=(group.fingerprint,)),
        cut_off=now + timedelta(minutes=1),
        pace=Pace(rate=20, probe=2, max_failure_rate=10),
        author=PERSON,
        reason="The address is allowed now.",
    )
    running.first_step(run)
    runs.pause(run_id=run.pk, author=PERSON, reason="Let us look at the first ones.")


def _accidents(*, now: datetime, job: KanikoJob) -> None:
    message = "The Job was gone; its row is failed."
    Drift.objects.create(kind="JobVanished", namespace="builds", name=job.name, message=message)
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
    PruneRun.objects.create(ongoing=False, removed={"events": 1200}, started_at=began, finished_at=now)


def _worth_looking_at() -> dict[str, int]:
    """Of most models the latest row; of some one with much to see."""
    latest = {
        model._meta.label_lower: row.pk
        for model in admin.site._registry
        if (row := model._default_manager.order_by("-pk").first()) is not None
    }
    failed = KanikoJob.objects.filter(number=1, reason="BuildStepFailed", event__times_seen=2).earliest("id")
    return latest | {
        "kanikojobs.jobstartevent": failed.event_id,
        "kanikojobs.kanikojob": failed.pk,
        "kanikojobs.jobattempt": failed.attempts.earliest("id").pk,
        "kanikojobs.deadletter": DeadLetter.objects.filter(cause="invalid", reason__contains="missing")
        .earliest("id")
        .pk,
        "kanikojobs.failuregroup": FailureGroup.objects.get(signature__startswith="PushDenied").pk,
        "kanikojobs.replayitem": ReplayItem.objects.exclude(outcome="").latest("id").pk,
        "running Kaniko Job": KanikoJob.objects.filter(state="running").earliest("id").pk,
        "Kaniko Job that no node has room for": KanikoJob.objects.filter(reason="Unschedulable").earliest("id").pk,
        "Kaniko Job that waits": KanikoJob.objects.filter(state="queued").earliest("id").pk,
        "built Kaniko Job": KanikoJob.objects.filter(state="succeeded", number=2).earliest("id").pk,
        "dead letter of a build": DeadLetter.objects.filter(cause="build-failed", state="open").earliest("id").pk,
        "finished replay": ReplayRun.objects.earliest("id").pk,
    }


if __name__ == "__main__":
    password, file = sys.argv[1:]
    Path(file).write_text(json.dumps(furnish(password=password)))
