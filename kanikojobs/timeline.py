"""One event's story from received to finished, in order: what happened, when, and where to read more."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from kanikojobs import inspection
from kanikojobs.models import (
    ContainerLog,
    Drift,
    JobAttempt,
    JobEvidence,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    ReplayItem,
)
from kanikojobs.templatetags import humane


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
    """Every delivery, attempt, change of state and death of an event, what was kept, and who did what: in order."""
    jobs = list(event.kaniko_jobs.order_by("number"))
    letters = list(event.dead_letters.values_list("pk", flat=True))
    entries = [
        *_deliveries(event),
        *(entry for job in jobs for entry in _states(job)),
        *_attempts(jobs),
        *_kept(jobs),
        *_deaths(event),
        *_replays(letters),
        *_acts("kanikojob", [job.pk for job in jobs]),
        *_acts("deadletter", letters),
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
        took = humane.took(attempt.duration)
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
        reason = inspection.masked_text(letter.reason)
        yield Entry(letter.first_died_at, title, reason, "bad", "deadletter", letter.pk)


def _kept(jobs: list[KanikoJob]) -> Iterator[Entry]:
    """What Kubernetes has thrown away since, or will: digests, logs, and where rows and cluster had come apart."""
    numbers = {job.pk: job.number for job in jobs}
    for evidence in JobEvidence.objects.filter(kaniko_job__in=jobs).exclude(image_digest=""):
        job = numbers[evidence.kaniko_job_id]
        yield Entry(evidence.noted_at, f"Kaniko Job {job} pushed its image", evidence.image_digest, "good")
    for log in ContainerLog.objects.filter(kaniko_job__in=jobs).defer("text").order_by("pk"):
        cut = " (its last lines)" if log.cut else ""
        title = f"Log of Kaniko Job {numbers[log.kaniko_job_id]} kept{cut}"
        yield Entry(log.captured_at, title, f"{log.pod}/{log.container}", "plain", "kanikojob", log.kaniko_job_id)
    for drift in Drift.objects.filter(kaniko_job__in=jobs):
        yield Entry(drift.found_at, drift.kind, drift.message, "bad", "kanikojob", drift.kaniko_job_id)


def _replays(letters: list[int]) -> Iterator[Entry]:
    for item in ReplayItem.objects.filter(letter__in=letters).select_related("run"):
        by = f"by {item.run.author_name}: {item.run.reason}"
        if item.at:
            yield Entry(item.at, f"Replayed, {item.get_outcome_display()}", by, "plain", "replayrun", item.run_id)


def _acts(target_type: str, ids: list[int]) -> Iterator[Entry]:
    """Who did what to a row, by which way, and why."""
    for act in OperatorAction.objects.filter(target_type=target_type, target_id__in=[str(id) for id in ids]):
        outcome = "" if act.outcome == "done" else f" ({act.outcome})"
        title = f"{act.by} {act.get_kind_display()}{outcome}"
        yield Entry(
            act.at, title, f"by {act.get_via_display()}: {act.reason}", "plain", target_type, int(act.target_id)
        )
