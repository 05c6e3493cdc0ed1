"""The watcher against the simulated API server: every end is told, with its reason, through broken watches and all."""

import pytest

from deploy.local.simulator import Simulator
from kanikojobs.models import KanikoJob
from tests.watched_jobs import created_jobs, wait_captured, wait_finished, wait_until, watching

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]

ENDS = {
    "succeed": ("succeeded", ""),
    "build-error": ("failed", "BuildStepFailed"),
    "dockerfile-error": ("failed", "DockerfileInvalid"),
    "oom": ("failed", "OOMKilled"),
    "deadline": ("failed", "DeadlineExceeded"),
    "evicted": ("succeeded", ""),
    "node-lost": ("succeeded", ""),
    "push-denied": ("failed", "PushDenied"),
    "push-timeout": ("failed", "PushFailed"),
    "registry-auth": ("failed", "RegistryAuthFailed"),
    "rate-limited": ("failed", "RegistryRateLimited"),
    "source-not-found": ("failed", "SourceNotFound"),
}


@pytest.mark.parametrize("outcome", ENDS)
def test_it_tells_how_a_job_ended(simulator: Simulator, outcome: str) -> None:
    simulator.outcomes(default=outcome)
    jobs = created_jobs(1)

    with watching():
        (job,) = wait_finished(jobs)
        wait_captured(jobs)

    assert (job.state, job.reason) == ENDS[outcome]
    assert job.evidence.missing == ""
    assert job.logs.count() > 0
    assert (job.evidence.image_digest != "") == (job.state == "succeeded")
