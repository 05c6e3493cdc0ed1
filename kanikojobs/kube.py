"""The Kubernetes API, and the only importer of the kubernetes package.

Configuration, authentication and the pool of connections are the package's own. The calls post and read plain JSON:
its models cost several times the CPU per Job, and their rounding off hides what the server really said.
What an answer means is said in `kanikojobs.kube_answers`.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import urllib3
import yaml
from django.conf import settings

from kanikojobs.errors import ClusterUnavailable, TransientError
from kanikojobs.kube_answers import Answer, error_of, is_not_authorized, read_answer, text_of

if TYPE_CHECKING:
    from kubernetes import client

# Before anything was sent.
_NOT_REACHED = (
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.SSLError,
)

_JSON = "application/json"
# Of a Job that it creates or meets, creation wants to know whose it is. Without spec and status, which it has sent
# itself, the answer is a tenth (API concepts, "Alternate representations of resources"; else the whole object comes).
_METADATA = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"

PROBE_SECONDS = 3.0
# An answer that is larger is none of Kubernetes': etcd holds 1.5 MiB per object, and lists are read in pages.
_MOST_BYTES = 64 * 1024 * 1024

# What is sent: an object, or its JSON (`to_json`).
Body = dict[str, Any] | bytes


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A Kubernetes Job as far as creation cares."""

    uid: UUID
    annotations: dict[str, str]
    labels: dict[str, str]
    terminating: bool


def to_json(obj: Mapping[str, Any]) -> bytes:
    """An object as it is sent."""
    return msgspec.json.encode(obj)


def create_job(manifest: Body, *, namespace: str) -> JobSeen:
    """Create a Job. Raises `AlreadyExists`, `PermanentError`, `TransientError` or `ClusterUnavailable`."""
    return _job(_post_job(manifest, namespace=namespace))


def would_create_job(manifest: Body, *, namespace: str) -> None:
    """Have the API server check a Job and make none (`dryRun=All`); a field that it does not know is refused, too.

    Raises as `create_job`.
    """
    _post_job(manifest, namespace=namespace, query="?dryRun=All&fieldValidation=Strict")


def _post_job(manifest: Body, *, namespace: str, query: str = "") -> Answer:
    answer = request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs{query}", body=manifest, accept=_METADATA)
    if answer.status in (200, 201, 202):
        return answer
    raise error_of(answer)


def get_job(name: str, *, namespace: str) -> JobSeen | None:
    """A Job by its name, or None if there is none. Raises as `create_job`."""
    answer = request("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", accept=_METADATA)
    if answer.status == 404:
        return None
    if answer.status == 200:
        return _job(answer)
    raise error_of(answer)


def may(*, resource: str, verb: str, namespace: str) -> bool:
    """Whether this account may do that: asked by a SelfSubjectAccessReview. Raises as `create_job`."""
    name, _, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "group": "batch" if name == "jobs" else "",
        "resource": name,
        "subresource": subresource,
        "verb": verb,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    if answer.status not in (200, 201):
        raise error_of(answer)
    status = answer.body.get("status")
    return isinstance(status, dict) and status.get("allowed") is True


def probe() -> None:
    """One cheap authenticated call. Raises `TransientError` if the API server would not serve anybody now."""
    path = f"/apis/batch/v1/namespaces/{settings.KANIKOJOBS_NAMESPACE}/jobs?limit=1"
    answer = request("GET", path, seconds=PROBE_SECONDS)
    # 403 is the API server's own word as well: it is there, and listing may not be allowed where creating is.
    if answer.is_of_kubernetes and answer.status in (200, 403):
        return
    raise ClusterUnavailable(
        reason=answer.reason, message=answer.message, http_status=answer.status, retry_after=answer.retry_after
    )


def require_ready() -> None:
    """Raises `TransientError` if the API server says that it is starting or ending.

    One that has just started forbids everything until it has read its RBAC rules, and this question, too.
    """
    answer = request("GET", "/readyz", seconds=PROBE_SECONDS)
    if answer.status == 429 or answer.status >= 500 or is_not_authorized(status=answer.status, message=answer.message):
        raise ClusterUnavailable(
            reason="NotReady",
            message=f"The API server is not ready: {answer.message}",
            http_status=answer.status,
            retry_after=answer.retry_after,
        )


def request(
    method: str,
    path: str,
    *,
    body: Body | None = None,
    accept: str = _JSON,
    seconds: float | None = None,
) -> Answer:
    """One call to the API server, with so many seconds for the answer (KANIKOJOBS_KUBERNETES_TIMEOUT if not said).

    A token that has just expired is replaced by the one that is there now, if there is another: what was answered with
    401 was not done. Raises `TransientError` or `ClusterUnavailable` when there is no answer.
    """
    answer, token = _call(method, path, body=body, accept=accept, seconds=seconds)
    if answer.status == 401 and token is not None:
        if _authorization(_client()) != token:
            return _call(method, path, body=body, accept=accept, seconds=seconds)[0]
        _way.cache_clear()
    return answer


def _call(
    method: str, path: str, *, body: Body | None, accept: str, seconds: float | None
) -> tuple[Answer, str | None]:
    """The answer to one call, and the token that it was made with."""
    seconds = seconds or settings.KANIKOJOBS_KUBERNETES_TIMEOUT.total_seconds()
    until = time.monotonic() + seconds
    token = _authorization(_client())
    with _errors_of_the_way(seconds):
        response = _send(method, path, token=token, body=body, accept=accept, connect=min(seconds, 3.0), read=seconds)
        data = _read(response, until=until)
    return _answer(response, data), token


def open_stream(path: str, *, quiet: float | None) -> urllib3.BaseHTTPResponse:
    """A GET whose body is read as it comes (a watch, a log). Close it, or `shutdown()` it from another thread.

    A body that stays silent for `quiet` seconds raises urllib3's ReadTimeoutError in the reader. Raises the errors
    of `kanikojobs.errors` for an answer other than success.
    """
    seconds = settings.KANIKOJOBS_KUBERNETES_TIMEOUT.total_seconds()
    with _errors_of_the_way(seconds):
        response = _send(
            "GET",
            path,
            token=_authorization(_client()),
            accept=f"{_JSON}, */*",
            connect=min(seconds, 3.0),
            read=quiet,
        )
        if response.status == 200:
            return response
        data = _read(response, until=time.monotonic() + seconds)
    raise error_of(_answer(response, data))


def _send(
    method: str,
    path: str,
    *,
    token: str | None,
    accept: str,
    connect: float,
    read: float | None,
    body: Body | None = None,
) -> urllib3.BaseHTTPResponse:
    """Send a request and read the head of the answer."""
    headers = {"Accept": accept, "User-Agent": "kanikojobs"}
    if body is not None:
        headers["Content-Type"] = _JSON
    if token:
        headers["Authorization"] = token
    return _way(os.getpid(), settings.KUBECONFIG).send(
        method,
        path,
        body=to_json(body) if isinstance(body, dict) else body,
        headers=headers,
        timeout=urllib3.Timeout(connect=connect, read=read),
        # Whether a call is made again is decided and recorded by the caller, nowhere else.
        retries=False,
        redirect=False,
        preload_content=False,
    )


def _read(response: urllib3.BaseHTTPResponse, *, until: float) -> bytes:
    """The whole body, if it comes in time: a peer that sends one byte now and then would hold a worker for hours."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > until or size > _MOST_BYTES:
            response.close()
            raise urllib3.exceptions.ReadTimeoutError(None, None, "the answer came too slowly")  # type: ignore[arg-type]
        if response.length_remaining == 0:
            break
    return b"".join(parts)


@contextmanager
def _errors_of_the_way(seconds: float) -> Iterator[None]:
    """What can go wrong between here and the API server, as the errors of the domain."""
    try:
        yield
    except _NOT_REACHED as error:
        # Certificates, or the address, may have been replaced: the next call reads the configuration anew.
        _way.cache_clear()
        reason = {"SSLError": "TLSError", "ProxyError": "ProxyError"}.get(type(error).__name__, "ConnectionFailed")
        raise ClusterUnavailable(reason=reason, message=text_of(error)) from None
    except urllib3.exceptions.ReadTimeoutError:
        raise TransientError(
            reason="Timeout",
            message=f"The API server did not answer within {seconds:g} s; it may have done what it was asked.",
        ) from None
    except urllib3.exceptions.HTTPError as error:
        raise TransientError(reason="ConnectionLost", message=text_of(error)) from None


def _answer(response: urllib3.BaseHTTPResponse, data: bytes) -> Answer:
    if response.status == 401:
        # Credentials may have been replaced: the next call reads them anew.
        _way.cache_clear()
    return read_answer(response.status, headers=response.headers, data=data)


def _job(answer: Answer) -> JobSeen:
    metadata = answer.body.get("metadata")
    try:
        return JobSeen(
            uid=UUID(metadata["uid"]),  # type: ignore[index]
            annotations=dict(metadata.get("annotations") or {}),  # type: ignore[union-attr]
            labels=dict(metadata.get("labels") or {}),  # type: ignore[union-attr]
            terminating=bool(metadata.get("deletionTimestamp")),  # type: ignore[union-attr]
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        # Something said "created" in words that cannot be read. The next try finds out whether it was.
        raise TransientError(
            reason="UnreadableAnswer",
            message=answer.message or "The answer has no uid.",
            http_status=answer.status,
        ) from None


def _client() -> "client.ApiClient":
    return _way(os.getpid(), settings.KUBECONFIG).client


def import_client() -> None:
    """Import the package that the first call would import: for a process that will be forked, once for all of them."""
    importlib.import_module("kubernetes")


@dataclass(frozen=True, slots=True)
class _Way:
    """The way to the API server: the client, and what sends a request for a path over one of its connections."""

    client: "client.ApiClient"
    send: Callable[..., urllib3.BaseHTTPResponse]


@cache
def _way(pid: int, kubeconfig: str) -> _Way:
    """The way of this process: connections must not be shared with the process that forked it."""
    # Here, because it takes a second and 24 MB, and most processes never speak with Kubernetes.
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    configuration = client.Configuration()
    # A balancer that has silently forgotten a connection is found out while it is idle, and not by the next create.
    configuration.keep_alive = True
    try:
        if kubeconfig:
            config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        api = client.ApiClient(configuration)
        return _Way(api, _sender(api.rest_client.pool_manager, server=configuration.host))
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ClusterUnavailable(
            reason="NotConfigured",
            message=f"No way to the Kubernetes API ({text_of(error)}). "
            "Name a kubeconfig file in KUBECONFIG, or run in a cluster.",
        ) from None


def _sender(manager: urllib3.PoolManager, *, server: str) -> Callable[..., urllib3.BaseHTTPResponse]:
    """What sends `(method, path)` to the server. The pool is looked up once, which saves a tenth of each call."""
    if isinstance(manager, urllib3.ProxyManager):
        # It rewrites requests for its proxy.
        return lambda method, path, **options: manager.urlopen(method, server + path, **options)
    pool, prefix = manager.connection_from_url(server), urlsplit(server).path.rstrip("/")
    return lambda method, path, **options: pool.urlopen(method, prefix + path, **options)


def _authorization(api: "client.ApiClient") -> str | None:
    """The header's value. Asked for on each call: tokens in a cluster are replaced about every hour."""
    try:
        token = api.configuration.auth_settings().get("BearerToken")
    except Exception as error:
        # Files that vanished, or a credential plugin of the kubeconfig: anything can be raised here.
        _way.cache_clear()
        raise ClusterUnavailable(reason="NoCredentials", message=text_of(error)) from error
    return token["value"] if token else None
