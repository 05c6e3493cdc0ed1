"""One event's story from received to finished, in order: what happened, when, and where to read more."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kanikojobs.models import JobAttempt, JobStartEvent, KanikoJob


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `tone` is good, bad or plain; `page` and `page_id` name the row that has more."""

    at: datetime
    title: str
    text: str = ""
    tone: str = "plain"
    page: str = ""
    page_id: int | None = None


def timeline(event: JobStartEvent) -> list[Entry]:
    """Every delivery, attempt, change of state and death of an event, the first one first."""
    jobs = list(event.kaniko_jobs.order_by("number"))
    entries = [
        *_deliveries(event),
        *(entry for job in jobs for entry in _states(job)),
        *_attempts(jobs),
        *_deaths(event),
    ]
    return sorted(entries, key=lambda entry: entry.at)


def _deliveries(event: JobStartEvent) -> Iterator[Entry]:
    yield Entry(event.received_at, f"Received from {event.get_origin_display()}")
    if event.times_seen > 1:
        times = event.times_seen - 1
        yield Entry(event.last_seen_at, f"Seen again, {times} time{'s' if times > 1 else ''} in all")


def _states(job: KanikoJob) -> Iterator[Entry]:
    name = f"Kaniko Job {job.number}"
    yield Entry(job.queued_at, f"{name} queued", job.name, page="kanikojob", page_id=job.pk)
    if job.created_at:
        yield Entry(job.created_at, f"{name} created", f"UID {job.job_uid}", page="kanikojob", page_id=job.pk)
    if job.running_at:
        yield Entry(job.running_at, f"{name} running", f"on {job.node}" if job.node else "")
    if job.finished_at:
        tone = {"succeeded": "good", "failed": "bad"}.get(job.state, "plain")
        why = ": ".join(part for part in (job.reason, job.message) if part)
        yield Entry(job.finished_at, f"{name} {job.get_state_display()}", why, tone, "kanikojob", job.pk)


def _attempts(jobs: list[KanikoJob]) -> Iterator[Entry]:
    numbers = {job.pk: job.number for job in jobs}
    good = (JobAttempt.Outcome.CREATED, JobAttempt.Outcome.ADOPTED)
    for attempt in JobAttempt.objects.filter(kaniko_job__in=jobs):
        status = f"HTTP {attempt.http_status}" if attempt.http_status else ""
        took = f"{attempt.duration * 1000:.0f} ms" if attempt.duration is not None else ""
        facts = ", ".join(part for part in (status, took, attempt.worker) if part)
        why = ": ".join(part for part in (attempt.reason, attempt.message) if part)
        yield Entry(
            attempt.started_at,
            f"Attempt {attempt.number} of Kaniko Job {numbers[attempt.kaniko_job_id]}: {attempt.get_outcome_display()}",
            f"{why} ({facts})" if why else facts,
            "plain" if attempt.outcome in good or attempt.outcome == "started" else "bad",
        )


def _deaths(event: JobStartEvent) -> Iterator[Entry]:
    for letter in event.dead_letters.defer("body", "headers", "properties"):
        title = f"Dead letter: {letter.get_cause_display()}"
        yield Entry(letter.first_died_at, title, letter.reason, "bad", "deadletter", letter.pk)
