"""What is kept of a build: redacted, bounded, and captured later where it could not be at once."""

import json
import time
from pathlib import Path

import pytest
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import evidence
from kanikojobs.kube_watch import LogTail
from kanikojobs.models import ContainerLog, JobEvidence
from kanikojobs.obstacles import refusal_of
from kanikojobs.redaction import redact
from tests.factories import a_kaniko_job
from tests.odd_server import answers, odd_server, write_kubeconfig
from tests.watched_jobs import created_jobs, wait_captured, wait_finished, wait_until, watching

SECRETS = {
    "AWS access key": ("export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    "AWS secret key": (
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    "GitHub token": ("using ghp_16C7e42F292c6912E7710c838347Ae178B4a now", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    "fine-grained GitHub token": ("github_pat_11AAAAAAA0abcdefghijkl_MNOPQRSTUV", "11AAAAAAA0abcdefghijkl"),
    "GitLab token": ("token glpat-xYz12345678901234567", "glpat-xYz12345678901234567"),
    "npm token": ("//registry.example/:_authToken=npm_abcdefghijklmnopqrstuvwxyz0123456789", "npm_abcdefghij"),
    "PyPI token": ("pypi-AgEIcHlwaS5vcmcCJDAwMDAwMDAw", "AgEIcHlwaS5vcmcC"),
    "Docker token": ("dckr_pat_AbCdEfGhIjKlMnOpQrStUvWxYz0", "AbCdEfGhIjKlMnOp"),
    "password in a URL": ("cloning https://build:s3cr3t-pass@git.example/x.git", "s3cr3t-pass"),
    "database URL": ("DATABASE=postgres://app:hunter2@db:5432/app", "hunter2"),
    "token as a URL's user": (
        "fatal: unable to access https://0123456789abcdef0123@git.example/",
        "0123456789abcdef0123",
    ),
    "basic authorization": ("Authorization: Basic YnVpbGQ6czNjcjN0", "YnVpbGQ6czNjcjN0"),
    "bearer token": ("-H 'Authorization: Bearer abcdef0123456789abcdef'", "abcdef0123456789abcdef"),
    "docker auth": ('{"auths":{"registry.example":{"auth":"YnVpbGQ6czNjcjN0"}}}', "YnVpbGQ6czNjcjN0"),
    "web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN", "dozjgNryP4J3jVmN"),
    "password by name": ("POSTGRES_PASSWORD=correct-horse npm start", "correct-horse"),
    "quoted secret": ('client_secret: "a b c d" # comment', "a b c d"),
    "flag": ("mysql --password hunter22 -u root", "hunter22"),
}
PLAIN = [
    "INFO[0001] Retrieving image manifest registry.example/library/node:18-alpine",
    "INFO[0012] Pushed registry:5000/a/b@sha256:" + "0" * 64,
    "npm error 404 Not Found - GET https://registry.example/left-padd - Not found",
    "error building image: unable to complete operation: UNAUTHORIZED: authentication required; [map[Action:pull]]",
    "fetch-source: at commit 0123456789abcdef0123456789abcdef01234567",
    "COPY --chown=node:node package*.json ./",
    "the keys of the token ring were not secret",
]


@pytest.mark.parametrize("name", SECRETS)
def test_it_strikes_out_a_secret(name: str) -> None:
    line, secret = SECRETS[name]

    told = redact(f"before\n{line}\nafter")

    assert secret not in told
    assert "[redacted: " in told
    assert told.startswith("before\n")
    assert told.endswith("\nafter")


@pytest.mark.parametrize("line", PLAIN)
def test_it_leaves_other_text_as_it_is(line: str) -> None:
    assert redact(line) == line


def test_it_strikes_out_a_private_key_of_many_lines() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\nAQEA7\n-----END RSA PRIVATE KEY-----"

    assert redact(f"before\n{key}\nafter") == "before\n[redacted: private key]\nafter"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("before\n-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKC\nAQEA7aaa", "before\n[redacted: private key]"),
        ("-----BEGIN PRIVATE KEY-----\nthat was only said", "[redacted: private key]\nthat was only said"),
        ("MIIEpAIBAAKC\n-----END PRIVATE KEY-----\nafter", "[redacted: private key]\nafter"),
    ],
    ids=["cut at the end", "only the words", "cut at the beginning"],
)
def test_it_strikes_out_the_half_of_a_private_key(text: str, left: str) -> None:
    assert redact(text) == left


def test_hostile_text_does_not_hold_up_redaction() -> None:
    texts = ["password" * 30_000, "a" * 250_000 + "=", "https://" * 30_000, "-----BEGIN A PRIVATE KEY-----" * 9_000]

    lengths = [len(redact(text)) for text in texts]

    # A pattern that backtracks would not come back at all.
    assert len(lengths) == len(texts)


@pytest.mark.django_db(transaction=True)
def test_it_keeps_the_end_of_every_containers_log_redacted_and_bounded(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    jobs = created_jobs(1)
    with watching():
        wait_until(lambda: type(jobs[0]).objects.filter(state="running").exists())
        simulator.write_log(jobs[0].name, *(f"line {number}" for number in range(700)), "password=hunter2")
        simulator.end_pod(jobs[0].name, outcome="build-error")
        wait_finished(jobs)
        wait_captured(jobs)

    logs = {log.container: log for log in ContainerLog.objects.all()}
    lines = logs["kaniko"].text.splitlines()
    assert set(logs) == {"source", "kaniko"}
    assert len(lines) == evidence.MOST_LINES
    assert lines[-2:] == ["line 699", "password=[redacted: secret]"]
    assert logs["kaniko"].cut


@pytest.mark.django_db(transaction=True)
def test_it_keeps_digest_statuses_and_events(simulator: Simulator) -> None:
    jobs = created_jobs(1)
    with watching():
        wait_finished(jobs)
        wait_captured(jobs)

    kept = JobEvidence.objects.get()
    (pod,) = kept.pods
    assert kept.image_digest.startswith("sha256:")
    assert kept.exit_code == 0
    assert pod["node"] == "build-node-1"
    assert [(c["name"], c["state"], c["exit_code"]) for c in pod["containers"]] == [
        ("source", "terminated", 0),
        ("kaniko", "terminated", 0),
    ]
    assert {"Scheduled", "Started", "SuccessfulCreate"} <= {event["reason"] for event in kept.events}


@pytest.mark.django_db(transaction=True)
def test_the_log_of_a_pod_that_its_deadline_removes_is_kept(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    simulator.settings(termination_seconds=1.0)
    jobs = created_jobs(1)
    with watching():
        wait_until(lambda: type(jobs[0]).objects.filter(state="running").exists())
        time.sleep(0.3)
        simulator.pass_deadline(jobs[0].name)
        (job,) = wait_finished(jobs)
        wait_captured(jobs)

    assert job.reason == "DeadlineExceeded"
    assert "Retrieving image manifest" in ContainerLog.objects.get(container="kaniko").text


@pytest.mark.django_db(transaction=True)
def test_logs_that_cannot_be_read_at_first_are_read_later(simulator: Simulator) -> None:
    simulator.faults([{"do": "status", "status": 500, "path": "/log", "count": 1}])
    jobs = created_jobs(1)
    with watching():
        wait_finished(jobs)
        wait_captured(jobs)

    kept = JobEvidence.objects.get()
    assert kept.missing == ""
    assert ContainerLog.objects.count() == 2


@pytest.mark.django_db
def test_of_two_readings_of_a_log_the_longer_one_is_kept() -> None:
    job = a_kaniko_job()
    for text in ("one\ntwo\n", "one\n"):
        evidence.record(job.pk, evidence.Captured(logs={("pod", "kaniko"): LogTail(text, cut=False)}), final=False)

    assert ContainerLog.objects.get().text == "one\ntwo\n"


@pytest.mark.django_db
def test_an_event_that_postgres_cannot_store_as_it_is_holds_up_nobody(tmp_path: Path, settings: Settings) -> None:
    job = a_kaniko_job()
    hostile = {"reason": "Fa\x00iled", "message": "a\x00b \ud800", "type": "\x00", "involvedObject": {"kind": "P\x00d"}}
    with odd_server(answers("200 OK", body=json.dumps({"items": [hostile]}).encode())) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "to-odd", server=f"http://127.0.0.1:{port}")
        captured = evidence.capture(evidence.Wanted(name=job.name, uid="u", containers=(), pod_uids=("p",)))
    evidence.note([evidence.Note(job.pk, "", None, [])])

    evidence.record(job.pk, captured, final=True)

    kept = JobEvidence.objects.get()
    assert [event["reason"] for event in kept.events] == ["Fa\\x00iled"] * 2
    assert kept.captured_at is not None
    assert refusal_of(["exceeded quota \x00"]) == ("QuotaExceeded", "exceeded quota \\x00")


@pytest.mark.django_db(transaction=True)
def test_evidence_that_a_watcher_left_behind_is_captured_by_the_next(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = created_jobs(1)
    with watching():
        wait_finished(jobs)
        wait_captured(jobs)
    JobEvidence.objects.update(captured_at=None, events=[])
    ContainerLog.objects.all().delete()
    monkeypatch.setattr("kanikojobs.readings.LATE_EVIDENCE", 0.0)

    with watching():
        wait_captured(jobs)

    assert ContainerLog.objects.count() == 2
    assert JobEvidence.objects.get().events
