"""`pods/log`: what the API server checks itself, and what it hands on from the kubelet."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from deploy.local.kubernetes_simulator import clock
from deploy.local.kubernetes_simulator.answers import bad_request
from deploy.local.kubernetes_simulator.kubelet import Kubelet
from deploy.local.kubernetes_simulator.pod_status import is_over
from deploy.local.kubernetes_simulator.requests import is_true, number_of
from deploy.local.kubernetes_simulator.resources import PODS
from deploy.local.kubernetes_simulator.store import Record, Store

Json = dict[str, Any]

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class LogRequest:
    """The parameters of PodLogOptions."""

    container: str
    follow: bool
    previous: bool
    timestamps: bool
    tail_lines: int | None
    limit_bytes: int | None
    since_seconds: int | None

    @classmethod
    def read(cls, request: web.BaseRequest) -> "LogRequest":
        """Raises 400 or 422."""
        query = request.query
        wanted = cls(
            container=query.get("container", ""),
            follow=is_true(query.get("follow")),
            previous=is_true(query.get("previous")),
            timestamps=is_true(query.get("timestamps")),
            tail_lines=number_of(request, "tailLines"),
            limit_bytes=number_of(request, "limitBytes"),
            since_seconds=number_of(request, "sinceSeconds"),
        )
        if wanted.tail_lines is not None and wanted.tail_lines < 0:
            raise bad_request(
                'PodLogOptions "" is invalid: tailLines: Invalid value: must be greater than or equal to 0'
            )
        return wanted

    def select(self, lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
        if self.since_seconds is not None:
            since = time.time() - self.since_seconds
            lines = [line for line in lines if line[0] >= since]
        if self.tail_lines is not None:
            lines = lines[-self.tail_lines :] if self.tail_lines else []
        return lines

    def render(self, lines: list[tuple[float, str]]) -> bytes:
        if self.timestamps:
            return "".join(f"{clock.nano_stamp(moment)} {text}\n" for moment, text in lines).encode()
        return "".join(f"{text}\n" for _, text in lines).encode()


def _container(pod: Record, *, wanted: LogRequest) -> Json:
    """The container meant. Raises 400 where none is named and there are several, or it is unknown."""
    name = pod.metadata["name"]
    containers, first = pod.obj["spec"]["containers"], pod.obj["spec"].get("initContainers", [])
    if not wanted.container:
        if len(containers) == 1:
            return dict(containers[0])
        names = " ".join(found["name"] for found in containers)
        message = f"a container name must be specified for pod {name}, choose one of: [{names}]"
        if first:
            message += f" or one of the init containers: [{' '.join(found['name'] for found in first)}]"
        raise bad_request(message)
    for found in [*containers, *first]:
        if found["name"] == wanted.container:
            return dict(found)
    raise bad_request(f"container {wanted.container} is not valid for pod {name}")


def _check_started(pod: Record, *, container: str, previous: bool) -> None:
    """The kubelet's refusals. Raises 400."""
    name = pod.metadata["name"]
    if previous:
        raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
    status = pod.obj.get("status", {})
    for found in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        reason = found["state"].get("waiting", {}).get("reason")
        if found["name"] == container and reason:
            what = "is waiting to start"
            told = "trying and failing to pull image" if reason in ("ImagePullBackOff", "ErrImagePull") else reason
            raise bad_request(f'container "{container}" in pod "{name}" {what}: {told}')


async def stream_log(
    request: web.BaseRequest, *, wanted: LogRequest, pod: Record, kubelet: Kubelet | None, store: Store
) -> web.StreamResponse:
    """A container's log, at once or as it grows. A pod on no node has none: 204, as the location streamer answers."""
    container = _container(pod, wanted=wanted)
    if not pod.obj["spec"].get("nodeName") or kubelet is None:
        return web.Response(status=204)
    _check_started(pod, container=container["name"], previous=wanted.previous)
    spec_container = next(
        found
        for found in [*pod.obj["spec"]["containers"], *pod.obj["spec"].get("initContainers", [])]
        if found["name"] == container["name"]
    )
    lines = kubelet.log(pod, container=spec_container)
    sent = len(lines)
    text = wanted.render(wanted.select(lines))
    if wanted.limit_bytes is not None:
        text = text[: wanted.limit_bytes]
    if not wanted.follow:
        return web.Response(body=text, content_type="text/plain")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    left = wanted.limit_bytes
    while True:
        if text:
            await response.write(text)
        if left is not None:
            left -= len(text)
            if left <= 0:
                break
        now = store.find(PODS, namespace=pod.key[0], name=pod.key[1])
        over = now is None or now.uid != pod.uid or is_over(now.obj)
        lines = kubelet.log(now or pod, container=spec_container)
        text = wanted.render(lines[sent:])[:left]
        sent = max(sent, len(lines))
        if over and not text:
            break
        if not text:
            await asyncio.sleep(_POLL_SECONDS)
    await response.write_eof()
    return response
