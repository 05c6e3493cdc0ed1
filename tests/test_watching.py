"""The watcher against the simulated API server: every end is told with its reason, every wait too, whatever breaks."""

from collections.abc import Callable

import pytest
from django.db import connection

from deploy.local.simulator import Simulator
from kanikojobs import kube, kube_watch, tallies
from kanikojobs.models import DeadLetter, JobEvidence, KanikoJob
from tests.watched_jobs import (
    created_jobs,
    outcome_of_each,
    wait_captured,
    wait_finished,
    wait_until,
    watching,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]

# What the simulator scripts, and what the row says in the end.
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
# Pods that never start: what the row says while it waits, and after the deadline.
WAITS = {
    "image-pull-backoff": "ImagePullBackOff",
    "unschedulable": "Unschedulable",
    "quota": "QuotaExceeded",
}


def test_it_tells_how_each_job_ended_and_keeps_the_evidence(simulator: Simulator) -> None:
    simulator.settings(termination_seconds=0.5)
    jobs = outcome_of_each(simulator, list(ENDS))
    with watching():
        finished = wait_finished(list(jobs.values()))
        wait_captured(finished)

    told = {outcome: KanikoJob.objects.get(pk=job.pk) for outcome, job in jobs.items()}
    assert {outcome: (job.state, job.reason) for outcome, job in told.items()} == ENDS
    for outcome, job in told.items():
        kept = job.evidence
        assert kept.missing == "", outcome
        assert kept.events, outcome
        assert {log.container for log in job.logs.all()} >= {"kaniko"}, outcome
        assert bool(kept.image_digest) == (job.state == "succeeded"), outcome
        assert job.node == "build-node-1", outcome
        assert job.running_at is not None, outcome
    assert told["build-error"].message.startswith("RUN npm ci --omit=dev: error building image:")
    failed = sum(state == "failed" for state, _ in ENDS.values())
    assert DeadLetter.objects.filter(cause="build-failed").count() == failed
    counted = {series: total.count for series, total in tallies.totals(prefix="finished/").items()}
    assert counted.pop("finished/succeeded") == len(ENDS) - failed
    assert sum(counted.values()) == failed


def test_a_wait_is_explained_while_it_lasts_and_is_the_reason_after_the_deadline(simulator: Simulator) -> None:
    jobs = outcome_of_each(simulator, list(WAITS))

    def told() -> dict[str, tuple[str, str]]:
        rows = {job.pk: (job.state, job.reason) for job in KanikoJob.objects.all()}
        return {outcome: rows[job.pk] for outcome, job in jobs.items()}

    with watching():
        wait_until(lambda: told() == {outcome: ("created", reason) for outcome, reason in WAITS.items()})
        for job in jobs.values():
            simulator.pass_deadline(job.name)
        wait_until(lambda: told() == {outcome: ("failed", reason) for outcome, reason in WAITS.items()})

    assert all(job.message for job in KanikoJob.objects.all())


def test_a_wait_that_is_over_is_not_told_any_more(simulator: Simulator) -> None:
    simulator.outcomes(default="unschedulable")
    (job,) = created_jobs(1)
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(reason="Unschedulable").exists())
        simulator.end_pod(job.name, outcome="hang")
        wait_until(lambda: KanikoJob.objects.filter(state="running", reason="", message="").exists())


@pytest.mark.parametrize("outcome", WAITS)
def test_what_a_job_waited_for_is_told_although_it_was_over_before_anybody_watched(
    simulator: Simulator, outcome: str
) -> None:
    jobs = outcome_of_each(simulator, [outcome])
    job = jobs[outcome]
    wait_until(lambda: {"FailedCreate", "FailedScheduling", "BackOff"} & events_of_the_namespace())
    simulator.pass_deadline(job.name)
    wait_until(lambda: not kube_watch.pods_of(job.name))

    with watching():
        (finished,) = wait_finished([job])

    assert (finished.state, finished.reason) == ("failed", WAITS[outcome])


def test_a_kubelet_that_does_not_give_the_log_holds_up_no_end(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kanikojobs.readings.LONGEST_READING", 0.2)
    simulator.faults([{"do": "status", "status": 500, "path": "/log", "count": 2}])
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        simulator.write_log(job.name, "error building image: failed to execute command: exit status 1")
        write_status("pods", pod_of(job.name), lambda status: kaniko_ended(status, exit_code=1, message=""))
        (finished,) = wait_finished([job])
        wait_captured([job])

    assert (finished.reason, finished.message) == ("BuildFailed", "Container kaniko ended with exit code 1.")
    assert "failed to execute command" in finished.logs.get(container="kaniko").text


def test_a_job_whose_image_was_pushed_has_not_failed(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    digest = "sha256:" + "5" * 64
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        write_status("pods", pod_of(job.name), lambda status: evicted_after_the_push(status, digest=digest))
        (finished,) = wait_finished([job])

    assert finished.state == "succeeded"
    assert finished.message == "The image was pushed before the Job failed with BackoffLimitExceeded."
    assert JobEvidence.objects.get().image_digest == digest


def test_a_digest_that_was_written_before_a_push_that_failed_proves_nothing(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    digest = "sha256:" + "5" * 64
    denied = "error pushing image: failed to push to destination registry:5000/x:y: DENIED: access to it is denied"
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        simulator.write_log(job.name, denied)
        write_status("pods", pod_of(job.name), lambda status: kaniko_ended(status, exit_code=1, message=digest))
        (finished,) = wait_finished([job])

    assert (finished.state, finished.reason) == ("failed", "PushDenied")


def test_a_status_that_postgres_cannot_store_as_it_is_holds_up_nobody(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    jobs = created_jobs(3)
    hostile = "error building image: \x00 " + "x" * 9000
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").count() == 3)
        write_status("pods", pod_of(jobs[1].name), lambda status: kaniko_ended(status, exit_code=1, message=hostile))
        for job in (jobs[0], jobs[2]):
            simulator.end_pod(job.name, outcome="succeed")
        finished = wait_finished(jobs)

    assert [job.state for job in finished] == ["succeeded", "failed", "succeeded"]


@pytest.mark.parametrize("trouble", ["compacted", "away", "errors"])
def test_what_happens_while_a_watch_is_broken_is_told(simulator: Simulator, trouble: str) -> None:
    simulator.settings(run_seconds=0.3)
    jobs = created_jobs(8)

    def compacted() -> None:
        simulator.compact()
        simulator.break_watches(politely=True)

    def errors() -> None:
        simulator.faults([{"do": "status", "status": 500, "verb": "list,watch", "count": 6}])
        simulator.break_watches()

    troubles: dict[str, Callable[[], None]] = {
        "compacted": compacted,
        "away": lambda: simulator.outage(1.0),
        "errors": errors,
    }
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        troubles[trouble]()
        finished = wait_finished(jobs)

    assert {job.state for job in finished} == {"succeeded"}
    assert tallies.totals(prefix="finished/")["finished/succeeded"].count == 8


def test_a_leader_whose_connection_is_cut_stops_and_leads_again_from_a_fresh_list(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    jobs = created_jobs(2)
    with watching() as watcher:
        wait_until(lambda: KanikoJob.objects.filter(state="running").count() == 2)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
            )
            assert cursor.rowcount == 1
        for job in jobs:
            simulator.end_pod(job.name, outcome="succeed")
        finished = wait_finished(jobs)
        assert watcher.leads

    assert {job.state for job in finished} == {"succeeded"}


def events_of_the_namespace() -> set[str]:
    path = kube_watch.pods_path().replace("/pods", "/events")
    return {event["reason"] for event in kube.request("GET", path).body["items"]}


def pod_of(job: str) -> str:
    (pod,) = kube_watch.pods_of(job)
    return str(pod["metadata"]["name"])


def write_status(kind: str, name: str, change: Callable[[dict], None]) -> None:
    """Write a status as whoever plays the kubelet or the controller does."""
    path = {"pods": kube_watch.pods_path, "jobs": kube_watch.jobs_path}[kind](name)
    obj = kube.request("GET", path).body
    change(obj["status"])
    answer = kube.request("PUT", f"{path}/status", body=obj)
    assert answer.status == 200, answer


def kaniko_ended(status: dict, *, exit_code: int, message: str) -> None:
    for container in status["containerStatuses"]:
        started = container["state"]["running"]["startedAt"]
        container["state"] = {
            "terminated": {
                "exitCode": exit_code,
                "reason": "Error" if exit_code else "Completed",
                "message": message,
                "startedAt": started,
                "finishedAt": started,
            }
        }
    status["phase"] = "Failed" if exit_code else "Succeeded"


def evicted_after_the_push(status: dict, *, digest: str) -> None:
    kaniko_ended(status, exit_code=0, message=digest)
    status |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
