"""What people do with Kaniko Jobs: retry one that is finished, cancel one that is not.

Each act is decided under a lock on the event's row, so of two that click at once the second sees what the first did;
and each leaves an `OperatorAction` that says who, why and what came of it, refusals too. A retry is the next number of
the same event, with the same parameters or edited ones, and settles the event's dead letters. A cancellation of a Job
that may be in the cluster is a wish: the watcher deletes the Job, and the row is cancelled when its pods are gone, so
that its place stays taken until then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.db.models.functions import Now

from kanikojobs import audit, claims, concurrency, naming, tallies
from kanikojobs.audit import Author
from kanikojobs.errors import PermanentError
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import HIGHEST_PRIORITY, LOWEST_PRIORITY, JobStartEvent, KanikoJob, Move, OperatorAction
from kanikojobs.replay import settling
from kanikojobs.states import FINISHED, State

CANCELLED = "CancelledByOperator"
CANCELLING = "Cancelling"
# Why a row was cancelled in the end, by the reason that it has while its Job is being removed.
_ENDS = {CANCELLING: CANCELLED, concurrency.REPLACING: concurrency.REPLACED}

# What a retry may change of the event's own parameters, with the type of each.
OVERRIDABLE: dict[str, type] = {
    "memory": str,
    "cpu": str,
    "build_timeout": int,
    "priority": int,
    "runtime": str,
    "source_url": str,
    "dockerfile": str,
    "destination": str,
    "environment": dict,
}
assert OVERRIDABLE.keys() <= {field.name for field in fields(Build)}  # noqa: S101 - read at import, told at once


@dataclass(frozen=True, slots=True)
class Act:
    """What came of an act. `done` is false for a refusal; `message` is a sentence for whoever asked."""

    done: bool
    message: str
    kaniko_job: KanikoJob


class OverridesInvalid(ValueError):
    """Edited parameters that cannot be used; the text says which and what to write instead."""


def retry(id: int, *, author: Author, reason: str, overrides: Mapping[str, Any] | None = None) -> Act:
    """Queue the next Kaniko Job for the event of this one, unless one is unfinished, and settle its dead letters.

    Raises `KanikoJob.DoesNotExist`, `OverridesInvalid` and `audit.ReasonMissing`; then nothing is done or recorded.
    """
    reason = audit.checked_reason(reason)
    try:
        return _retry(id, author=author, reason=reason, overrides=overrides)
    except IntegrityError:
        # A replay, which locks letters and not events, has made the next number between the look and the insert.
        # What it made is there now, so the second look decides.
        return _retry(id, author=author, reason=reason, overrides=overrides)


def _retry(id: int, *, author: Author, reason: str, overrides: Mapping[str, Any] | None) -> Act:
    with transaction.atomic():
        job = _locked(id)
        event = job.event
        # Edited before is edited still: a retry of a retry keeps what was changed unless it is changed again.
        edited = dict(job.overrides or {}) | dict(overrides or {})
        if edited:
            check_overrides(edited, event=event)
        # Before the insert, as a replay does it: the other way round the two would wait for each other.
        letters = settling.locked_letters(event_id=event.pk)
        if unfinished := event.kaniko_jobs.filter(state__in=list(_UNFINISHED)).first():
            message = f"Refused: number {unfinished.number} of this event is unfinished ({unfinished.state})."
            return _acted(False, message, job, author=author, reason=reason, kind=OperatorAction.Kind.RETRY_JOB)
        number = 1 + (event.kaniko_jobs.aggregate(last=Max("number"))["last"] or 0)
        following = KanikoJob.objects.create(
            event=event,
            number=number,
            name=naming.kubernetes_name(
                source=event.source, event_id=event.event_id, number=number, job_name=event.job_name
            ),
            namespace=settings.KANIKOJOBS_NAMESPACE,
            priority=edited.get("priority", event.priority),
            third_party_id=event.third_party_id,
            parser_id=event.parser_id,
            overrides=edited or None,
        )
        settling.settle([settling.Settled(letter, event.pk, following.pk) for letter in letters])
        claims.notify()
        act = _acted(
            True,
            f"Queued as number {number}.",
            job,
            author=author,
            reason=reason,
            kind=OperatorAction.Kind.RETRY_JOB,
            detail={"kaniko_job": following.pk, "number": number, "overrides": edited, "dead_letters": letters},
        )
        return replace(act, kaniko_job=following)


def cancel(id: int, *, author: Author, reason: str) -> Act:
    """Cancel a Kaniko Job: at once if it has no Job yet, else by having its Job and pods removed.

    Raises `KanikoJob.DoesNotExist` and `audit.ReasonMissing`; then nothing is done or recorded.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic():
        job = _locked(id)
        kind = OperatorAction.Kind.CANCEL_JOB
        if job.state in FINISHED:
            return _acted(False, f"Refused: it is {job.state}.", job, author=author, reason=reason, kind=kind)
        if job.cancel_requested_at is not None:
            message = "Refused: it is being cancelled already."
            return _acted(False, message, job, author=author, reason=reason, kind=kind)
        told = f"Cancelled by {author.name}: {reason}"
        if job.state == State.QUEUED and not job.may_exist:
            KanikoJob.objects.move([Move(id=job.pk, to=State.CANCELLED, reason=CANCELLED, message=told)])
            claims.notify()
            act = _acted(True, "Cancelled.", job, author=author, reason=reason, kind=kind)
            tallies.add(tallies.counts({f"finished/cancelled/{CANCELLED}": 1}))
            return act
        KanikoJob.objects.filter(pk=job.pk).update(cancel_requested_at=Now(), reason=CANCELLING, message=told)
        message = "Asked for: it is cancelled when its Job and pods are gone."
        return _acted(True, message, job, author=author, reason=reason, kind=kind, outcome="asked for")


_UNFINISHED = set(State) - set(FINISHED)


def cancelled(*, id: int, reason: str, message: str) -> Move:
    """The move of a row whose Job is gone, as it was asked for; `reason` and `message` are those that it has now."""
    return Move(id=id, to=State.CANCELLED, reason=_ENDS.get(reason, CANCELLED), message=message)


def _locked(id: int) -> KanikoJob:
    """The Kaniko Job as it is now; nobody else acts on its event, or moves it, until the transaction ends."""
    event_id = KanikoJob.objects.values_list("event_id", flat=True).get(pk=id)
    try:
        JobStartEvent.objects.select_for_update(no_key=True).get(pk=event_id)
    except JobStartEvent.DoesNotExist:
        # Pruned between the two looks, and the Kaniko Job with it.
        raise KanikoJob.DoesNotExist from None
    return KanikoJob.objects.select_for_update(of=("self",), no_key=True).select_related("event").get(pk=id)


def _acted(
    done: bool,
    message: str,
    job: KanikoJob,
    *,
    author: Author,
    reason: str,
    kind: OperatorAction.Kind,
    outcome: str = "",
    detail: dict[str, Any] | None = None,
) -> Act:
    outcome = outcome or ("done" if done else "refused")
    detail = (detail or {}) | {"message": message}
    audit.record(author=author, kind=kind, reason=reason, target=job, outcome=outcome, detail=detail)
    job.refresh_from_db()
    return Act(done=done, message=message, kaniko_job=job)


def check_overrides(overrides: Mapping[str, Any], *, event: JobStartEvent) -> None:
    """Raises `OverridesInvalid` unless a Job could be made with these."""
    for name, value in overrides.items():
        if name not in OVERRIDABLE:
            raise OverridesInvalid(f"{name[:64]}: not known; write one of {', '.join(OVERRIDABLE)}")
        if not isinstance(value, OVERRIDABLE[name]) or isinstance(value, bool):
            raise OverridesInvalid(f"{name}: must be a {_TYPES[OVERRIDABLE[name]]}")
    if not HIGHEST_PRIORITY <= overrides.get("priority", HIGHEST_PRIORITY) <= LOWEST_PRIORITY:
        raise OverridesInvalid("priority: must be from 1, the most urgent, to 10")
    most = settings.KANIKOJOBS_MAX_BUILD_TIMEOUT
    if not 1 <= overrides.get("build_timeout", 1) <= most:
        raise OverridesInvalid(f"build_timeout: must be from 1 to {most} seconds")
    environment = overrides.get("environment", {})
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in environment.items()):
        raise OverridesInvalid("environment: names and values must be texts")
    try:
        job_manifest(build=build_of(event, number=1).edited(overrides), options=build_options())
    except PermanentError as error:
        raise OverridesInvalid(error.message) from None


_TYPES: dict[type, str] = {str: "text", int: "whole number", dict: "mapping of names to texts"}


def build_of(event: JobStartEvent, *, number: int) -> Build:
    """What an event asks to be built, as its `number`-th Kaniko Job."""
    parameters = event.data.get("parameters") if isinstance(event.data, dict) else None
    environment = parameters.get("environment") if isinstance(parameters, dict) else None
    return Build.of(event, number=number, environment=environment or {})
