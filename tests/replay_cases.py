"""Dead letters in every situation that a replay can find them in, for the tests of plans and of runs."""

import json
from collections import Counter
from datetime import UTC, datetime
from uuid import uuid4

from kanikojobs import dead_letters, intake
from kanikojobs.audit import Author
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob, Move, OperatorAction, ReplayItem, ReplayRun
from kanikojobs.replay import running
from kanikojobs.states import State
from tests.factories import a_kaniko_job, a_message

AN_OPERATOR = Author("an-operator", OperatorAction.Via.COMMAND)
QUEUE = JobStartEvent.Origin.QUEUE
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
Outcome = ReplayItem.Outcome


def an_expired(message: Message | None = None) -> DeadLetter:
    """A letter that RabbitMQ dead-lettered because it waited too long: a good event that never came in."""
    message = message or a_message()
    expired = Message(message.body, message.content_type, {"x-death": [{"reason": "expired", "queue": "kaniko-jobs"}]})
    dead_letters.record_from_broker([expired])
    return DeadLetter.objects.latest("id")


def an_invalid(body: bytes = b"{") -> DeadLetter:
    intake.record([Message(body, "application/json")], origin=QUEUE)
    return DeadLetter.objects.latest("id")


def recorded(message: Message | None = None) -> KanikoJob:
    """An event that came in, with its queued Kaniko Job."""
    intake.record([message or a_message()], origin=QUEUE)
    return KanikoJob.objects.latest("id")


def ended(
    job: KanikoJob, state: State, *, reason: str = "BuildStepFailed", message: str = "exit status 1"
) -> KanikoJob:
    """The Kaniko Job after its end; a failed one leaves a dead letter."""
    KanikoJob.objects.move([Move(id=job.pk, to=state, reason=reason, message=message, job_uid=uuid4())])
    if state == State.FAILED:
        dead_letters.record_failed_builds({job.pk: message})
    job.refresh_from_db()
    return job


def a_failed_build(event: Message | None = None, **why: str) -> DeadLetter:
    job = ended(recorded(event), State.FAILED, **why)
    return DeadLetter.objects.get(kaniko_job=job)


def a_conflict() -> DeadLetter:
    """An event whose identity is taken by another content."""
    first = a_message()
    intake.record([first], origin=QUEUE)
    event = json.loads(first.body)
    event["data"]["priority"] = 1 if event["data"]["priority"] != 1 else 2
    intake.record([Message(json.dumps(event).encode(), first.content_type)], origin=QUEUE)
    return DeadLetter.objects.latest("id")


def run_to_the_end(run: ReplayRun) -> ReplayRun:
    """Take every step, without waiting for any to be due, and look twice for results at the end."""
    looks = 0
    while looks < 2:
        ReplayRun.objects.filter(pk=run.pk, state__in=ReplayRun.LIVE).update(next_step_at=LONG_AGO)
        due = running.claim_due(run_id=run.pk)
        if not due:
            break
        taken = running.step(due[0])
        settle_jobs()
        looks += taken is not None and taken.state in (ReplayRun.State.SETTLING, ReplayRun.State.FINISHED)
    run.refresh_from_db()
    return run


def settle_jobs(state: State = State.CREATED) -> None:
    """What workers do: every queued Kaniko Job is created."""
    queued = KanikoJob.objects.filter(state=State.QUEUED)
    KanikoJob.objects.move([Move(id=job.pk, to=state, job_uid=uuid4()) for job in queued])


def every_case() -> Counter[Outcome]:
    """Letters in all situations; returns how many of them a replay of all is to bring to which outcome."""
    for _ in range(3):
        an_expired()
    for _ in range(2):
        a_failed_build()
    # The event of an expired message came in by another way, and is built, is being built, or has failed. The failed
    # build left a letter of its own, which comes after it and is about the same event.
    for state in (State.SUCCEEDED, State.RUNNING, State.FAILED):
        message = a_message()
        an_expired(message)
        ended(recorded(message), state)
    # Failed, and retried by somebody since: active, and built.
    for state in (State.RUNNING, State.SUCCEEDED):
        a_kaniko_job(event=a_failed_build().event, number=2, state=state)
    # The same event in two messages.
    twice = a_message()
    an_expired(twice)
    dead_letters.record_from_broker([Message(twice.body, twice.content_type, {"x-death": [{"reason": "maxlen"}]})])
    an_invalid(b"{")
    an_invalid(b'{"specversion": "1.0"}')
    an_invalid(b"\xff\xfe")
    a_conflict()
    other = json.loads(a_message().body) | {"source": "somebody.else"}
    an_expired(Message(json.dumps(other).encode(), "application/cloudevents+json"))
    return Counter(
        {
            Outcome.QUEUED: 7,
            Outcome.DUPLICATE: 2,
            Outcome.ALREADY_BUILT: 2,
            Outcome.ACTIVE: 2,
            Outcome.INVALID: 3,
            Outcome.CONFLICT: 1,
            Outcome.NOT_OURS: 1,
        }
    )
