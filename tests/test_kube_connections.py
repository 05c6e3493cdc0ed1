"""What becomes of connections and credentials between two calls: closed, forgotten, expired, replaced, by a proxy."""

import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from deploy.local.processes import free_port
from kanikojobs import kube
from kanikojobs.errors import ClusterUnavailable
from tests.odd_server import Script, odd_server, request_of, write_kubeconfig

MANIFEST = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a-job", "namespace": "builds"}}
A_JOB = json.dumps(
    {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "metadata": {"name": "a-job", "uid": "8a1f0c9e-3a40-4b1c-9d6e-0d6a3f7b2c11"},
    }
).encode()
UNAUTHORIZED = b'{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized"}'


def answer(peer: socket.socket, status: str, body: bytes) -> None:
    peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def create(times: int = 1) -> None:
    for _ in range(times):
        kube.create_job(MANIFEST, namespace="builds")


def close(peer: socket.socket) -> None:
    peer.close()


def reset(peer: socket.socket) -> None:
    # Without lingering, closing says RST instead of FIN.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("end", [close, reset], ids=["closed", "reset"])
def test_a_connection_that_ended_while_it_was_idle_costs_no_attempt(
    settings: Settings, tmp_path: Path, end: Callable[[socket.socket], None]
) -> None:
    requests: list[bytes] = []
    idle_ended = threading.Event()

    def serves_once(peer: socket.socket) -> None:
        requests.append(request_of(peer))
        answer(peer, "201 Created", A_JOB)
        end(peer)
        idle_ended.set()

    with odd_server(serves_once) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")
        create()
        assert idle_ended.wait(60)
        create()

    assert [request.split(b" ")[0] for request in requests] == [b"POST", b"POST"]


def test_a_kept_open_connection_is_used_again_and_watched_while_idle(settings: Settings, tmp_path: Path) -> None:
    connections: list[int] = []

    def keeps_open(peer: socket.socket) -> None:
        connections.append(1)
        while request_of(peer):
            answer(peer, "201 Created", A_JOB)

    with odd_server(keeps_open) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")
        create(times=3)
        pool = kube._client().rest_client.pool_manager.connection_from_url(f"http://127.0.0.1:{port}")
        assert pool.pool is not None
        kept = pool.pool.get()
        alive = kept.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        kept.close()

    assert len(connections) == 1
    assert alive


def test_creation_asks_for_a_jobs_metadata_alone_and_takes_the_whole_job_too(
    settings: Settings, tmp_path: Path
) -> None:
    requests: list[bytes] = []

    def gives_the_whole_job(peer: socket.socket) -> None:
        requests.append(request_of(peer))
        answer(peer, "201 Created", A_JOB)

    with odd_server(gives_the_whole_job) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}/prefix/")
        create()

    assert requests[0].startswith(b"POST /prefix/apis/batch/v1/namespaces/builds/jobs ")
    assert b"Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json\r\n" in requests[0]


def by_token_file(tmp_path: Path) -> dict[str, object]:
    return {"tokenFile": str(tmp_path / "token")}


def by_exec_plugin(tmp_path: Path) -> dict[str, object]:
    """A credential plugin as `aws eks get-token` is one: a command that prints an ExecCredential."""
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}
    script = f"printf '{json.dumps(credential)}' \"$(cat '{tmp_path}/token')\""
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": ["-c", script],
            "interactiveMode": "Never",
        }
    }


def wants(token: str, *, seen: list[bytes], then: Callable[[], object] = lambda: None) -> Script:
    """Answers 401 to any other token, after doing something."""

    def script(peer: socket.socket) -> None:
        while request := request_of(peer):
            seen.append(next(line for line in request.split(b"\r\n") if line.lower().startswith(b"authorization:")))
            if seen[-1].endswith(f"Bearer {token}".encode()):
                answer(peer, "201 Created", A_JOB)
            else:
                then()
                answer(peer, "401 Unauthorized", UNAUTHORIZED)

    return script


@pytest.mark.parametrize("user", [by_token_file, by_exec_plugin], ids=["token-file", "exec-plugin"])
def test_a_token_that_was_replaced_is_taken_within_the_same_call(
    settings: Settings, tmp_path: Path, user: Callable[[Path], dict[str, object]]
) -> None:
    (tmp_path / "token").write_text("old")
    seen: list[bytes] = []
    rotating = wants("new", seen=seen, then=lambda: (tmp_path / "token").write_text("new"))

    with odd_server(rotating) as port:
        server = f"http://127.0.0.1:{port}"
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=server, user=user(tmp_path))
        create(times=2)
        kube._way.cache_clear()

    assert [line.rpartition(b" ")[2] for line in seen] == [b"old", b"new", b"new"]


def test_a_token_that_is_refused_and_was_not_replaced_is_not_sent_twice(settings: Settings, tmp_path: Path) -> None:
    seen: list[bytes] = []

    with odd_server(wants("another", seen=seen)) as port:
        server = f"http://127.0.0.1:{port}"
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=server, user={"token": "old"})
        with pytest.raises(ClusterUnavailable) as caught:
            create()
        kube._way.cache_clear()

    assert caught.value.reason == "Unauthorized"
    assert len(seen) == 1


def test_a_kubeconfigs_proxy_is_used(settings: Settings, tmp_path: Path) -> None:
    requests: list[bytes] = []

    def proxies(peer: socket.socket) -> None:
        requests.append(request_of(peer))
        answer(peer, "201 Created", A_JOB)

    with odd_server(proxies) as port:
        settings.KUBECONFIG = write_kubeconfig(
            tmp_path / "kubeconfig", server="http://api.example.com:6443", proxy=f"http://127.0.0.1:{port}"
        )
        create()

    (request,) = requests
    assert request.startswith(b"POST http://api.example.com:6443/apis/batch/v1/namespaces/builds/jobs HTTP/1.1")


def test_a_proxy_that_is_away_is_nobodys_fault(settings: Settings, tmp_path: Path) -> None:
    settings.KUBECONFIG = write_kubeconfig(
        tmp_path / "kubeconfig", server="http://api.example.com:6443", proxy=f"http://127.0.0.1:{free_port()}"
    )

    with pytest.raises(ClusterUnavailable) as caught:
        create()

    assert caught.value.reason == "ProxyError"
