"""The objects that the suite creates, and what is waited for."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.raw_kubernetes import Answer, Json, RawKubernetes, wait_for

GIVEN_KUBECONFIG = os.environ.get("KANIKOJOBS_CONFORMANCE_KUBECONFIG", "")
REAL_SERVER = bool(GIVEN_KUBECONFIG) or os.environ.get("KANIKOJOBS_CLUSTER") == "kubeconfig"
MOMENT = "2026-01-01T00:00:00Z"
_CONTROLLER_SECONDS = 30.0 if REAL_SERVER else 5.0


def job(name: str, *, metadata: Json | None = None, spec: Json | None = None, pod: Json | None = None) -> Json:
    """A Job that no controller takes up."""
    container = {"name": "kaniko", "image": "registry.example/kaniko:v1"}
    template = {
        "spec": {
            "restartPolicy": "Never",
            "schedulerName": "no-such-scheduler",
            "containers": [container],
            **(pod or {}),
        }
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {"managedBy": "example.com/nobody", "backoffLimit": 0, "template": template, **(spec or {})},
    }


def controlled(name: str, **spec: Any) -> Json:
    """A Job for the Job controller, whose pods no scheduler places."""
    made = job(name, spec=spec)
    del made["spec"]["managedBy"]
    return made


def create(api: RawKubernetes, obj: Json, plural: str = "jobs") -> Answer:
    answer = api.create(obj, plural)
    assert answer.status == 201, answer.text
    return answer


def pod(name: str, **spec: Any) -> Json:
    container = {"name": "kaniko", "image": "registry.example/kaniko:v1"}
    return {
        "metadata": {"name": name},
        "spec": {"schedulerName": "no-such-scheduler", "containers": [container], **spec},
    }


def container(**fields: Any) -> Json:
    """A pod's spec with one container, the fields given added or replaced."""
    return {"containers": [{"name": "kaniko", "image": "registry.example/kaniko:v1", **fields}]}


def ended_status(terminated: Json, *, phase: str) -> Json:
    """The status of a pod whose container has ended."""
    status = {
        "name": "kaniko",
        "image": "registry.example/kaniko:v1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": terminated},
    }
    return {"phase": phase, "containerStatuses": [status]}


def seen(look: Callable[[], Any], *, needs: str) -> Any:
    """What a controller does sooner or later. A real server without that controller cannot be asked."""
    found = wait_for(look, seconds=_CONTROLLER_SECONDS)
    if not found and REAL_SERVER:
        pytest.skip(f"this cluster runs no {needs}")
    assert found, f"the {needs} has done nothing"
    return found
