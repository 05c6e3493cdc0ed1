"""Each verdict of the API server, over real HTTP, from the queued row to what is on record of it."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django_q.timeout import TimeoutHandler
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, kube, tallies, verdicts
from kanikojobs.heartbeats import instance_name
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import BuildProfile, DeadLetter, JobAttempt, KanikoJob, Outage
from kanikojobs.naming import PREFIX
from tests.creating import queue_events, work, work_off
from tests.odd_server import answers, odd_server, says, write_kubeconfig

pytestmark = pytest.mark.django_db

Fault = dict[str, Any]


@pytest.fixture(autouse=True)
def quick(settings: Settings) -> None:
    """No test has to wait for long: short delays, and as short a time-out as a loaded machine can keep."""
    settings.KANIKOJOBS_RETRY_DELAY = timedelta(milliseconds=5)
    settings.KANIKOJOBS_KUBERNETES_TIMEOUT = timedelta(seconds=2)


def outcomes(job: KanikoJob) -> list[tuple[str, int | None, str]]:
    return list(job.attempts.order_by("number").values_list("outcome", "http_status", "reason"))


def tallied() -> dict[str, int]:
    return {
        series.removeprefix("creation/"): total.count for series, total in tallies.totals(prefix="creation/").items()
    }


def assert_tallies_equal_attempts() -> None:
    counted: dict[str, int] = {}
    for outcome in JobAttempt.objects.values_list("outcome", flat=True):
        counted[outcome] = counted.get(outcome, 0) + 1
    assert tallied() == counted


def test_a_queued_row_becomes_a_job(simulator: Simulator) -> None:
    (job,) = queue_events()

    result = work()

    job.refresh_from_db()
    attempt = job.attempts.get()
    assert result.created == 1
    assert (job.state, job.reason, job.retries_used, job.claim) == ("created", "", 0, None)
    assert (attempt.number, attempt.outcome, attempt.http_status, attempt.reason) == (1, "created", 201, "")
    assert attempt.worker == instance_name()
    assert attempt.duration is not None
    assert attempt.finished_at is not None
    assert simulator.stats()["creates"]["by_name"] == {job.name: 1}
    assert_tallies_equal_attempts()


RETRIED = [
    pytest.param({"do": "status", "status": 500}, 500, "InternalError", "etcdserver: leader changed", id="500"),
    pytest.param(
        {"do": "status", "status": 500, "plain": True, "message": "it broke \U0001f525"},
        *(500, "InternalError", "it broke \U0001f525"),
        id="500-in-words-of-its-own",
    ),
    pytest.param({"do": "status", "status": 503}, 503, "ServiceUnavailable", "apiserver is shutting down", id="503"),
    pytest.param({"do": "status", "status": 504}, 504, "Timeout", "did not complete within", id="504"),
    pytest.param({"do": "status", "status": 408, "reason": "Slow"}, 408, "Slow", "scripted answer 408", id="408"),
    pytest.param({"do": "status", "status": 409, "reason": "Conflict"}, 409, "Conflict", "scripted", id="conflict"),
    pytest.param({"do": "status", "status": 307, "plain": True}, 307, "Redirected", "Sent on to", id="redirect"),
    pytest.param({"do": "status", "status": 429, "retry_after": 0}, 429, "TooManyRequests", "try again", id="429"),
    pytest.param({"do": "drop"}, None, "ConnectionLost", "", id="dropped-before"),
    pytest.param({"do": "garbage"}, 200, "UnreadableAnswer", "<html><body>502 Bad Gateway", id="garbage"),
]


@pytest.mark.parametrize(("fault", "status", "reason", "message"), RETRIED)
def test_what_may_pass_is_tried_again(
    simulator: Simulator, fault: Fault, status: int | None, reason: str, message: str
) -> None:
    (job,) = queue_events()
    simulator.faults([fault | {"verb": "create", "count": 1}])

    work()
    job.refresh_from_db()
    waiting = (job.state, job.reason, job.retries_used, job.claim)
    waits_until = job.run_at
    work_off()

    job.refresh_from_db()
    first = job.attempts.get(number=1)
    assert waiting == ("queued", reason, 1, None)
    assert waits_until is not None
    assert message in first.message
    assert outcomes(job) == [("retry", status, reason), ("created", 201, "")]
    assert (job.state, job.reason, job.message) == ("created", "", "")
    assert not Outage.objects.exists()
    assert_tallies_equal_attempts()


@pytest.mark.parametrize(("fault", "status", "reason", "message"), RETRIED)
def test_what_does_not_pass_fails_after_its_retries_and_leaves_a_letter(
    simulator: Simulator, settings: Settings, fault: Fault, status: int | None, reason: str, message: str
) -> None:
    settings.KANIKOJOBS_MAX_RETRIES = 2
    (job,) = queue_events()
    simulator.faults([fault | {"verb": "create"}])

    work_off()

    job.refresh_from_db()
    letter = DeadLetter.objects.get()
    assert outcomes(job) == [("retry", status, reason)] * 3
    assert (job.state, job.reason, job.retries_used) == ("failed", "CreateRetriesExhausted", 2)
    assert job.message.startswith(f"3 tries failed, the last with {reason}: ")
    assert message in job.message
    assert (letter.cause, letter.kaniko_job_id, letter.event_id) == ("creation-failed", job.pk, job.event_id)
    assert job.message in letter.reason
    assert_tallies_equal_attempts()


REFUSED = [
    pytest.param({"do": "forbidden"}, 403, "Forbidden", 'cannot create resource "jobs"', id="forbidden"),
    pytest.param({"do": "quota"}, 403, "QuotaExceeded", "exceeded quota: builds", id="quota"),
    pytest.param({"do": "webhook"}, 400, "AdmissionDenied", "the image must be signed", id="webhook"),
    pytest.param({"do": "status", "status": 400}, 400, "BadRequest", "refused the request", id="bad-request"),
    pytest.param({"do": "status", "status": 413, "reason": "TooLarge"}, 413, "TooLarge", "scripted", id="too-large"),
    pytest.param({"do": "status", "status": 418, "reason": ""}, 418, "HTTP418", "scripted answer 418", id="unheard-of"),
    pytest.param(
        {"do": "status", "status": 422, "reason": "Invalid", "message": "no more than 63 bytes"},
        *(422, "Invalid", "no more than 63 bytes"),
        id="invalid",
    ),
]


@pytest.mark.parametrize(("fault", "status", "reason", "message"), REFUSED)
def test_what_is_refused_stops_at_once(
    simulator: Simulator, fault: Fault, status: int, reason: str, message: str
) -> None:
    (job,) = queue_events()
    simulator.faults([fault | {"verb": "create"}])

    result = work()

    job.refresh_from_db()
    letter = DeadLetter.objects.get()
    assert result.failed == 1
    assert outcomes(job) == [("refused", status, reason)]
    assert (job.state, job.reason, job.retries_used) == ("failed", reason, 0)
    assert message in job.message
    assert (letter.cause, letter.kaniko_job_id) == ("creation-failed", job.pk)
    assert letter.reason == f"{reason}: {job.message}"
    assert_tallies_equal_attempts()


def test_a_namespace_that_is_not_there_is_named(simulator: Simulator) -> None:
    (job,) = queue_events()
    KanikoJob.objects.update(namespace="nowhere")

    work()

    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "NamespaceNotFound")
    assert job.message == 'namespaces "nowhere" not found'


def test_a_name_that_kubernetes_refuses_is_refused_with_its_words(simulator: Simulator) -> None:
    (job,) = queue_events()
    KanikoJob.objects.update(name="Not_A_Name")

    work()

    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "Invalid")
    assert "RFC 1123" in job.message


def test_an_event_that_cannot_be_built_is_refused_without_a_call(simulator: Simulator) -> None:
    (job,) = queue_events()
    job.event.source_url = "file:///etc/passwd"
    job.event.save()

    work()

    job.refresh_from_db()
    assert outcomes(job) == [("refused", None, job.reason)]
    assert job.state == "failed"
    assert simulator.stats()["requests"] == {}


@pytest.mark.parametrize("fault", ["timeout-after", "drop-after"])
def test_it_adopts_its_own_job_after_a_create_whose_answer_was_lost(simulator: Simulator, fault: str) -> None:
    (job,) = queue_events()
    simulator.faults([{"do": fault, "verb": "create", "count": 1}])

    work_off()

    job.refresh_from_db()
    reason = "Timeout" if fault == "timeout-after" else "ConnectionLost"
    assert outcomes(job) == [("retry", None, reason), ("adopted", 409, "")]
    assert job.state == "created"
    assert simulator.stats()["creates"]["by_name"] == {job.name: 1}
    assert_tallies_equal_attempts()


def test_a_time_out_before_the_create_is_tried_again(simulator: Simulator) -> None:
    (job,) = queue_events()
    simulator.faults([{"do": "timeout-before", "verb": "create", "count": 1}])

    work_off()

    assert outcomes(job) == [("retry", None, "Timeout"), ("created", 201, "")]


def test_it_adopts_its_own_job_that_has_finished_already(simulator: Simulator) -> None:
    simulator.settings(pod_start_seconds=0.0, run_seconds=0.0)
    (job,) = queue_events()
    simulator.faults([{"do": "drop-after", "verb": "create", "count": 1}])
    work()
    deadline = time.monotonic() + 60
    while simulator.stats()["active"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    work_off()

    job.refresh_from_db()
    assert outcomes(job)[-1] == ("adopted", 409, "")
    assert job.state == "created"
    assert simulator.stats()["finished"] == {"Complete": 1}


def test_it_waits_without_spending_retries_until_its_own_terminating_job_is_gone(
    simulator: Simulator, settings: Settings
) -> None:
    settings.KANIKOJOBS_MAX_RETRIES = 0
    (job,) = queue_events()
    path = f"/apis/batch/v1/namespaces/{job.namespace}/jobs"
    body = manifest_of(job)
    body["metadata"]["finalizers"] = ["tests.example.com/hold"]
    kube.create_job(body, namespace=job.namespace)
    kube.request("DELETE", f"{path}/{job.name}")

    for _ in range(3):
        work_when_due(job)
    job.refresh_from_db()
    waiting = (job.state, job.reason, job.retries_used, job.may_exist)
    held = kube.request("GET", f"{path}/{job.name}").body
    held["metadata"].pop("finalizers")
    kube.request("PUT", f"{path}/{job.name}", body=held)
    work_off()

    job.refresh_from_db()
    assert waiting == ("queued", "Terminating", 0, True)
    assert outcomes(job) == [("retry", 409, "Terminating")] * 3 + [("created", 201, "")]
    assert job.state == "created"


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        pytest.param({"app.kubernetes.io/managed-by": "somebody"}, {}, id="not-managed-by-us"),
        pytest.param({f"{PREFIX}number": "2"}, {}, id="another-number"),
        pytest.param({}, {f"{PREFIX}event-id": "another"}, id="another-event"),
        pytest.param({}, {f"{PREFIX}source": "another"}, id="another-source"),
    ],
)
def test_a_name_that_somebody_else_has_taken_is_final(
    simulator: Simulator, labels: dict[str, str], annotations: dict[str, str]
) -> None:
    (job,) = queue_events()
    body = manifest_of(job)
    body["metadata"]["labels"] |= labels
    body["metadata"]["annotations"] |= annotations
    kube.create_job(body, namespace=job.namespace)

    work()

    job.refresh_from_db()
    assert outcomes(job) == [("refused", 409, "NameTaken")]
    assert (job.state, job.reason) == ("failed", "NameTaken")
    assert DeadLetter.objects.get().kaniko_job_id == job.pk


def manifest_of(job: KanikoJob) -> dict[str, Any]:
    event = job.event
    build = Build(
        source=event.source,
        event_id=event.event_id,
        number=job.number,
        third_party_id=event.third_party_id,
        parser_id=event.parser_id,
        job_name=event.job_name,
        source_url=event.source_url,
    )
    return job_manifest(build=build, options=build_options())


def work_when_due(job: KanikoJob) -> None:
    """One try, when the row's time has come."""
    while not work().retried:
        time.sleep(0.005)


def test_an_answer_with_retry_after_is_waited_for(simulator: Simulator) -> None:
    (job,) = queue_events()
    simulator.faults([{"do": "status", "status": 429, "retry_after": 30, "verb": "create", "count": 1}])
    before = datetime.now(UTC)

    work()

    job.refresh_from_db()
    assert job.run_at is not None
    assert timedelta(seconds=29) < job.run_at - before < timedelta(seconds=32)


def test_a_third_party_can_have_a_destination_resources_and_hosts_of_its_own(simulator: Simulator) -> None:
    special, other = queue_events(2)
    special.event.source_url = "https://git.example.com/team/repo"
    special.event.save()
    BuildProfile.objects.create(
        third_party_id=special.third_party_id,
        destination="registry.example.com/special/{parser_id}:{number}",
        resources="memory_limit=16Gi",
        allowed_hosts="git.example.com",
    )

    work_off()

    pods = {}
    for job in (special, other):
        answer = kube.request("GET", f"/apis/batch/v1/namespaces/{job.namespace}/jobs/{job.name}")
        pods[job.pk] = answer.body["spec"]["template"]["spec"]["containers"][0]
    assert f"--destination=registry.example.com/special/{special.parser_id}:1" in pods[special.pk]["args"]
    assert pods[special.pk]["resources"]["limits"]["memory"] == "16Gi"
    assert pods[other.pk]["resources"]["limits"]["memory"] == "4Gi"


def test_a_profile_that_no_longer_works_fails_its_builds_with_the_reason(simulator: Simulator) -> None:
    (job,) = queue_events()
    BuildProfile.objects.create(third_party_id=job.third_party_id, resources="memory_limit=plenty")

    work()

    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "BuildProfileInvalid")
    assert "memory_limit" in job.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        pytest.param({"destination": "no-registry/{parser_id}"}, "destination", id="destination"),
        pytest.param({"destination": "r.example.com/{nobody}:1"}, "destination", id="placeholder"),
        pytest.param({"resources": "memory_limit=plenty"}, "resources", id="quantity"),
        pytest.param({"resources": "speed=high"}, "resources", id="unknown-resource"),
        pytest.param({"resources": "memory_limit"}, "resources", id="no-pair"),
    ],
)
def test_a_profile_is_checked_by_the_rules_of_the_settings(fields: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BuildProfile(third_party_id="special", **fields).full_clean()

    assert list(caught.value.message_dict) == [field]


@pytest.mark.parametrize(("number", "longest"), [(0, 0.1), (1, 0.2), (3, 0.8), (9, 51.2), (40, 60.0)])
def test_delays_grow_exponentially_with_full_jitter(settings: Settings, number: int, longest: float) -> None:
    settings.KANIKOJOBS_RETRY_DELAY = timedelta(milliseconds=100)

    delays = [verdicts.retry_delay(number, retry_after=None) for _ in range(500)]

    assert max(delays) <= longest
    assert max(delays) > 0.8 * longest
    assert min(delays) < 0.2 * longest


def test_the_servers_own_wait_is_a_floor(settings: Settings) -> None:
    delays = [verdicts.retry_delay(0, retry_after=3.0) for _ in range(100)]

    assert min(delays) >= 3.0


def test_without_retries_the_first_failure_is_final(simulator: Simulator, settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_RETRIES = 0
    (job,) = queue_events()
    simulator.faults([{"do": "status", "status": 500, "verb": "create"}])

    work()

    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", "CreateRetriesExhausted")
    assert job.message.startswith("1 try failed, the last with InternalError: ")


def test_what_the_database_cannot_hold_is_written_out(tmp_path: Path, settings: Settings) -> None:
    (job,) = queue_events()
    body = b'{"kind": "Status", "apiVersion": "v1", "reason": "%s", "message": "nul \\u0000 half \\ud800"}' % (
        b"R" * 99
    )
    with odd_server(answers("422 Unprocessable Entity", body=body)) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")

        work()

    job.refresh_from_db()
    assert (job.state, job.reason, job.message) == ("failed", "R" * 64, "nul \\x00 half \\ud800")


def test_a_fault_of_ours_spoils_no_neighbour(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = queue_events(3)
    whole = verdicts.job_manifest

    def breaks_for_one(*, build: Build, **how: Any) -> dict[str, Any]:
        if build.event_id == jobs[1].event.event_id:
            raise KeyError("a bug")
        return whole(build=build, **how)

    monkeypatch.setattr(verdicts, "job_manifest", breaks_for_one)
    work_off()

    states = [KanikoJob.objects.get(pk=job.pk).state for job in jobs]
    assert states == ["created", "failed", "created"]
    assert outcomes(jobs[1]) == [("retry", None, "UnexpectedError")] * 4


def test_a_worker_that_comes_back_late_moves_nothing(simulator: Simulator) -> None:
    (job,) = queue_events()
    late = claims.claim(most=1, lease=timedelta(seconds=30))
    held = creation.begin(token=late.token, kaniko_jobs=late.kaniko_jobs)
    expire_lease(job)
    again = claims.claim(most=1, lease=timedelta(seconds=30))
    calls = creation.make_calls(held, stop_at=time.monotonic() + 60, on_trial=False)

    result = creation.settle(calls, token=late.token)

    job.refresh_from_db()
    assert result == creation.CreationResult()
    assert (job.state, job.claim) == ("creating", again.token)
    assert outcomes(job) == [("lost", None, "WorkerLost")]
    assert creation.create(token=again.token, kaniko_jobs=again.kaniko_jobs).created == 1
    assert outcomes(job) == [("lost", None, "WorkerLost"), ("adopted", 409, "")]
    assert_tallies_equal_attempts()


def test_a_worker_that_starts_late_makes_no_call(simulator: Simulator) -> None:
    (job,) = queue_events()
    late = claims.claim(most=1, lease=timedelta(seconds=30))
    expire_lease(job)
    claims.claim(most=1, lease=timedelta(seconds=30))

    result = creation.create(token=late.token, kaniko_jobs=late.kaniko_jobs)

    assert result == creation.CreationResult()
    assert simulator.stats()["requests"] == {}


@pytest.mark.parametrize(("seconds_left", "renewed"), [(30, True), (80, False)])
def test_a_lease_that_the_task_could_outlast_is_renewed(
    simulator: Simulator, settings: Settings, seconds_left: int, renewed: bool
) -> None:
    settings.KANIKOJOBS_TASK_TIMEOUT, settings.KANIKOJOBS_LEASE = timedelta(seconds=60), timedelta(seconds=90)
    queue_events()
    claim = claims.claim(most=1, lease=timedelta(seconds=seconds_left))
    before = KanikoJob.objects.get().leased_until

    creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    after = KanikoJob.objects.get().leased_until
    assert before is not None
    assert after is not None
    assert (after > before) == renewed


def expire_lease(job: KanikoJob) -> None:
    KanikoJob.objects.filter(pk=job.pk).update(leased_until=datetime.now(UTC) - timedelta(seconds=1))


def test_a_begin_that_was_committed_unheard_opens_no_second_attempt(simulator: Simulator) -> None:
    (job,) = queue_events()
    claim = claims.claim(most=1, lease=timedelta(seconds=30))
    first = creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    second = creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    assert first == second
    assert job.attempts.count() == 1


def test_results_that_were_committed_unheard_are_counted_once(simulator: Simulator) -> None:
    queue_events(3)
    claim = claims.claim(most=3, lease=timedelta(seconds=30))
    held = creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)
    calls = creation.make_calls(held, stop_at=time.monotonic() + 60, on_trial=False)
    creation.settle(calls, token=claim.token)

    creation.settle(calls, token=claim.token)

    assert tallied() == {"created": 3}


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_broke_meanwhile_is_made_anew(simulator: Simulator) -> None:
    (job,) = queue_events()
    claim = claims.claim(most=1, lease=timedelta(seconds=30))
    connection.connection.close()

    result = creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    assert result.created == 1
    assert outcomes(job) == [("created", 201, "")]


def test_what_there_is_no_time_for_is_given_back_without_a_trace(simulator: Simulator) -> None:
    jobs = queue_events(4)
    claim = claims.claim(most=4, lease=timedelta(seconds=30))
    held = creation.begin(token=claim.token, kaniko_jobs=claim.kaniko_jobs)
    calls = creation.make_calls(held, stop_at=time.monotonic(), on_trial=False)

    result = creation.settle(calls, token=claim.token)

    assert result == creation.CreationResult(created=1, given_back=3)
    assert KanikoJob.objects.filter(state="queued", claim=None).count() == 3
    assert JobAttempt.objects.count() == 1
    assert simulator.stats()["creates"]["total"] == 1
    assert len(jobs) == 4


def test_a_task_whose_time_runs_out_in_a_call_writes_down_what_it_knows(tmp_path: Path, settings: Settings) -> None:
    settings.KANIKOJOBS_KUBERNETES_TIMEOUT = timedelta(seconds=30)
    queue_events(2)
    claim = claims.claim(most=2, lease=timedelta(seconds=60))
    job, other = (KanikoJob.objects.get(pk=id) for id in claim.kaniko_jobs)
    head = b"HTTP/1.1 201 Created\r\n"
    with odd_server(says(head, *[b"X-Slow: %d\r\n" % n for n in range(50)], every=0.1)) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")
        with TimeoutHandler(1):
            result = creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    job.refresh_from_db()
    assert result == creation.CreationResult(retried=1, given_back=1)
    assert outcomes(job) == [("retry", None, "TaskTimeout")]
    assert (job.state, job.may_exist) == ("queued", True)
    assert outcomes(other) == []


def test_a_claim_of_nobody_is_nothing(simulator: Simulator) -> None:
    assert creation.create(token=uuid4(), kaniko_jobs=[1, 2, 3]) == creation.CreationResult()
