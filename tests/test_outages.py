"""An API server that is away, or sheds load for everybody, is nobody's fault, and nobody's retry."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, outages, tallies
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.models import DeadLetter, JobAttempt, KanikoJob, Outage
from kanikojobs.queue import KanikoJobBroker
from tests.creating import queue_events, work, work_off
from tests.odd_server import answers, odd_server, write_kubeconfig

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]

LEASE = timedelta(seconds=60)
AWAY = ClusterUnavailable(reason="ConnectionFailed", message="refused")


@pytest.fixture(autouse=True)
def quick(settings: Settings) -> None:
    settings.KANIKOJOBS_RETRY_DELAY = timedelta(milliseconds=5)
    settings.KANIKOJOBS_KUBERNETES_TIMEOUT = timedelta(seconds=2)


@pytest.fixture(autouse=True)
def nobody_was_shed() -> None:
    creation._shed.clear()


def probe_is_due() -> None:
    Outage.objects.filter(ongoing=True).update(next_probe_at=datetime.now(UTC) - timedelta(seconds=1))


def outcomes() -> Counter[str]:
    return Counter(JobAttempt.objects.values_list("outcome", flat=True))


DOORS = [
    pytest.param("refused", "ConnectionFailed", id="refused"),
    pytest.param("tls", "TLSError", id="tls"),
    pytest.param(answers("401 Unauthorized"), "Unauthorized", id="unauthorized"),
    pytest.param(answers("503 Service Unavailable"), "ServiceUnavailable", id="unavailable-for-all"),
    pytest.param(answers("429 Too Many"), "TooManyRequests", id="too-many-requests-for-all"),
    pytest.param(answers("404 Not Found", body=b"404 page not found"), "NotFound", id="no-api-there"),
    pytest.param(answers("302 Found", headers="Location: /login\r\n"), "Redirected", id="a-login-page"),
    pytest.param(answers("502 Bad Gateway", body=b"<html>"), "HTTP502", id="a-proxy-alone"),
]


@pytest.mark.parametrize(("door", "reason"), DOORS)
def test_a_closed_door_begins_an_outage_and_spends_no_retry(
    simulator: Simulator, settings: Settings, tmp_path: Path, door: object, reason: str
) -> None:
    queue_events(4)
    with odd_server(door if callable(door) else lambda peer: peer.sendall(b"HTTP/1.1 400\r\n\r\n")) as port:
        server = {"refused": "http://127.0.0.1:1", "tls": f"https://127.0.0.1:{port}"}.get(
            door if isinstance(door, str) else "", f"http://127.0.0.1:{port}"
        )
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=server)

        result = work(most=4)

    outage = Outage.objects.get()
    assert (outage.ongoing, outage.reason) == (True, reason)
    assert (result.retried, result.given_back) == (1, 3)
    assert outcomes() == {"unavailable": 1}
    assert set(KanikoJob.objects.values_list("state", "retries_used", "run_at")) == {("queued", 0, None)}
    assert tallies.totals(prefix="outage/")["outage/begun"].count == 1


def test_during_an_outage_nothing_is_claimed(simulator: Simulator) -> None:
    queue_events(2)
    outages.begin(AWAY)

    assert claims.claim(most=5, lease=LEASE).kaniko_jobs == ()


def test_what_a_worker_holds_is_given_back_without_a_call(simulator: Simulator) -> None:
    queue_events(2)
    claim = claims.claim(most=5, lease=LEASE)
    outages.begin(AWAY)

    result = creation.create(token=claim.token, kaniko_jobs=claim.kaniko_jobs)

    assert result == creation.CreationResult(given_back=2)
    assert set(KanikoJob.objects.values_list("state", "claim")) == {("queued", None)}
    assert not JobAttempt.objects.exists()
    assert simulator.stats()["requests"] == {}


def test_an_outage_is_recorded_once_however_many_meet_it(simulator: Simulator) -> None:
    news = [outages.begin(AWAY) for _ in range(5)]

    assert news == [True, False, False, False, False]
    assert Outage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_only_one_probes_at_a_time(simulator: Simulator) -> None:
    outages.begin(AWAY)
    probe_is_due()
    simulator.faults([{"do": "latency", "seconds": 0.3, "verb": "list"}])
    answers_of_each: list[bool] = []

    def probe() -> None:
        from django.db import connection

        answers_of_each.append(outages.probe_if_due())
        connection.close()

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers_of_each) == [False, False, False, True]
    assert simulator.stats()["requests"] == {"list 200": 1}
    assert Outage.objects.get().probes == 1


def test_a_probe_is_not_made_before_its_time(simulator: Simulator) -> None:
    outages.begin(AWAY)

    assert not outages.probe_if_due()
    assert simulator.stats()["requests"] == {}


@pytest.mark.parametrize(("asked_for", "wait"), [(None, 1.0), (0.0, 1.0), (3.0, 3.0), (600.0, 4.0)])
def test_a_retry_after_stretches_the_time_between_probes_within_bounds(
    simulator: Simulator, asked_for: float | None, wait: float
) -> None:
    outages.begin(ClusterUnavailable(reason="TooManyRequests", message="", retry_after=asked_for))

    seconds = outages.seconds_until_probe()

    assert seconds is not None
    assert wait - 1.0 < seconds <= wait


def test_a_trial_ends_an_outage(simulator: Simulator) -> None:
    queue_events(3)
    outages.begin(AWAY)
    probe_is_due()
    broker = KanikoJobBroker(list_key="tests")

    first = run(broker)
    second = run(broker)

    assert (first, second) == (1, 2)
    assert set(KanikoJob.objects.values_list("state", flat=True)) == {"created"}
    assert Outage.objects.get().ended_at is not None


def run(broker: KanikoJobBroker) -> int:
    """Hand out what there is, and do it as workers would; return how many were created."""
    from django_q.signing import SignedPackage

    created = 0
    packages = broker.dequeue()
    while packages:
        for _, package in packages:
            token, kaniko_jobs, on_trial = SignedPackage.loads(package)["args"]
            created += creation.create(token=UUID(token), kaniko_jobs=kaniko_jobs, on_trial=on_trial).created
        packages = broker.dequeue() if broker._claimed else []
    return created


def test_an_outage_ends_when_there_is_nothing_to_try_it_with(simulator: Simulator) -> None:
    outages.begin(AWAY)
    probe_is_due()

    run(KanikoJobBroker(list_key="tests"))

    assert not Outage.objects.filter(ongoing=True).exists()


def test_a_server_that_lists_but_sheds_all_creates_begins_an_outage(simulator: Simulator) -> None:
    queue_events(16)
    simulator.faults([{"do": "status", "status": 429, "retry_after": 1, "verb": "create"}])

    work(most=8)

    assert outages.current() is not None
    assert outcomes() == {"unavailable": 5}
    assert not KanikoJob.objects.exclude(state="queued", retries_used=0).exists()


def test_a_trial_that_is_shed_goes_back_and_the_outage_goes_on(simulator: Simulator) -> None:
    queue_events(4)
    simulator.faults([{"do": "status", "status": 503, "verb": "create"}])
    outages.begin(AWAY)

    result = work(most=1, on_trial=True)

    assert result.retried == 1
    assert outages.current() is not None
    assert not KanikoJob.objects.exclude(state="queued", retries_used=0).exists()


def test_a_trial_that_fails_for_reasons_of_its_own_ends_the_outage(simulator: Simulator) -> None:
    queue_events(1)
    simulator.faults([{"do": "quota", "verb": "create"}])
    outages.begin(AWAY)

    work(most=1, on_trial=True)

    assert outages.current() is None
    assert KanikoJob.objects.get().reason == "QuotaExceeded"


def test_a_server_that_has_just_started_and_forbids_everything_is_still_away(simulator: Simulator) -> None:
    # Seen at a kube-apiserver: until it has read its RBAC rules it answers what they allow, and /readyz, with 403.
    queue_events(3)
    outages.begin(AWAY)
    simulator.deny([{}])

    probe_is_due()
    tried = outages.probe_if_due()
    starting = work(most=1, on_trial=True)
    simulator.deny([])
    work(most=1, on_trial=True)

    assert (tried, starting.retried) == (True, 1)
    assert outcomes() == {"unavailable": 1, "created": 1}
    assert outages.current() is None
    assert not DeadLetter.objects.exists()


def test_who_may_not_create_is_refused_at_once_by_a_server_that_is_ready(simulator: Simulator) -> None:
    queue_events(1)
    simulator.deny([{"verb": "create", "resource": "jobs"}])

    work()

    assert (KanikoJob.objects.get().reason, Outage.objects.exists()) == ("Forbidden", False)


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "status", "status": 500},
        {"do": "status", "status": 429, "retry_after": 0},
        {"do": "status", "status": 503},
        {"do": "drop"},
        {"do": "drop-after"},
        {"do": "garbage"},
        {"do": "quota"},
        {"do": "webhook"},
    ],
    ids=lambda fault: f"{fault['do']}-{fault.get('status', '')}",
)
def test_errors_of_single_events_never_begin_an_outage(simulator: Simulator, fault: dict[str, object]) -> None:
    unlucky, *others = queue_events(12)
    simulator.faults([fault | {"verb": "create", "event_id": unlucky.event.event_id}])

    work_off()

    assert not Outage.objects.exists()
    assert KanikoJob.objects.filter(pk__in=[job.pk for job in others], state="created").count() == 11


def test_one_bad_answer_to_a_probe_is_no_outage(simulator: Simulator) -> None:
    queue_events(1)
    simulator.faults(
        [
            {"do": "status", "status": 500, "verb": "create", "count": 1},
            {"do": "status", "status": 500, "verb": "list", "count": 2},
        ]
    )

    work_off()

    assert not Outage.objects.exists()
    assert outcomes() == {"retry": 1, "created": 1}


def test_a_job_whose_create_timed_out_as_the_outage_began_keeps_its_place(simulator: Simulator) -> None:
    (job,) = queue_events(1)
    simulator.faults([{"do": "timeout-after", "verb": "create"}, {"do": "status", "status": 503, "verb": "list"}])

    work()
    job.refresh_from_db()
    waiting = (job.state, job.may_exist, job.retries_used)
    simulator.clear_faults()
    outages.end()
    work_off()

    assert waiting == ("queued", True, 0)
    assert outcomes() == {"unavailable": 1, "adopted": 1}
    assert simulator.stats()["creates"]["total"] == 1


@pytest.mark.django_db(transaction=True)
def test_an_outage_of_seconds_fails_nothing_and_costs_few_attempts(simulator: Simulator) -> None:
    queue_events(60)
    broker = KanikoJobBroker(list_key="tests")
    simulator.outage(3)
    deadline = time.monotonic() + 60

    while KanikoJob.objects.exclude(state="created").exists():
        assert time.monotonic() < deadline
        run(broker)

    assert outcomes()["unavailable"] <= 5
    assert outcomes()["created"] == 60
    assert not DeadLetter.objects.exists()
    assert not KanikoJob.objects.exclude(retries_used=0).exists()
    assert simulator.stats()["creates"]["total"] == 60
