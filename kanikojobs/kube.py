"""The Kubernetes API, and the only importer of the kubernetes package.

Configuration, authentication and the pool of connections are the package's own. The calls post and read plain JSON:
its models cost several times the CPU per Job, and their rounding off hides what the server really said.
Answers become results or the errors of `kanikojobs.errors`.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import urllib3
from django.conf import settings
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from kanikojobs.errors import ClusterUnavailable, CreationError, PermanentError, TransientError

# HTTP statuses that say "not now": the same request may be taken later.
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class AlreadyExists(CreationError):
    """A Job of that name is there: perhaps ours, from a create whose answer was lost."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the API server; `body` is the JSON object in it, or what stands in for one."""

    status: int
    body: dict[str, Any]
    retry_after: float | None

    @property
    def reason(self) -> str:
        return str(self.body.get("reason") or f"HTTP{self.status}")

    @property
    def message(self) -> str:
        return str(self.body.get("message") or "")


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A Kubernetes Job as far as creation cares."""

    uid: UUID
    annotations: dict[str, str]
    labels: dict[str, str]
    terminating: bool


def create_job(manifest: dict[str, Any], *, namespace: str) -> JobSeen:
    """Create a Job. Raises `AlreadyExists`, `PermanentError`, `TransientError` or `ClusterUnavailable`."""
    answer = request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", body=manifest)
    if answer.status in (200, 201, 202):
        return _job(answer)
    raise _error(answer)


def get_job(name: str, *, namespace: str) -> JobSeen | None:
    """A Job by its name, or None if there is none. Raises as `create_job`."""
    answer = request("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    if answer.status == 404:
        return None
    if answer.status == 200:
        return _job(answer)
    raise _error(answer)


def probe() -> None:
    """One cheap authenticated call. Raises `ClusterUnavailable` if the API server would not serve anybody now."""
    answer = request("GET", f"/apis/batch/v1/namespaces/{settings.KANIKOJOBS_NAMESPACE}/jobs?limit=1")
    if answer.status in _TRY_AGAIN or answer.status == 401:
        raise ClusterUnavailable(
            reason=answer.reason,
            message=answer.message,
            http_status=answer.status,
            retry_after=answer.retry_after,
        )


def request(method: str, path: str, *, body: dict[str, Any] | None = None) -> Answer:
    """One call to the API server. Raises `TransientError` or `ClusterUnavailable` when there is no answer."""
    return _answer(_send(method, path, body=body))


def open_stream(path: str, *, quiet: float | None) -> urllib3.BaseHTTPResponse:
    """A GET whose body is read as it comes (a watch, a log). Close it, or `shutdown()` it from another thread.

    A body that stays silent for `quiet` seconds raises urllib3's ReadTimeoutError in the reader. Raises the errors
    of `kanikojobs.errors` for an answer other than success.
    """
    response = _send("GET", path, stream=True, quiet=quiet)
    if response.status == 200:
        return response
    response.read()
    raise _error(_answer(response))


def _send(
    method: str, path: str, *, body: dict[str, Any] | None = None, stream: bool = False, quiet: float | None = None
) -> urllib3.BaseHTTPResponse:
    api = _api(os.getpid(), settings.KUBECONFIG)
    headers = {"Accept": "application/json, */*" if stream else "application/json", "User-Agent": "kanikojobs"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if token := api.configuration.auth_settings().get("BearerToken"):
        # Asked for on each call: tokens in a cluster are replaced about every hour.
        headers["Authorization"] = token["value"]
    seconds = settings.KANIKOJOBS_KUBERNETES_TIMEOUT.total_seconds()
    try:
        return api.rest_client.pool_manager.request(
            method,
            api.configuration.host + path,
            body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=min(seconds, 3.0), read=quiet if stream else seconds),
            # Whether a call is made again is decided and recorded by the caller, nowhere else.
            retries=False,
            redirect=False,
            preload_content=not stream,
        )
    except urllib3.exceptions.ReadTimeoutError:
        raise TransientError(
            reason="Timeout",
            message=f"The API server did not answer within {seconds:g} s; it may have created the Job.",
        ) from None
    except urllib3.exceptions.SSLError as error:
        raise ClusterUnavailable(reason="TLSError", message=str(error)) from None
    except (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError) as error:
        raise ClusterUnavailable(reason="ConnectionFailed", message=str(error)) from None
    except urllib3.exceptions.HTTPError as error:
        raise TransientError(reason="ConnectionLost", message=str(error)) from None


def _answer(response: urllib3.BaseHTTPResponse) -> Answer:
    try:
        body = json.loads(response.data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        # A proxy on the way, or a server in trouble. Its words are kept as they are, up to a length.
        text = response.data[:2000].decode("utf-8", "replace")
        body = {
            "reason": "UnreadableAnswer",
            "message": f"HTTP {response.status} with no JSON object: {text!r}",
        }
    details = body.get("details")
    seconds = response.headers.get("Retry-After") or (
        details.get("retryAfterSeconds") if isinstance(details, dict) else None
    )
    try:
        retry_after = max(0.0, float(seconds)) if seconds is not None else None
    except (TypeError, ValueError):
        retry_after = None
    return Answer(response.status, body, retry_after)


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


def _error(answer: Answer) -> CreationError:
    """What an answer other than success means. The server's own reason, message and status are kept as they are."""
    reason, message, status = answer.reason, answer.message, answer.status
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(reason=reason, message=message, http_status=status)
    if status == 401:
        # Our credentials, not this event.
        return ClusterUnavailable(reason=reason, message=message, http_status=status)
    if status == 409 or status < 400 or status in _TRY_AGAIN or status >= 500:
        return TransientError(reason=reason, message=message, http_status=status, retry_after=answer.retry_after)
    if status == 403 and "exceeded quota" in message:
        reason = "QuotaExceeded"
    elif status == 404:
        reason = "NamespaceNotFound"
    return PermanentError(reason=reason, message=message, http_status=status)


@cache
def _api(pid: int, kubeconfig: str) -> client.ApiClient:
    """The client of this process: connections must not be shared with the process that forked it."""
    try:
        if kubeconfig:
            return config.new_client_from_config(config_file=kubeconfig)
        configuration = client.Configuration()
        config.load_incluster_config(client_configuration=configuration)
        return client.ApiClient(configuration)
    except (ConfigException, OSError) as error:
        raise ClusterUnavailable(
            reason="NotConfigured",
            message=f"No way to the Kubernetes API ({error}). Name a kubeconfig file in KUBECONFIG, or run in one.",
        ) from None
