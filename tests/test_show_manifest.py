"""`manage.py show_manifest`: what it prints is what would be created."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from deploy.local.simulator import Simulator
from kanikojobs import kube
from kanikojobs.models import BuildProfile, KanikoJob
from tests.creating import queue_events, work
from tests.sample_events import DOCUMENT_EVENT_JSON, document_event, sample_event

pytestmark = pytest.mark.django_db


def show(*arguments: str) -> tuple[dict[str, Any], str]:
    """The manifest, and what was said beside it."""
    out, err = io.StringIO(), io.StringIO()
    call_command("show_manifest", *arguments, stdout=out, stderr=err)
    manifest: dict[str, Any] = yaml.safe_load(out.getvalue())
    return manifest, err.getvalue()


def a_file(tmp_path: Path, event: dict[str, Any]) -> str:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    return str(path)


def test_it_prints_the_manifest_that_is_created(simulator: Simulator) -> None:
    (job,) = queue_events()

    printed, _ = show(job.event.event_id)
    work()

    created = kube.request("GET", f"/apis/batch/v1/namespaces/{job.namespace}/jobs/{job.name}").body
    assert printed["metadata"]["name"] == job.name
    assert printed["metadata"]["annotations"] == created["metadata"]["annotations"]
    assert printed["metadata"]["labels"].items() <= created["metadata"]["labels"].items()
    pod, created_pod = (manifest["spec"]["template"]["spec"] for manifest in (printed, created))
    for containers in ("initContainers", "containers"):
        assert pod[containers][0].items() <= created_pod[containers][0].items()


def test_it_reads_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DOCUMENT_EVENT_JSON.encode())))

    from_file, _ = show(a_file(tmp_path, document_event()))
    from_standard_input, _ = show("-")

    assert from_file == from_standard_input
    assert from_file["kind"] == "Job"


def test_a_file_needs_no_database(tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "DJANGO_DEBUG": "1", "DATABASE_URL": "postgres://127.0.0.1:1/none"}
    manage = Path(__file__).parents[1] / "manage.py"

    shown = subprocess.run(
        [sys.executable, manage, "show_manifest", a_file(tmp_path, document_event())],
        env=variables,
        capture_output=True,
        text=True,
    )

    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["kind"] == "Job"
    assert "The third party's profile is not in it: connection failed" in shown.stderr


def test_scripts_are_blocks_that_a_person_can_read(tmp_path: Path) -> None:
    out = io.StringIO()

    call_command("show_manifest", a_file(tmp_path, document_event()), stdout=out)

    container = yaml.safe_load(out.getvalue())["spec"]["template"]["spec"]["initContainers"][0]
    (script,) = [text for text in [*container.get("command", []), *container.get("args", [])] if "\n" in text]
    printed = [line.strip() for line in out.getvalue().splitlines()]
    assert [line for line in script.splitlines() if line.strip() not in printed] == []
    assert "&id" not in out.getvalue()


def test_a_retrys_own_parameters_and_a_profile_are_in_it() -> None:
    (job,) = queue_events()
    KanikoJob.objects.filter(pk=job.pk).update(number=2, overrides={"memory": "9Gi"})
    BuildProfile.objects.create(third_party_id=job.third_party_id, destination="registry.example.com/{parser_id}:2")

    manifest, _ = show(job.event.event_id)

    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["memory"] == "9Gi"
    assert f"--destination=registry.example.com/{job.parser_id}:2" in container["args"]


def test_the_api_servers_verdict_is_told_and_nothing_is_made(simulator: Simulator, tmp_path: Path) -> None:
    path = a_file(tmp_path, sample_event(1))

    _, said = show(path, "--server-dry-run")

    assert said == "The API server would create it in namespace kaniko-builds.\n"
    assert simulator.stats()["creates"]["total"] == 0


def test_a_job_that_is_there_is_told(simulator: Simulator) -> None:
    (job,) = queue_events()
    work()

    _, said = show(job.event.event_id, "--server-dry-run")

    assert said == f"The API server has a Job {job.name} in namespace {job.namespace} already.\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"do": "quota"}, "The API server refuses it (403 QuotaExceeded): "),
        ({"do": "webhook"}, "The API server refuses it (400 AdmissionDenied): "),
        ({"do": "status", "status": 503}, "The API server gave no verdict (ServiceUnavailable): "),
        ({"do": "drop"}, "The API server gave no verdict (ConnectionLost): "),
    ],
    ids=["quota", "webhook", "unavailable", "dropped"],
)
def test_a_refusal_is_told_in_words(simulator: Simulator, tmp_path: Path, fault: dict[str, Any], said: str) -> None:
    simulator.faults([fault])

    with pytest.raises(CommandError) as caught:
        show(a_file(tmp_path, sample_event(1)), "--server-dry-run")

    assert str(caught.value).startswith(said)


def test_faults_of_an_event_are_told_each(tmp_path: Path) -> None:
    event = document_event()
    event["data"]["parameters"]["priority"] = 77
    del event["id"]

    with pytest.raises(CommandError) as caught:
        show(a_file(tmp_path, event))

    assert str(caught.value).startswith("It is no job start event:\n")
    assert str(caught.value).count("\n  ") == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "something.else"}, "CloudEvent of type 'something.else'"),
        ({"data": {"source_url": "file:///etc/passwd"}}, "No Job can be made of it: SourceNotAllowed: "),
    ],
    ids=["not-ours", "no-source"],
)
def test_what_no_job_can_be_made_of_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    event = document_event()
    event["data"]["parameters"] |= change.pop("data", {})

    with pytest.raises(CommandError) as caught:
        show(a_file(tmp_path, event | change))

    assert str(caught.value).startswith(said)


def test_an_event_that_is_not_there_is_told() -> None:
    with pytest.raises(CommandError) as caught:
        show("no-such-event")

    assert str(caught.value) == "'no-such-event' is neither a file nor the id of a recorded event."
