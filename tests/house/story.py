"""One event from beginning to end: handed over twice, tried twice, failed, retried by a person, built."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from kanikojobs import dead_letters, retry
from kanikojobs.audit import Author
from kanikojobs.models import ContainerLog, JobEvidence, JobStartEvent, KanikoJob, OperatorAction
from tests.factories import a_kaniko_job, an_attempt, an_event

EVENT_ID = "0b0c4d6e-parser-9"
CORRELATION_ID = "release-2026-41"
PARSER_ID = "parser-9"
POD = "kaniko-job-parser-9-1-x7k2p"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UID = UUID("0f3c6a1e-5b7d-4c55-9d0a-6f1f0e5a7c21")
DIGEST = "sha256:" + "9f86d081884c7d65" * 4
ERROR = "RUN pip install -r requirements.txt: No matching distribution found for left-padd==1.0"
LOG = (
    "INFO[0003] Resolved base name python:3.11-slim to build\n"
    "INFO[0012] RUN pip install -r requirements.txt\n"
    "ERROR: No matching distribution found for left-padd==1.0\n"
    "error building image: waiting for process to exit: exit status 1\n"
)
WHY = "The package index was down; try again."
PERSON = Author(name="night-shift", via=OperatorAction.Via.ADMIN)


@dataclass(frozen=True, slots=True)
class Story:
    event: JobStartEvent
    failed: KanikoJob
    built: KanikoJob


def tell(*, now: datetime) -> Story:
    """Write the story's rows; it began half an hour before `now`."""
    start = now - timedelta(minutes=30)
    event = an_event(
        event_id=EVENT_ID,
        correlation_id=CORRELATION_ID,
        third_party_id="third-party-9",
        parser_id=PARSER_ID,
        trace_id=TRACE,
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        received_at=start,
        times_seen=2,
        last_seen_at=start + timedelta(seconds=4),
    )
    failed = _failed(event, start=start, now=now)
    retry.retry(failed.pk, author=PERSON, reason=WHY)
    return Story(event, failed, _built(event))


def _failed(event: JobStartEvent, *, start: datetime, now: datetime) -> KanikoJob:
    end = start + timedelta(seconds=95)
    failed = a_kaniko_job(
        event=event,
        state="failed",
        name="kaniko-job-parser-9-1",
        reason="BuildStepFailed",
        message=ERROR,
        job_uid=UUID("b3b6a4cc-9f6e-4c0e-8f0b-0d6f5f3f1f11"),
        node="node-3",
        queued_at=start,
        created_at=start + timedelta(seconds=2),
        running_at=start + timedelta(seconds=9),
        finished_at=end,
    )
    busy = {"http_status": 500, "reason": "InternalError", "message": "etcdserver: request timed out"}
    for number, outcome, answer in ((1, "retry", busy), (2, "created", {"http_status": 201})):
        at = start + timedelta(seconds=number)
        an_attempt(
            kaniko_job=failed,
            number=number,
            outcome=outcome,
            worker="worker-1/77",
            started_at=at,
            finished_at=at,
            duration=0.031,
            **answer,
        )
    containers = [
        {"name": "source", "state": "terminated", "exit_code": 0, "reason": "Completed"},
        {"name": "kaniko", "state": "terminated", "exit_code": 1, "reason": "Error"},
    ]
    told = {"object": f"Pod/{POD}", "reason": "Scheduled", "message": f"Successfully assigned builds/{POD} to node-3"}
    JobEvidence.objects.create(
        kaniko_job=failed,
        exit_code=1,
        noted_at=end,
        captured_at=now,
        pods=[{"name": POD, "node": "node-3", "containers": containers}],
        events=[{"last_seen": f"{start:%Y-%m-%dT%H:%M:%SZ}", "count": 1, **told}],
    )
    ContainerLog.objects.create(
        kaniko_job=failed, pod=POD, container="kaniko", text=LOG, captured_at=end + timedelta(seconds=1)
    )
    dead_letters.record_failed_builds({failed.pk: ERROR})
    return failed


def _built(event: JobStartEvent) -> KanikoJob:
    """The Kaniko Job of the retry, as if it had ended by now."""
    again = event.kaniko_jobs.get(number=2)
    end = again.queued_at + timedelta(seconds=65)
    KanikoJob.objects.filter(pk=again.pk).update(
        state="succeeded",
        job_uid=UID,
        created_at=again.queued_at + timedelta(seconds=1),
        running_at=again.queued_at + timedelta(seconds=5),
        finished_at=end,
        node="node-1",
    )
    JobEvidence.objects.create(kaniko_job=again, image_digest=DIGEST, noted_at=end)
    return again
