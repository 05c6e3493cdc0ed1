"""What the deployed roles grant is what the code asks the API server for: no verb less, and none more."""

from collections.abc import Iterator

import pytest

from deploy.local.simulator import Simulator
from kanikojobs import kube
from tests.deployment import OVERLAYS, Object, of_kind

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

Right = tuple[str, str]

# What the watcher of the design needs: Jobs and their pods, the end of a log, the events, and a Job that is cancelled.
WATCHER = {
    *(("jobs", verb) for verb in ("get", "list", "watch", "delete")),
    *(("pods", verb) for verb in ("get", "list", "watch")),
    ("pods/log", "get"),
    ("events", "list"),
}


def granted(role: Object) -> set[Right]:
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def asked(simulator: Simulator) -> Iterator[Right]:
    """Resource and verb of every request that the API server has seen."""
    for request in simulator._call("GET", "requests")["requests"]:
        path = request["path"].partition("?")[0].partition("/namespaces/")[2].split("/")
        yield "/".join(path[1:2] + path[3:]), request["verb"]


@every_overlay
def test_the_watchers_role_grants_what_watching_needs(overlay: str) -> None:
    assert granted(of_kind(overlay, "Role")["kaniko-job-watcher"]) == WATCHER


@every_overlay
def test_the_creators_role_grants_what_creating_asks_for(overlay: str, simulator: Simulator) -> None:
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "rights"},
        "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "kaniko", "image": "kaniko"}]}}
        },
    }

    kube.probe()
    kube.create_job(manifest, namespace="kaniko-builds")
    kube.get_job("rights", namespace="kaniko-builds")

    assert set(asked(simulator)) == granted(of_kind(overlay, "Role")["kaniko-job-creator"])


@every_overlay
def test_each_role_goes_to_one_account_and_nothing_is_granted_beyond_the_builds(overlay: str) -> None:
    subjects = {
        binding["roleRef"]["name"]: [subject["name"] for subject in binding["subjects"]]
        for binding in of_kind(overlay, "RoleBinding").values()
    }

    assert subjects == {"kaniko-job-creator": ["kanikojobs-worker"], "kaniko-job-watcher": ["kanikojobs-watcher"]}
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
