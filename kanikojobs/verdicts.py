"""What one call to create a Job comes to, and what follows from it for the Kaniko Job.

Every answer that the API can give ends here as a `Verdict`, and each verdict as a move: created, waiting for its next
try, failed, or given back because the cluster is away.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings

from kanikojobs import kube, naming
from kanikojobs.errors import ClusterUnavailable, CreationError, PermanentError, TransientError
from kanikojobs.kube_answers import AlreadyExists, is_not_authorized
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.options import BuildOptions
from kanikojobs.manifest.settings import build_options, profile_options
from kanikojobs.models import JobAttempt, Move
from kanikojobs.states import State

log = structlog.get_logger(__name__)

Outcome = JobAttempt.Outcome

LONGEST_DELAY = 60.0  # seconds between two tries, unless the server asks for longer
# How often the API server is asked before its silence counts as an outage, and how long apart, in seconds.
PROBES, PROBES_APART = 3, 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """A Kaniko Job that is held under a claim, with the attempt that has been opened for it."""

    id: int
    attempt: int
    attempt_number: int
    retries_used: int
    name: str
    namespace: str
    build: Build
    profile: Mapping[str, str] | None = None

    def options(self) -> BuildOptions:
        """The operator's options for it. Raises `PermanentError` (BuildProfileInvalid)."""
        if self.profile is None:
            return build_options()
        try:
            return profile_options(**self.profile)
        except ValueError as error:
            # It was checked when it was saved, but settings have changed since.
            raise PermanentError(reason="BuildProfileInvalid", message=str(error)) from None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one call came to.

    `may_exist` says that the Job may be there although no answer said so, `spends_retry` that the try counts against
    MAX_RETRIES. `retry_after` and `duration` are in seconds, and so is `began_at`, a Unix time.
    """

    outcome: JobAttempt.Outcome
    began_at: float
    duration: float
    http_status: int | None = None
    reason: str = ""
    message: str = ""
    job_uid: UUID | None = None
    retry_after: float | None = None
    may_exist: bool = False
    spends_retry: bool = True

    @property
    def sheds_load(self) -> bool:
        """Whether the API server said that it has too much to do."""
        return self.outcome in (Outcome.RETRY, Outcome.UNAVAILABLE) and self.http_status in (429, 503)


class Terminating(TransientError):
    """A Job of ours that is being deleted holds the name. Waiting is all that helps, so no retry is spent on it."""


def prepare(job: Held) -> bytes | CreationError:
    """The Job to create, as JSON, or why there can be none. Raises nothing that an event can cause.

    Apart from the call, because those of a batch are prepared in one go: between two calls each costs twice the CPU.
    """
    try:
        # The row's name and namespace, not today's settings: a retry must find what an earlier try may have made.
        return kube.to_json(
            job_manifest(build=job.build, options=job.options(), name=job.name, namespace=job.namespace)
        )
    except CreationError as failure:
        return failure
    except Exception as failure:
        return _fault_of_ours(failure, job=job)


def attempt(job: Held, *, manifest: bytes | CreationError) -> Verdict:
    """Make one call to create a Job, and say what it came to. Raises nothing that the API can cause."""
    began_at, start = time.time(), time.monotonic()
    may_exist = False
    error: CreationError
    try:
        if isinstance(manifest, CreationError):
            raise manifest
        try:
            seen, outcome, status = kube.create_job(manifest, namespace=job.namespace), Outcome.CREATED, 201
        except AlreadyExists:
            may_exist = True
            seen, outcome, status = _own_job(job), Outcome.ADOPTED, 409
        duration = time.monotonic() - start
        return Verdict(outcome=outcome, began_at=began_at, duration=duration, http_status=status, job_uid=seen.uid)
    except CreationError as failure:
        error = failure
    except Exception as failure:
        error = _fault_of_ours(failure, job=job)
    duration = time.monotonic() - start
    may_exist = may_exist or _may_have_been_carried_out(error)
    return _failure(second_opinion(error), began_at=began_at, duration=duration, may_exist=may_exist)


def _fault_of_ours(failure: Exception, *, job: Held) -> CreationError:
    """It must not take the task's other rows with it, nor come back for ever."""
    log.exception("attempt-broke", kaniko_job=job.name)
    return TransientError(reason="UnexpectedError", message=f"{type(failure).__name__}: {failure}"[:2000])


def out_of_time(*, duration: float) -> Verdict:
    """The verdict on a call during which the task's own time ran out."""
    error = TransientError(reason="TaskTimeout", message="The call was still going on when the task's time ran out.")
    return _failure(error, began_at=time.time() - duration, duration=duration, may_exist=True)


def _failure(error: CreationError, *, began_at: float, duration: float, may_exist: bool) -> Verdict:
    outcome = Outcome.REFUSED
    if isinstance(error, ClusterUnavailable):
        outcome = Outcome.UNAVAILABLE
    elif isinstance(error, TransientError):
        outcome = Outcome.RETRY
    return Verdict(
        outcome=outcome,
        began_at=began_at,
        duration=duration,
        http_status=error.http_status,
        reason=error.reason,
        message=error.message,
        retry_after=getattr(error, "retry_after", None),
        may_exist=may_exist,
        spends_retry=outcome == Outcome.RETRY and not isinstance(error, Terminating),
    )


def _may_have_been_carried_out(error: CreationError) -> bool:
    """Whether the API server may have made the Job all the same: no answer, or one of somebody on the way."""
    if isinstance(error, ClusterUnavailable) or not isinstance(error, TransientError):
        return False
    status = error.http_status
    return status is None or status < 400 or status == 408 or status >= 500


def _own_job(job: Held) -> kube.JobSeen:
    """The Job that holds the name, if it was made for this Kaniko Job, finished or not."""
    seen = kube.get_job(job.name, namespace=job.namespace)
    if seen is None:
        raise TransientError(reason="Vanished", message="A Job of this name was there, and gone a moment later.")
    if not _is_ours(seen, job):
        raise PermanentError(
            reason="NameTaken",
            message=f"A Job {job.name} that was not made for this event is in namespace {job.namespace}.",
            http_status=409,
        )
    if seen.terminating:
        raise Terminating(
            reason="Terminating",
            message="A Job of this name is being deleted and holds the name until it is gone.",
            http_status=409,
        )
    return seen


def _is_ours(seen: kube.JobSeen, job: Held) -> bool:
    return (
        seen.labels.get("app.kubernetes.io/managed-by") == "kanikojobs"
        and seen.labels.get(f"{naming.PREFIX}number") == str(job.build.number)
        and seen.annotations.get(f"{naming.PREFIX}event-id") == job.build.event_id
        and seen.annotations.get(f"{naming.PREFIX}source") == job.build.source
    )


def second_opinion(error: CreationError) -> CreationError:
    """Tell an outage from one event's bad luck: after an error that could be either, ask with cheap calls.

    Several, because a server of which every tenth answer fails is there all the same.
    """
    if is_not_authorized(status=error.http_status, message=error.message):
        return _refusal_of_a_ready_server(error)
    if not isinstance(error, TransientError) or error.http_status == 409:
        return error
    outage: TransientError = error
    for number in range(PROBES):
        if number:
            time.sleep(PROBES_APART)
        try:
            kube.probe()
        except TransientError as failure:
            outage = failure
            if failure.reason == "Timeout":
                break
        else:
            return TransientError(
                reason=error.reason,
                message=error.message,
                http_status=error.http_status,
                retry_after=error.retry_after,
            )
    return ClusterUnavailable(
        reason=outage.reason,
        message=outage.message,
        http_status=outage.http_status,
        retry_after=outage.retry_after,
    )


def _refusal_of_a_ready_server(error: CreationError) -> CreationError:
    """The refusal, if it is one: an API server that has not read its rules yet forbids what they allow.

    It is ready only after all that it does at its start, of which reading the rules is the beginning.
    """
    try:
        kube.require_ready()
    except TransientError as failure:
        return ClusterUnavailable(reason=failure.reason, message=failure.message, http_status=failure.http_status)
    return error


def move(job: Held, verdict: Verdict, *, token: UUID) -> Move:
    """Where a verdict takes the Kaniko Job that is held under this claim."""
    if verdict.outcome in (Outcome.CREATED, Outcome.ADOPTED):
        return Move(id=job.id, to=State.CREATED, job_uid=verdict.job_uid, claim=token)
    if verdict.outcome == Outcome.REFUSED:
        return Move(id=job.id, to=State.FAILED, reason=verdict.reason, message=verdict.message, claim=token)
    if verdict.spends_retry and job.retries_used >= settings.KANIKOJOBS_MAX_RETRIES:
        tries = job.retries_used + 1
        return Move(
            id=job.id,
            to=State.FAILED,
            reason="CreateRetriesExhausted",
            message=f"{tries} {'try' if tries == 1 else 'tries'} failed, "
            f"the last with {verdict.reason}: {verdict.message}",
            claim=token,
        )
    run_at = None
    if verdict.outcome != Outcome.UNAVAILABLE:
        # During an outage it is due at once: nothing is claimed until it is over, and then it shall not wait longer.
        number = job.retries_used if verdict.spends_retry else job.attempt_number
        run_at = datetime.now(UTC) + timedelta(seconds=retry_delay(number, retry_after=verdict.retry_after))
    return Move(
        id=job.id,
        to=State.QUEUED,
        reason=verdict.reason,
        message=verdict.message,
        claim=token,
        run_at=run_at,
        spend_retry=verdict.spends_retry,
        may_exist=verdict.may_exist,
    )


def retry_delay(number: int, *, retry_after: float | None) -> float:
    """Seconds until the next try after so many: exponential with full jitter, and no sooner than the server asked for.

    Full jitter spreads the retries of a burst over the whole interval instead of sending them back as a burst.
    """
    base = settings.KANIKOJOBS_RETRY_DELAY.total_seconds()
    delay = random.uniform(0, min(LONGEST_DELAY, base * 2 ** min(number, 20)))  # noqa: S311 - no secret
    return delay if retry_after is None else retry_after + delay
