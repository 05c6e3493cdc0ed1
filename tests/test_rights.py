"""What the deployed roles grant is what the code asks the API server for: no verb less, and none more."""

import ast
import time
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client

from deploy.local.simulator import Simulator
from kanikojobs import job_logs, kube, kube_watch
from tests.deployment import CHECKOUT, OVERLAYS, Object, of_kind
from tests.watched_jobs import created_jobs, wait_until

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

NAMESPACE = "kaniko-builds"
MANAGED = {"app.kubernetes.io/managed-by": "kanikojobs"}

Right = tuple[str, str]


def granted(role: Object) -> set[Right]:
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def asked(simulator: Simulator) -> Iterator[Right]:
    """Resource and verb of every request that the API server has seen."""
    for request in simulator._call("GET", "requests")["requests"]:
        path = request["path"].partition("?")[0].partition("/namespaces/")[2].split("/")
        yield "/".join(path[1:2] + path[3:]), request["verb"]


@pytest.fixture
def job(simulator: Simulator) -> kube.JobSeen:
    """A Job that has been created and looked at, as creation does it."""
    simulator.settings(pod_start_seconds=0, run_seconds=0)
    containers = [{"name": "kaniko", "image": "kaniko"}]
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "rights", "labels": MANAGED},
        "spec": {
            "template": {
                "metadata": {"labels": MANAGED},
                "spec": {"restartPolicy": "Never", "containers": containers},
            }
        },
    }
    kube.probe()
    created = kube.create_job(manifest, namespace=NAMESPACE)
    kube.get_job("rights", namespace=NAMESPACE)
    return created


@every_overlay
def test_the_creators_role_grants_what_creating_asks_for(overlay: str, simulator: Simulator, job: kube.JobSeen) -> None:
    assert set(asked(simulator)) == granted(of_kind(overlay, "Role")["kaniko-job-creator"])


@every_overlay
def test_the_watchers_role_grants_what_watching_asks_for(overlay: str, simulator: Simulator, job: kube.JobSeen) -> None:
    uid = str(job.uid)

    pod = finished_pod()
    for path in (kube_watch.jobs_path(), kube_watch.pods_path()):
        ((_, version),) = kube_watch.list_pages(path)
        list(kube_watch.Watch(path=path, seconds=1, quiet=5.0).events(version))
    kube_watch.log_tail(pod=pod, container="kaniko", lines=1, most_bytes=1000)
    kube_watch.events_about(uid)
    assert kube_watch.job_exists("rights", uid=uid)
    assert kube_watch.delete_job("rights", uid=uid)

    watching = set(asked(simulator)) - {("jobs", "create")}
    assert watching == granted(of_kind(overlay, "Role")["kaniko-job-watcher"])


def finished_pod() -> str:
    """The name of the Job's pod, once its log can be read."""
    for _ in range(1200):
        for pods, _version in kube_watch.list_pages(kube_watch.pods_path()):
            for pod in pods:
                if pod["status"].get("phase") == "Succeeded":
                    return str(pod["metadata"]["name"])
        time.sleep(0.05)
    pytest.fail("the simulated pod has not finished within a minute")


@pytest.mark.django_db(transaction=True)
def test_the_log_readers_role_grants_what_the_pages_ask_for(simulator: Simulator, client: Client) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    before = len(list(asked(simulator)))
    wait_until(lambda: any(place.container == "kaniko" for place in job_logs.places(job)))
    client.force_login(User.objects.create_superuser("admin"))

    client.get(f"/admin/kanikojobs/kanikojob/{job.pk}/change/")
    log = client.get(f"/async-jobs/jobs/{job.pk}/logs")
    cancelled = client.post(f"/async-jobs/jobs/{job.pk}/cancel", {"reason": "no more"}, "application/json")
    simulator.end_pod(job.name, outcome="build-error")
    followed = client.get(f"/async-jobs/jobs/{job.pk}/logs?follow=1")

    assert "Retrieving" in log.content.decode()
    assert "Retrieving" in b"".join(followed.streaming_content).decode()  # type: ignore[attr-defined]
    assert cancelled.status_code == 200
    for overlay in OVERLAYS:
        assert set(list(asked(simulator))[before:]) == granted(of_kind(overlay, "Role")["kaniko-log-reader"])


# Whoever asks the API server does it in a process whose account has the rights for it: the roles of the deploy files.
# `checkup` and `show_manifest` are run by hand, in the pod of the process in question.
ASKERS = {
    "kaniko-job-creator": {"outages", "queue", "verdicts"},
    "kaniko-job-watcher": {"absences", "deletions", "evidence", "feeds", "readings", "refusals", "term"},
    "kaniko-log-reader": {"job_logs"},
    "by hand": {"checkup", "show_manifest"},
}


def test_every_module_that_asks_the_api_server_belongs_to_a_role() -> None:
    importers = {
        path.stem
        for path in (CHECKOUT / "kanikojobs").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (
            (node.module == "kanikojobs" and {"kube", "kube_watch"} & {alias.name for alias in node.names})
            or node.module in ("kanikojobs.kube", "kanikojobs.kube_watch")
        )
    }

    assert importers - {"kube_watch"} == set().union(*ASKERS.values())


@every_overlay
def test_each_role_goes_to_one_account_and_nothing_is_granted_beyond_the_builds(overlay: str) -> None:
    subjects = {
        binding["roleRef"]["name"]: [subject["name"] for subject in binding["subjects"]]
        for binding in of_kind(overlay, "RoleBinding").values()
    }

    assert subjects == {
        "kaniko-job-creator": ["kanikojobs-worker"],
        "kaniko-job-watcher": ["kanikojobs-watcher"],
        "kaniko-log-reader": ["kanikojobs-web"],
    }
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
