"""The server under test, and a namespace in it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.kubernetes_conformance.objects import GIVEN_KUBECONFIG, REAL_SERVER
from tests.raw_kubernetes import RawKubernetes, wait_for


@pytest.fixture(scope="session")
def conformance_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawKubernetes]:
    """The API server, without a namespace of ours."""
    if REAL_SERVER:
        yield RawKubernetes(kubeconfig=Path(GIVEN_KUBECONFIG) if GIVEN_KUBECONFIG else None)
        return
    kubeconfig = tmp_path_factory.mktemp("conformance") / "kubeconfig"
    command = [sys.executable, "-m", "deploy.local.kubernetes_simulator", "--kubeconfig", str(kubeconfig)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    try:
        assert wait_for(kubeconfig.exists, seconds=60), "the simulator did not start"
        yield RawKubernetes(kubeconfig=kubeconfig)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def api(conformance_server: RawKubernetes) -> Iterator[RawKubernetes]:
    """The API server and a namespace that ends with the tests."""
    server = conformance_server
    created = server.call("POST", "/api/v1/namespaces", {"metadata": {"generateName": "kanikojobs-conformance-"}})
    assert created.status == 201, created.text
    server.namespace = created.body["metadata"]["name"]
    # A server without controllers makes no service account, and without one no pod is admitted.
    server.create({"metadata": {"name": "default"}}, "serviceaccounts")
    yield server
    server.call("DELETE", f"/api/v1/namespaces/{server.namespace}")


@pytest.fixture
def name() -> str:
    """A name that nobody else uses."""
    return f"job-{uuid4().hex[:12]}"
