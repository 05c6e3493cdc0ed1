"""What tests of creation share: rows that wait, and a cluster of workers in the test's own process."""

import json
import time
from typing import Any

from django.conf import settings

from kanikojobs import claims, creation, intake
from kanikojobs.messages import Message
from kanikojobs.models import JobStartEvent, KanikoJob
from kanikojobs.states import State
from tests.sample_events import sample_event


def queue_events(count: int = 1, *, first: int = 0, seed: str = "creating", **fields: Any) -> list[KanikoJob]:
    """Record so many sample events; return their Kaniko Jobs, which are queued."""
    events = [sample_event(n, seed=seed, **fields) for n in range(first, first + count)]
    messages = [Message(json.dumps(event).encode(), "application/cloudevents+json") for event in events]
    for start in range(0, count, 500):
        result = intake.record(messages[start : start + 500], origin=JobStartEvent.Origin.QUEUE)
        assert result.recorded == len(messages[start : start + 500])
    return list(KanikoJob.objects.filter(event__event_id__in=[event["id"] for event in events]).order_by("id"))


def work(*, most: int = 8, on_trial: bool = False) -> creation.CreationResult:
    """One claim and its task."""
    claim = claims.claim(most=most, lease=settings.KANIKOJOBS_LEASE, on_trial=on_trial)
    return creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs, on_trial=on_trial)


def work_off(*, seconds: float = 60.0) -> None:
    """Work until nothing waits any more, retries included."""
    deadline = time.monotonic() + seconds
    while KanikoJob.objects.filter(state__in=[State.QUEUED, State.CREATING]).exists():
        assert time.monotonic() < deadline, list(KanikoJob.objects.values("state", "reason", "message")[:5])
        if not work().created:
            time.sleep(0.01)
