"""What each answer, and each lack of one, means; over real connections to servers that say all sorts of things."""

import json
import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pytest_django import Settings

from deploy.local.processes import free_port
from kanikojobs import kube
from kanikojobs.advice import advice
from kanikojobs.errors import ClusterUnavailable, CreationError, PermanentError, TransientError
from kanikojobs.kube_answers import AlreadyExists, retry_after
from tests.odd_server import Script, answers, hangs_up, odd_server, says, write_kubeconfig

MANIFEST = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a-job", "namespace": "builds"}}


def a_status(**fields: object) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure"} | fields).encode()


def create(settings: Settings, tmp_path: Path, *, script: Script) -> kube.JobSeen:
    with odd_server(script) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / f"to-{port}", server=f"http://127.0.0.1:{port}")
        return kube.create_job(MANIFEST, namespace="builds")


NO_SUCH_NAMESPACE = a_status(
    reason="NotFound", message='namespaces "builds" not found', details={"name": "builds", "kind": "namespaces"}
)
QUOTA = a_status(reason="Forbidden", message='jobs.batch "a-job" is forbidden: exceeded quota: q, used: 5, limited: 5')
NOBODY = 'jobs.batch is forbidden: User "system:anonymous" cannot create resource "jobs" in API group "batch"'
UNCOUNTED = a_status(
    reason="Forbidden",
    message='jobs.batch "a-job" is forbidden: status unknown for quota: q, resources: pods',
)
STARTING = a_status(reason="Forbidden", message='jobs.batch "a-job" is forbidden: not yet ready to handle request')
ENDING = a_status(
    reason="Forbidden",
    message='jobs.batch "a-job" is forbidden: unable to create new content in namespace builds because it is being '
    "terminated",
    details={"name": "a-job", "kind": "jobs", "causes": [{"reason": "NamespaceTerminating", "field": "metadata"}]},
)
POLICY = a_status(
    reason="Unauthorized",
    message="jobs.batch \"a-job\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
)
NO_WEBHOOK = a_status(reason="InternalError", message='Internal error occurred: failed calling webhook "p": timeout')
DENIED = a_status(message='admission webhook "policy.example.com" denied the request: unsigned')


@pytest.mark.parametrize(
    ("script", "kind", "reason", "message"),
    [
        pytest.param(
            answers("409 Conflict", body=a_status(reason="AlreadyExists", message="there")),
            *(AlreadyExists, "AlreadyExists", "there"),
            id="already-exists",
        ),
        pytest.param(
            answers("409 Conflict", body=a_status(reason="Conflict", message="modified")),
            *(TransientError, "Conflict", "modified"),
            id="conflict-is-not-already-exists",
        ),
        pytest.param(
            answers("422 Unprocessable Entity", body=a_status(reason="Invalid", message="no more than 63 bytes")),
            *(PermanentError, "Invalid", "no more than 63 bytes"),
            id="invalid",
        ),
        pytest.param(
            answers("403 Forbidden", body=a_status(reason="Forbidden", message="may not")),
            *(PermanentError, "Forbidden", "may not"),
            id="forbidden",
        ),
        pytest.param(
            answers("403 Forbidden", body=a_status(reason="Forbidden", message=NOBODY)),
            *(ClusterUnavailable, "Forbidden", "system:anonymous"),
            id="no-credentials",
        ),
        pytest.param(
            answers("403 Forbidden", body=QUOTA), PermanentError, "QuotaExceeded", "exceeded quota", id="quota"
        ),
        pytest.param(
            answers("400 Bad Request", body=DENIED), PermanentError, "AdmissionDenied", "unsigned", id="webhook"
        ),
        pytest.param(
            answers("401 Unauthorized", body=DENIED),
            *(PermanentError, "AdmissionDenied", "unsigned"),
            id="webhook-that-says-unauthorized",
        ),
        pytest.param(
            answers("409 Conflict", body=DENIED), PermanentError, "AdmissionDenied", "unsigned", id="webhook-conflict"
        ),
        pytest.param(
            answers("401 Unauthorized", body=POLICY),
            *(PermanentError, "AdmissionDenied", "denied request: no"),
            id="policy-that-says-unauthorized",
        ),
        pytest.param(
            answers("503 Service Unavailable", body=DENIED),
            *(TransientError, "ServiceUnavailable", "unsigned"),
            id="webhook-that-asks-to-come-again",
        ),
        pytest.param(
            answers("500 Internal Server Error", body=NO_WEBHOOK),
            *(TransientError, "InternalError", "failed calling webhook"),
            id="webhook-that-does-not-answer",
        ),
        pytest.param(
            answers("400 Bad Request", body=b"Client sent an HTTP request to an HTTPS server.\n"),
            *(ClusterUnavailable, "BadRequest", "to an HTTPS server"),
            id="http-at-the-port-of-https",
        ),
        pytest.param(
            answers("403 Forbidden", body=STARTING),
            *(ClusterUnavailable, "NotReady", "not yet ready"),
            id="admission-that-is-starting",
        ),
        pytest.param(
            answers("403 Forbidden", body=UNCOUNTED),
            *(TransientError, "QuotaUncounted", "status unknown"),
            id="quota-that-is-not-counted-yet",
        ),
        pytest.param(
            answers("403 Forbidden", body=ENDING),
            *(PermanentError, "NamespaceTerminating", "being terminated"),
            id="namespace-that-is-going",
        ),
        pytest.param(
            answers("403 Forbidden", body=a_status(reason="Forbidden", message="x", details={"causes": "odd"})),
            *(PermanentError, "Forbidden", "x"),
            id="causes-that-are-none",
        ),
        pytest.param(
            answers("404 Not Found", body=NO_SUCH_NAMESPACE),
            *(PermanentError, "NamespaceNotFound", 'namespaces "builds" not found'),
            id="no-such-namespace",
        ),
        pytest.param(
            answers("404 Not Found", body=b"404 page not found\n", content_type="text/plain"),
            *(ClusterUnavailable, "NotFound", "404 page not found"),
            id="not-the-place-where-the-api-is",
        ),
        pytest.param(
            answers("401 Unauthorized", body=a_status(reason="Unauthorized", message="Unauthorized")),
            *(ClusterUnavailable, "Unauthorized", "Unauthorized"),
            id="unauthorized",
        ),
        pytest.param(
            answers("413 Too Large", body=b"<html>too large</html>", content_type="text/html"),
            *(PermanentError, "RequestEntityTooLarge", "<html>too large</html>"),
            id="too-large",
        ),
        pytest.param(
            answers("429 Too Many", body=b"Too many requests, please try again later.\n", content_type="text/plain"),
            *(TransientError, "TooManyRequests", "Too many requests, please try again later.\n"),
            id="too-many-requests-in-plain-text",
        ),
        pytest.param(
            answers(
                "500 Internal Server Error", body=a_status(reason="InternalError", message="etcdserver: no leader")
            ),
            *(TransientError, "InternalError", "etcdserver: no leader"),
            id="internal-error",
        ),
        pytest.param(
            answers("502 Bad Gateway", body=b"<html>502</html>", content_type="text/html"),
            *(TransientError, "HTTP502", "<html>502</html>"),
            id="a-proxys-bad-gateway",
        ),
        pytest.param(
            answers("503 Service Unavailable", body=b""),
            *(TransientError, "ServiceUnavailable", ""),
            id="unavailable-without-a-body",
        ),
        pytest.param(
            answers("302 Found", headers="Location: https://login.example.com/\r\n"),
            *(TransientError, "Redirected", "https://login.example.com/"),
            id="redirected-to-a-login",
        ),
        pytest.param(
            answers("200 OK", body=b"<html>welcome</html>", content_type="text/html"),
            *(TransientError, "UnreadableAnswer", "<html>welcome</html>"),
            id="a-page-instead-of-a-job",
        ),
        pytest.param(
            answers("201 Created", body=b'{"kind": "Job", "metadata": {"uid": "none"}}'),
            *(TransientError, "UnreadableAnswer", "no uid"),
            id="a-job-without-a-uid",
        ),
        pytest.param(
            answers("201 Created", body=b"[" * 100_000),
            *(TransientError, "UnreadableAnswer", "[[["),
            id="nested-without-end",
        ),
        pytest.param(
            answers("500 Oops", body=a_status(reason="x" * 500, message="nul \x00 and surrogate \ud800")),
            *(TransientError, "x" * 64, "nul \\x00 and surrogate \\ud800"),
            id="text-that-the-database-cannot-hold",
        ),
        pytest.param(hangs_up, TransientError, "ConnectionLost", "", id="hung-up-without-an-answer"),
        pytest.param(says(b"SSH-2.0-OpenSSH\r\n"), TransientError, "ConnectionLost", "", id="another-protocol"),
        pytest.param(
            says(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{"),
            *(TransientError, "ConnectionLost", ""),
            id="hung-up-in-the-middle",
        ),
    ],
)
def test_an_answer_becomes_the_error_that_it_means(
    settings: Settings, tmp_path: Path, script: Script, kind: type[CreationError], reason: str, message: str
) -> None:
    with pytest.raises(CreationError) as caught:
        create(settings, tmp_path, script=script)

    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert message in caught.value.message


@pytest.mark.parametrize(
    "status", [QUOTA, DENIED, ENDING, NO_SUCH_NAMESPACE], ids=["quota", "denied", "ending", "none"]
)
def test_a_refusal_that_is_told_apart_comes_with_advice(settings: Settings, tmp_path: Path, status: bytes) -> None:
    number = "404 Not Found" if status is NO_SUCH_NAMESPACE else "403 Forbidden"

    with pytest.raises(PermanentError) as caught:
        create(settings, tmp_path, script=answers(number, body=status))

    assert advice(caught.value.reason)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(says(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n", every=1.0), id="silent-after-the-head"),
        pytest.param(
            says(b"HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\n", *[b"{"] * 30, every=0.1),
            id="one-byte-at-a-time",
        ),
    ],
)
def test_an_answer_that_comes_too_slowly_is_no_answer(settings: Settings, tmp_path: Path, script: Script) -> None:
    settings.KANIKOJOBS_KUBERNETES_TIMEOUT = timedelta(milliseconds=300)

    with pytest.raises(TransientError) as caught:
        create(settings, tmp_path, script=script)

    assert caught.value.reason == "Timeout"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        pytest.param("http://127.0.0.1:{closed}", "ConnectionFailed", id="refused"),
        pytest.param("https://127.0.0.1:{open}", "TLSError", id="no-tls-there"),
        pytest.param("http://no-such-host.invalid:6443", "ConnectionFailed", id="no-such-host"),
    ],
)
def test_a_server_that_cannot_be_reached_is_nobodys_fault(
    settings: Settings, tmp_path: Path, server: str, reason: str
) -> None:
    with odd_server(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        address = server.format(closed=free_port(), open=port)
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=address)

        with pytest.raises(ClusterUnavailable) as caught:
            kube.create_job(MANIFEST, namespace="builds")

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no-file"),
        pytest.param("", id="empty"),
        pytest.param("{", id="not-yaml"),
        pytest.param("current-context: a\ncontexts: 7\n", id="not-a-kubeconfig"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_nobodys_fault(
    settings: Settings, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    settings.KUBECONFIG = str(path)

    with pytest.raises(ClusterUnavailable) as caught:
        kube.create_job(MANIFEST, namespace="builds")

    assert caught.value.reason == "NotConfigured"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0", 0.0, id="none"),
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("999999999", 600.0, id="without-end"),
        pytest.param("-5", None, id="negative"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("soon", None, id="words"),
        pytest.param("Mon, 01 Jan 2024 00:00:00 GMT", 0.0, id="a-date-that-has-passed"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 600.0, id="a-date-far-away"),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_as_a_date_counts_from_now() -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)

    seconds = retry_after(text)

    assert seconds is not None
    assert 20 < seconds <= 30


def test_retry_after_is_read_from_the_header_and_from_the_status(settings: Settings, tmp_path: Path) -> None:
    waits = []
    for script in (
        answers("429 Too Many", headers="Retry-After: 3\r\n"),
        answers("500 Oops", body=a_status(details={"retryAfterSeconds": 4})),
    ):
        with pytest.raises(TransientError) as caught:
            create(settings, tmp_path, script=script)
        waits.append(caught.value.retry_after)

    assert waits == [3.0, 4.0]


@pytest.mark.parametrize(
    ("script", "serves"),
    [
        pytest.param(
            answers("200 OK", body=b'{"kind":"JobList","apiVersion":"batch/v1","items":[]}'), True, id="a-list"
        ),
        pytest.param(answers("403 Forbidden", body=a_status(reason="Forbidden")), True, id="may-not-list"),
        pytest.param(answers("403 Forbidden", body=b"<html>proxy</html>"), False, id="a-proxy-forbids"),
        pytest.param(answers("200 OK", body=b"<html>log in</html>"), False, id="a-page"),
        pytest.param(answers("302 Found", headers="Location: /login\r\n"), False, id="a-redirect"),
        pytest.param(answers("401 Unauthorized", body=a_status(reason="Unauthorized")), False, id="unauthorized"),
        pytest.param(answers("429 Too Many"), False, id="shedding-load"),
        pytest.param(answers("503 Service Unavailable", body=a_status()), False, id="unavailable"),
        pytest.param(answers("404 Not Found", body=b"404 page not found\n"), False, id="not-there"),
        pytest.param(hangs_up, False, id="hangs-up"),
    ],
)
def test_a_probe_tells_whether_the_api_server_serves(
    settings: Settings, tmp_path: Path, script: Script, serves: bool
) -> None:
    with odd_server(script) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")
        try:
            kube.probe()
            told = True
        except TransientError:
            told = False

    assert told == serves


def test_replaced_credentials_are_read_after_a_refusal(settings: Settings, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def wants_the_new_token(peer: socket.socket) -> None:
        request = peer.recv(65536)
        seen.append(request)
        status = b"200 OK" if b"Bearer new" in request else b"401 Unauthorized"
        body = a_status(kind="JobList")
        peer.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    with odd_server(wants_the_new_token) as port:
        server, path = f"http://127.0.0.1:{port}", tmp_path / "kubeconfig"
        settings.KUBECONFIG = write_kubeconfig(path, server=server, user={"token": "old"})
        with pytest.raises(ClusterUnavailable):
            kube.probe()
        write_kubeconfig(path, server=server, user={"token": "new"})
        kube.probe()

    assert [b"Bearer new" in request for request in seen] == [False, True]


def test_a_fork_does_not_share_its_parents_connection(settings: Settings, tmp_path: Path) -> None:
    connections = 0
    counting = threading.Lock()

    def keeps_open(peer: socket.socket) -> None:
        nonlocal connections
        with counting:
            connections += 1
        body = b'{"kind":"JobList","apiVersion":"batch/v1","items":[]}'
        while peer.recv(65536):
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with odd_server(keeps_open) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / "kubeconfig", server=f"http://127.0.0.1:{port}")
        kube.probe()
        kube.probe()
        child = os.fork()
        if child == 0:
            try:
                kube.probe()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        kube.probe()
        kube._way.cache_clear()

    assert connections == 2
