"""Plain requests to a Kubernetes API server: JSON as it is sent and answered, with a kubeconfig's authentication.

The client library's models hide what a conformance suite is about: exact bodies, headers and streams. Its
configuration, TLS and connection pool are used, its models are not.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config

Json = dict[str, Any]
T = TypeVar("T")
Query = Mapping[str, str | int]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is decoded JSON where it was JSON, else `{}`."""

    status: int
    text: str
    body: Json
    warnings: tuple[str, ...]
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """The field and the kind of each cause of a refusal."""
        causes = self.body.get("details", {}).get("causes", [])
        return [(cause.get("field", ""), cause["reason"]) for cause in causes]

    @property
    def version(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])


class Stream:
    """An open watch."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines

    def next(self) -> Json:
        """The next event. Raises StopIteration where the server has ended the stream."""
        return dict(json.loads(next(self._lines)))

    def rest(self) -> list[Json]:
        """All events until the server ends the stream."""
        return [dict(json.loads(line)) for line in self._lines]


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    kept = b""
    for chunk in chunks:
        *whole, kept = (kept + chunk).split(b"\n")
        yield from filter(None, whole)


class RawKubernetes:
    """One API server, and the namespace that paths are relative to."""

    def __init__(self, *, kubeconfig: Path | None, namespace: str = "default") -> None:
        """Takes the current context of a kubeconfig; None means the environment's own (KUBECONFIG)."""
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig) if kubeconfig else None, client_configuration=settings)
        settings.retries = False
        self._client = client.ApiClient(settings)
        self.namespace = namespace

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        base = "/apis/batch/v1" if plural == "jobs" else "/api/v1"
        parts = [f"{base}/namespaces/{self.namespace}/{plural}", name, subresource]
        return "/".join(part for part in parts if part)

    def _request(self, method: str, path: str, *, query: Query, headers: Mapping[str, str], **options: Any) -> Any:
        _, url, sent, _, _ = self._client.param_serialize(
            method,
            path,
            query_params=[(name, str(value)) for name, value in query.items()],
            header_params=dict(headers),
            auth_settings=["BearerToken"],
        )
        return self._client.rest_client.pool_manager.request(method, url, headers=sent, **options)

    def call(
        self,
        method: str,
        path: str,
        body: Json | list[Any] | bytes | None = None,
        *,
        query: Query | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, whatever the answer."""
        sent = {"Accept": "application/json", **(headers or {})}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None and content_type:
            sent["Content-Type"] = content_type
        response = self._request(method, path, query=query or {}, headers=sent, body=raw, timeout=60)
        text = response.data.decode()
        try:
            decoded = json.loads(text)
        except ValueError:
            decoded = {}
        return Answer(
            status=response.status,
            text=text,
            body=decoded if isinstance(decoded, dict) else {},
            warnings=tuple(response.headers.getlist("Warning")),
            headers=dict(response.headers),
        )

    def create(self, obj: Json, plural: str = "jobs", *, query: Query | None = None) -> Answer:
        return self.call("POST", self.path(plural), obj, query=query)

    def get(self, name: str, plural: str = "jobs") -> Answer:
        return self.call("GET", self.path(plural, name))

    def names(self, plural: str = "jobs", **query: Any) -> list[str]:
        """The names in a list."""
        answer = self.call("GET", self.path(plural), query=query)
        assert answer.status == 200, answer.text
        return [item["metadata"]["name"] for item in answer.body["items"]]

    def delete(self, name: str, plural: str = "jobs", body: Json | None = None, **query: Any) -> Answer:
        return self.call("DELETE", self.path(plural, name), body, query=query)

    def patch(self, name: str, body: Any, *, plural: str = "jobs", kind: str = MERGE_PATCH, part: str = "") -> Answer:
        return self.call("PATCH", self.path(plural, name, part), body, content_type=kind)

    @contextmanager
    def watch(self, plural: str = "jobs", *, seconds: int = 10, **query: Any) -> Iterator[Stream]:
        """An open watch; `seconds` is its timeoutSeconds."""
        response = self._request(
            "GET",
            self.path(plural),
            query={"watch": "true", "timeoutSeconds": seconds, **query},
            headers={"Accept": "application/json"},
            preload_content=False,
            timeout=seconds + 30,
        )
        assert response.status == 200, response.data
        try:
            yield Stream(_lines(response.stream(65536)))
        finally:
            response.close()


def wait_for(look: Callable[[], T], *, seconds: float) -> T:
    """Looks again and again until there is something (truthy); gives what the last look gave."""
    until = time.monotonic() + seconds
    found = look()
    while not found and time.monotonic() < until:
        time.sleep(0.05)
        found = look()
    return found
