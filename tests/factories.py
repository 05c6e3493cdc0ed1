"""Rows for tests: each function writes one that could be, and takes what the test is about as keywords."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from kanikojobs.messages import Message
from kanikojobs.models import (
    DeadLetter,
    FailureGroup,
    JobAttempt,
    JobStartEvent,
    KanikoJob,
    ReplayItem,
    ReplayRule,
    ReplayRun,
)
from kanikojobs.states import FINISHED, HAS_A_UID, State
from tests.sample_events import EVENT_SOURCE, EVENT_TYPE, sample_event

_numbers = count(1)


def an_event(**fields: Any) -> JobStartEvent:
    number = next(_numbers)
    values: dict[str, Any] = {
        "event_id": f"event-{number}",
        "source": EVENT_SOURCE,
        "type": EVENT_TYPE,
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "data": sample_event(number)["data"],
        "third_party_id": "third-party",
        "parser_id": f"parser-{number}",
        "correlation_id": f"correlation-{number}",
        "job_name": f"kaniko-job-{number}",
        "priority": 5,
        "build_type": "container",
        "build_timeout": 1800,
        "content_hash": hashlib.sha256(str(number).encode()).digest(),
        "origin": JobStartEvent.Origin.QUEUE,
    }
    return JobStartEvent.objects.create(**values | fields)


def a_kaniko_job(*, event: JobStartEvent | None = None, state: State | str = State.QUEUED, **fields: Any) -> KanikoJob:
    """In any state, with what the database demands of that state."""
    event = event or an_event()
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "event": event,
        "state": state,
        "name": f"kaniko-job-{next(_numbers)}",
        "namespace": "builds",
        "priority": event.priority,
        "third_party_id": event.third_party_id,
        "parser_id": event.parser_id,
    }
    if state == State.CREATING:
        values |= {"claim": uuid4(), "leased_until": now + timedelta(minutes=1), "creating_at": now}
    if state in HAS_A_UID:
        values |= {"job_uid": uuid4(), "created_at": now}
    if state in FINISHED:
        values |= {"finished_at": now}
    return KanikoJob.objects.create(**values | fields)


def an_attempt(*, kaniko_job: KanikoJob | None = None, **fields: Any) -> JobAttempt:
    return JobAttempt.objects.create(**{"kaniko_job": kaniko_job or a_kaniko_job(), "number": 1} | fields)


def a_dead_letter(**fields: Any) -> DeadLetter:
    body = fields.get("body", f"letter {next(_numbers)}".encode())
    values: dict[str, Any] = {
        "cause": DeadLetter.Cause.INVALID,
        "origin": JobStartEvent.Origin.QUEUE,
        "reason": "body: not JSON",
        "fingerprint": hashlib.sha256(b"body: not JSON").hexdigest(),
        "body": body,
        "message_hash": hashlib.sha256(body).digest(),
    }
    return DeadLetter.objects.create(**values | fields)


def a_failure_group(**fields: Any) -> FailureGroup:
    signature = fields.get("signature", f"cause {next(_numbers)}")
    values: dict[str, Any] = {
        "fingerprint": hashlib.sha256(signature.encode()).hexdigest(),
        "cause": DeadLetter.Cause.INVALID,
        "signature": signature,
        "sample": signature,
    }
    return FailureGroup.objects.create(**values | fields)


def a_replay_rule(**fields: Any) -> ReplayRule:
    values: dict[str, Any] = {
        "name": f"rule {next(_numbers)}",
        "transient_class": "rate-limited",
        "made_by": "an-operator",
        "reason": "It passes by itself.",
    }
    return ReplayRule.objects.create(**values | fields)


def a_replay_run(**fields: Any) -> ReplayRun:
    values: dict[str, Any] = {
        "selection": {},
        "cut_off": datetime.now(UTC),
        "author_name": "an-operator",
        "reason": "The registry is back.",
    }
    return ReplayRun.objects.create(**values | fields)


def a_replay_item(**fields: Any) -> ReplayItem:
    run, letter = fields.pop("run", None) or a_replay_run(), fields.pop("letter", None) or a_dead_letter()
    return ReplayItem.objects.create(**{"run": run, "letter": letter, "position": 1} | fields)


def a_message(event: dict[str, Any] | None = None, **changes: Any) -> Message:
    """A structured CloudEvent as RabbitMQ hands it over: valid, new, with changes to its attributes."""
    event = sample_event(next(_numbers)) if event is None else event
    return Message(json.dumps(event | changes).encode(), "application/cloudevents+json")
