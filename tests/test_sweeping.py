"""Where rows and cluster have come apart: found, put right or reported, once, and counted."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.conf import settings

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, kube, kube_watch, sweeping, tallies
from kanikojobs.models import DeadLetter, Drift, JobAttempt, KanikoJob
from tests.watched_jobs import create_all, created_jobs, queued_job, wait_captured, wait_finished, wait_until, watching

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]


def delete(job: KanikoJob) -> None:
    """By hand, as `kubectl delete job` does."""
    assert kube_watch.delete_job(job.name, uid="")
    wait_until(lambda: not kube_watch.job_exists(job.name, uid=""))


def drift() -> list[tuple[str, str]]:
    return sorted((found.kind, found.name) for found in Drift.objects.all())


def counted(series: str) -> int:
    return tallies.totals(prefix=series)[series].count


def test_a_job_that_is_deleted_by_hand_has_vanished(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    simulator.settings(termination_seconds=0.5)
    (job,) = created_jobs(1)
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        delete(job)
        (found,) = wait_finished([job])
        wait_captured([job])

    assert (found.state, found.reason) == ("failed", "JobVanished")
    assert drift() == [("JobVanished", job.name)]
    assert (counted("drift/JobVanished"), counted("finished/failed/JobVanished")) == (1, 1)
    assert DeadLetter.objects.get().kaniko_job == job
    # Its pod was being removed for half a second, in which the log was read.
    assert "Retrieving image manifest" in job.logs.get(container="kaniko").text


@pytest.mark.parametrize("policy", ["Background", "Orphan"])
def test_however_a_job_is_deleted_it_has_vanished(simulator: Simulator, policy: str) -> None:
    """`kubectl delete job`, and the same with --cascade=orphan, which leaves the pod where it is."""
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        assert kube.request("DELETE", kube_watch.jobs_path(job.name), body=body).status == 200
        (found,) = wait_finished([job])

    assert (found.state, found.reason) == ("failed", "JobVanished")
    assert drift() == [("JobVanished", job.name)]


def test_a_job_that_goes_as_soon_as_it_is_complete_has_not_vanished(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    lives_no_longer = kube.request("GET", kube_watch.jobs_path(job.name)).body
    lives_no_longer["spec"]["ttlSecondsAfterFinished"] = 0
    assert kube.request("PUT", kube_watch.jobs_path(job.name), body=lives_no_longer).status == 200
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        simulator.end_pod(job.name, outcome="succeed")
        (found,) = wait_finished([job])
        wait_until(lambda: not kube_watch.job_exists(job.name, uid=""))

    assert (found.state, found.reason) == ("succeeded", "")
    assert found.evidence.image_digest.startswith("sha256:")
    assert drift() == []


@pytest.mark.parametrize("outcome", ["hang", "succeed"])
def test_a_job_that_went_while_nobody_watched_has_vanished(simulator: Simulator, outcome: str) -> None:
    simulator.outcomes(default=outcome)
    gone, there = created_jobs(2)
    with watching():
        wait_until(lambda: KanikoJob.objects.exclude(state="created").count() == 2)
    KanikoJob.objects.filter(state="succeeded").update(state="running", finished_at=None)
    delete(gone)

    with watching():
        (found,) = wait_finished([gone])

    there.refresh_from_db()
    assert (found.state, found.reason) == ("failed", "JobVanished")
    assert there.state != "failed"
    assert drift() == [("JobVanished", gone.name)]


def test_only_rows_that_should_be_in_the_list_and_are_not_are_asked_for(simulator: Simulator) -> None:
    listed, missing, later = created_jobs(3)
    KanikoJob.objects.filter(pk=later.pk).update(created_at=datetime.now(UTC) + timedelta(minutes=1))
    queued_job()

    found = sweeping.suspects({listed.name}, before=datetime.now(UTC))

    assert [suspect.name for suspect in found] == [missing.name]


def test_the_same_name_under_another_uid_is_another_job(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    manifest = kube.request("GET", kube_watch.jobs_path(job.name)).body
    delete(job)
    labels = manifest["metadata"]["labels"]
    container = {"name": "x", "image": "x"}
    kube.create_job(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job.name, "labels": labels},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        },
        namespace=job.namespace,
    )

    with watching():
        (found,) = wait_finished([job])

    assert (found.state, found.reason) == ("failed", "JobVanished")


def test_a_job_with_our_label_and_no_row_is_reported_once_and_left_alone(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    event_id = job.event.event_id
    job.event.delete()

    for _ in range(2):
        with watching(resync=1.0) as watcher:
            wait_until(lambda: Drift.objects.exists())
            wait_until(partial(getattr, watcher, "leads"))
            simulator.break_watches()

    (found,) = Drift.objects.all()
    assert (found.kind, found.name, found.kaniko_job) == ("NoRow", job.name, None)
    assert event_id in found.message
    assert counted("drift/NoRow") == 1
    assert kube_watch.job_exists(job.name, uid="")


def test_a_row_that_was_left_in_creating_is_created_when_its_job_exists(simulator: Simulator) -> None:
    simulator.outcomes(default="unschedulable")
    (job,) = created_jobs(1)
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    KanikoJob.objects.filter(pk=job.pk).update(
        state="creating", claim="00000000-0000-0000-0000-000000000001", leased_until=long_ago, job_uid=None
    )

    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="created").exists())

    job.refresh_from_db()
    assert job.job_uid is not None
    assert drift() == [("StuckCreating", job.name)]


def test_an_attempt_of_a_worker_that_was_killed_while_its_job_went_on_is_lost_and_counted(simulator: Simulator) -> None:
    job = queued_job()
    claim = claims.claim(most=1, lease=timedelta(minutes=1))
    held = creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)
    creation.make_calls(held, stop_at=time.monotonic() + 60, on_trial=False)
    with watching():
        wait_finished([job])
    before = JobAttempt.objects.get().outcome
    JobAttempt.objects.update(started_at=datetime.now(UTC) - settings.KANIKOJOBS_LEASE - timedelta(minutes=1))

    with watching():
        wait_until(lambda: JobAttempt.objects.exclude(outcome="started").exists())

    assert before == "started"
    assert JobAttempt.objects.get().outcome == "lost"
    assert counted("creation/lost") == 1


def test_an_attempt_whose_worker_may_still_be_at_it_is_left_open(simulator: Simulator) -> None:
    job = queued_job()
    claim = claims.claim(most=1, lease=timedelta(minutes=1))
    calls = creation.make_calls(
        creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs), stop_at=time.monotonic() + 60, on_trial=False
    )

    with watching():
        wait_finished([job])
    creation.settle(calls, token=claim.token)

    assert JobAttempt.objects.get().outcome == "created"
    assert counted("creation/created") == 1


def test_a_row_that_is_being_created_is_left_to_its_worker(simulator: Simulator) -> None:
    job = queued_job()
    claims.claim(most=1, lease=timedelta(minutes=1))

    with watching() as watcher:
        wait_until(lambda: watcher.leads)
        other = created_jobs(1)
        wait_finished(other)

    job.refresh_from_db()
    assert job.state == "creating"
    assert drift() == []


def test_a_job_that_ran_before_its_worker_could_write_so_jumps_ahead(simulator: Simulator) -> None:
    (job,) = created_jobs(1)
    KanikoJob.objects.filter(pk=job.pk).update(state="queued", job_uid=None, created_at=None, may_exist=True)

    with watching():
        (found,) = wait_finished([job])
    create_all()

    assert found.state == "succeeded"
    assert simulator.stats()["creates"]["total"] == 1
