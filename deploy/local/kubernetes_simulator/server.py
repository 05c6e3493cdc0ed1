"""The HTTP side: from a request to a verb of `api.py` and back, watches and logs as streams, faults in between."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from deploy.local.kubernetes_simulator.access import Access
from deploy.local.kubernetes_simulator.answers import (
    ApiError,
    bad_request,
    method_not_allowed,
    no_such_path,
    no_such_resource,
    not_acceptable,
)
from deploy.local.kubernetes_simulator.api import Api, Page
from deploy.local.kubernetes_simulator.discovery import discover
from deploy.local.kubernetes_simulator.faults import Faults, Rule, refusal
from deploy.local.kubernetes_simulator.kubelet import Kubelet
from deploy.local.kubernetes_simulator.logs import LogRequest, stream_log
from deploy.local.kubernetes_simulator.requests import (
    number_of,
    read_body,
    selection_of,
    verb_of,
    version_of,
    wants_metadata_alone,
)
from deploy.local.kubernetes_simulator.resources import GROUP_VERSIONS, NAMESPACES, PODS, Target, find_target
from deploy.local.kubernetes_simulator.store import Record, Store, to_json
from deploy.local.kubernetes_simulator.tally import Tally
from deploy.local.kubernetes_simulator.watches import Watch, Watches, bookmark

Json = dict[str, Any]

_JSON = "application/json"
_WITH_BODY = ("create", "update", "patch", "delete", "deletecollection")
_HEALTH = ("/readyz", "/livez", "/healthz")
_DEFAULT_WATCH_SECONDS = 1800.0
_BOOKMARK_LEAD_SECONDS = 2.0
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Dropped(Exception):
    """The connection is to be cut without an answer."""


class Handler:
    """Answers every request to the Kubernetes paths."""

    def __init__(
        self,
        *,
        store: Store,
        watches: Watches,
        kubelet: Kubelet | None,
        faults: Faults,
        access: Access,
        tally: Tally,
        bookmark_seconds: float,
    ) -> None:
        self._store = store
        self._api = Api(store)
        self._watches = watches
        self._kubelet = kubelet
        self._faults = faults
        self._access = access
        self._tally = tally
        self._bookmark_seconds = bookmark_seconds

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request, counted and logged."""
        began = time.monotonic()
        verb = request.method.lower()
        status = 0
        try:
            target = find_target(request.path)
            if target is not None:
                verb = verb_of(request, target=target)
            response = await self._answer(request, target=target, verb=verb)
            status = response.status
        except ApiError as error:
            status = error.code
            response = _refusal(error)
        except Dropped:
            if request.transport is not None:
                request.transport.abort()
            response = web.Response()
        finally:
            self._tally.count_request(
                verb=verb,
                path=request.path_qs,
                status=status,
                agent=request.headers.get("User-Agent", ""),
                seconds=time.monotonic() - began,
            )
        return response

    async def _answer(self, request: web.BaseRequest, *, target: Target | None, verb: str) -> web.StreamResponse:
        path = request.path
        if path in _HEALTH or (path.startswith(_HEALTH) and path.count("/") == 2):
            self._access.check_path(path)
            self._meet_fault(request, verb=verb, metadata={})
            return web.Response(text="ok")
        user = self._access.user_of(request)
        if target is None:
            return await self._answer_other(request, user=user)
        show = Record.full
        if target.subresource != "log" and wants_metadata_alone(request.headers.get("Accept", "*/*")):
            if verb in ("list", "watch", "deletecollection"):
                # A real server gives those, too; here only single objects are shown so.
                raise not_acceptable()
            show = Record.metadata_alone
        self._access.check(target, verb=verb, user=user)
        if verb == "watch":
            return await self._watch(request, target=target)
        body = await read_body(request, verb=verb) if verb in _WITH_BODY else None
        fault = None
        if self._faults.rules:
            metadata = self._metadata(target, verb=verb, obj=body.obj if body else {})
            fault = self._meet_fault(request, verb=verb, metadata=metadata, target=target, user=user)
            if fault is not None and not fault.after:
                early = await self._suffer(request, rule=fault)
                if early is not None:
                    return early
        if target.subresource == "log":
            return await self._log(request, target=target)
        response = self._perform(request, target=target, verb=verb, body=body, show=show)
        if fault is not None and fault.after:
            if fault.do == "timeout-after":
                await _wait(request, seconds=fault.seconds)
            raise Dropped
        return response

    def _metadata(self, target: Target, *, verb: str, obj: Any) -> Json:
        """What fault rules match against: the metadata in the body, or of the object that the path names."""
        if verb == "create" and isinstance(obj, dict):
            found = obj.get("metadata")
            return found if isinstance(found, dict) else {}
        record = self._store.find(target.resource, namespace=target.namespace, name=target.name)
        return record.metadata if record else {"name": target.name}

    def _meet_fault(
        self, request: web.BaseRequest, *, verb: str, metadata: Json, target: Target | None = None, user: str = ""
    ) -> Rule | None:
        rule = self._faults.hit(verb=verb, path=request.path, metadata=metadata) if self._faults.rules else None
        if rule is None:
            return None
        if rule.do == "drop":
            raise Dropped
        if rule.do in ("status", "forbidden", "quota", "webhook"):
            raise refusal(
                rule,
                resource=target.resource if target else None,
                name=metadata.get("name", ""),
                namespace=target.namespace if target else "",
                verb=verb,
                user=user,
            )
        return rule

    async def _suffer(self, request: web.BaseRequest, *, rule: Rule) -> web.StreamResponse | None:
        match rule.do:
            case "latency":
                await asyncio.sleep(rule.seconds)
            case "timeout-before":
                await _wait(request, seconds=rule.seconds)
                raise Dropped
            case "garbage":
                text = rule.message or "<html><body>502 Bad Gateway</body></html>"
                return web.Response(status=rule.status or 200, text=text, content_type="text/html")
        return None

    async def _answer_other(self, request: web.BaseRequest, *, user: str) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path == _REVIEW:
            if request.method != "POST":
                raise method_not_allowed()
            body = await read_body(request, verb="create")
            return _json(201, to_json(self._access.review(body.obj, user=user)))
        found = discover(path)
        if found is not None:
            return _json(200, found)
        if any(path.startswith(f"{prefix}/") for prefix in GROUP_VERSIONS):
            raise no_such_resource()
        raise no_such_path()

    def _perform(
        self, request: web.BaseRequest, *, target: Target, verb: str, body: Any, show: Callable[[Record], bytes]
    ) -> web.StreamResponse:
        if target.subresource and not _offers(target):
            raise no_such_resource()
        match verb:
            case "get":
                return _json(200, show(self._api.read(target)))
            case "list":
                page = Page(limit=number_of(request, "limit") or 0, token=request.query.get("continue", ""))
                selection = selection_of(request, target=target)
                return _json(200, self._api.list_page(target, selection=selection, page=page))
            case "create":
                if target.resource.namespaced and not target.namespace:
                    raise method_not_allowed()
                return _json(201, show(self._api.create(target, body=body)), warnings=body.warnings)
            case "update" if target.subresource == "finalize":
                return _json(200, show(self._api.finalize(target, body=body)))
            case "update":
                return _json(200, show(self._api.update(target, body=body)), warnings=body.warnings)
            case "patch":
                return _json(200, show(self._api.patch(target, body=body)), warnings=body.warnings)
            case "delete":
                return self._delete(request, target=target, body=body, show=show)
            case _:
                selection = selection_of(request, target=target)
                options = _options(request, body=body)
                return _json(200, self._api.delete_all(target, selection=selection, options=options))

    def _delete(
        self, request: web.BaseRequest, *, target: Target, body: Any, show: Callable[[Record], bytes]
    ) -> web.StreamResponse:
        warnings: list[str] = []
        record, gone = self._api.delete(target, options=_options(request, body=body), warnings=warnings)
        if not gone or target.resource is PODS:
            return _json(200, show(record), warnings=warnings)
        return _json(200, to_json(_deleted(record)), warnings=warnings)

    async def _watch(self, request: web.BaseRequest, *, target: Target) -> web.StreamResponse:
        selection = selection_of(request, target=target)
        version = version_of(request, target=target)
        seconds = number_of(request, "timeoutSeconds")
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "1")
        initial = request.query.get("sendInitialEvents") in ("true", "1")
        if self._faults.rules:
            rule = self._meet_fault(request, verb="watch", metadata={}, target=target)
            if rule is not None:
                early = await self._suffer(request, rule=rule)
                if early is not None:
                    return early
        response = web.StreamResponse(headers={"Content-Type": _JSON, "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        watch = self._watches.open(resource=target.resource, selection=selection, version=version, send_initial=initial)
        try:
            await response.prepare(request)
            await self._stream(response, watch=watch, seconds=seconds, bookmarks=bookmarks)
        finally:
            self._watches.close(watch)
        if watch.broken:
            raise Dropped
        await response.write_eof()
        return response

    async def _stream(
        self, response: web.StreamResponse, *, watch: Watch, seconds: int | None, bookmarks: bool
    ) -> None:
        """Sends what comes, and bookmarks; none while nothing has happened since the watch began."""
        loop = asyncio.get_running_loop()
        began_at = self._store.version
        deadline = loop.time() + (seconds or _DEFAULT_WATCH_SECONDS)
        told = self._next_bookmark(loop.time(), deadline=deadline)
        while True:
            if watch.waiting:
                await response.write(watch.take())
            if watch.ended:
                return
            now = loop.time()
            if now >= deadline:
                return
            if bookmarks and now >= told:
                if self._store.version > began_at:
                    await response.write(bookmark(watch.resource, version=self._store.version))
                told = self._next_bookmark(now, deadline=deadline)
            until = min(deadline, told) if bookmarks else deadline
            watch.wake.clear()
            if watch.waiting or watch.ended:
                continue
            try:
                async with asyncio.timeout_at(until):
                    await watch.wake.wait()
            except TimeoutError:
                continue

    def _next_bookmark(self, now: float, *, deadline: float) -> float:
        """Regularly, and two seconds before the end (storage/cacher: bookmarkTimeout)."""
        regular = now + self._bookmark_seconds
        before_end = deadline - _BOOKMARK_LEAD_SECONDS
        return min(regular, before_end) if before_end > now else regular

    async def _log(self, request: web.BaseRequest, *, target: Target) -> web.StreamResponse:
        if target.resource is not PODS:
            raise no_such_resource()
        wanted = LogRequest.read(request)
        pod = self._api.read(target)
        return await stream_log(request, wanted=wanted, pod=pod, kubelet=self._kubelet, store=self._store)


def _offers(target: Target) -> bool:
    return (target.subresource == "status" and target.resource.has_status) or (
        target.subresource == "finalize" and target.resource is NAMESPACES
    )


def _options(request: web.BaseRequest, *, body: Any) -> Json:
    """DeleteOptions: from the body where there is one, else from the query (endpoints/handlers/delete.go)."""
    if body is not None and body.raw:
        if not isinstance(body.obj, dict):
            raise bad_request("couldn't get version/kind; json parse error")
        return dict(body.obj)
    query = request.query
    options: Json = {
        name: query[name] for name in ("propagationPolicy", "gracePeriodSeconds", "dryRun") if name in query
    }
    if "orphanDependents" in query:
        options["orphanDependents"] = query["orphanDependents"] == "true"
    return options


def _deleted(record: Record) -> Json:
    resource = record.resource
    details = {"name": record.metadata["name"], "group": resource.group, "kind": resource.plural, "uid": record.uid}
    if not resource.group:
        del details["group"]
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _json(status: int, body: bytes, *, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(
        status=status, body=body, headers={"Content-Type": _JSON, "Cache-Control": "no-cache, private"}
    )
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def _refusal(error: ApiError) -> web.Response:
    if error.plain:
        response = web.Response(status=error.code, text=error.message, headers=error.headers)
    else:
        response = _json(error.code, to_json(error.status()))
        response.headers.update(error.headers)
    if error.code == 413:
        response.force_close()
    return response


async def _wait(request: web.BaseRequest, *, seconds: float) -> None:
    """Waits until the client gives up, or for this long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.05)
