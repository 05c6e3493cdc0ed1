"""The control API under `/simulator/`: scripts outcomes and faults, causes outages, tells what was seen."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from deploy.local.kubernetes_simulator.access import Access
from deploy.local.kubernetes_simulator.faults import Faults
from deploy.local.kubernetes_simulator.job_controller import JobController
from deploy.local.kubernetes_simulator.kubelet import Kubelet
from deploy.local.kubernetes_simulator.outcomes import OUTCOMES
from deploy.local.kubernetes_simulator.resources import JOBS, PODS
from deploy.local.kubernetes_simulator.scripts import BadRule, Scripts
from deploy.local.kubernetes_simulator.store import Record, Store
from deploy.local.kubernetes_simulator.tally import Tally
from deploy.local.kubernetes_simulator.watches import Watches

Json = dict[str, Any]

PREFIX = "/simulator/"


class Control:
    """One method per thing that can be asked for; a refusal is a 400 that says what to write instead."""

    def __init__(
        self,
        *,
        store: Store,
        watches: Watches,
        kubelet: Kubelet | None,
        controller: JobController | None,
        scripts: Scripts,
        faults: Faults,
        access: Access,
        tally: Tally,
        start_outage: Callable[[float], None],
        reset: Callable[[], None],
    ) -> None:
        self._store = store
        self._watches = watches
        self._kubelet = kubelet
        self._controller = controller
        self._scripts = scripts
        self._faults = faults
        self._access = access
        self._tally = tally
        self._start_outage = start_outage
        self._reset = reset
        self._routes: dict[tuple[str, str], Callable[[web.BaseRequest, Any], Json]] = {
            ("GET", "stats"): self._stats,
            ("GET", "requests"): lambda request, body: {"requests": list(self._tally.log)},
            ("GET", "faults"): lambda request, body: {"faults": [rule.describe() for rule in self._faults.rules]},
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "outcomes"): lambda request, body: {"outcomes": list(OUTCOMES), "default": self._scripts.default},
            ("POST", "outcomes"): self._set_outcomes,
            ("POST", "settings"): self._settings,
            ("POST", "access"): self._set_access,
            ("POST", "outage"): self._outage,
            ("POST", "break-watches"): self._break_watches,
            ("POST", "compact"): lambda request, body: {"resourceVersion": str(self._store.compact())},
            ("POST", "reset"): self._start_over,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else {}
            return web.json_response(self._act(request, body=body))
        except (BadRule, ValueError, TypeError, KeyError, AttributeError) as problem:
            return web.json_response({"error": f"{type(problem).__name__}: {problem}"}, status=400)
        except LookupError as problem:
            return web.json_response({"error": str(problem)}, status=404)

    def _act(self, request: web.BaseRequest, *, body: Any) -> Json:
        what = request.path.removeprefix(PREFIX).strip("/")
        route = self._routes.get((request.method, what))
        if route is not None:
            return route(request, body)
        kind, _, rest = what.partition("/")
        name, _, verb = rest.partition("/")
        if request.method == "POST" and kind in ("pods", "jobs") and verb in ("outcome", "log", "deadline"):
            return self._steer(kind, name=name, verb=verb, body=body)
        raise BadRule(f"{request.method} {request.path} is not offered")

    def _stats(self, request: web.BaseRequest, body: Any) -> Json:
        told = self._tally.summary(detail=request.query.get("detail") in ("1", "true"))
        objects = {resource.plural: len(self._store.table(resource)) for resource in (JOBS, PODS)}
        return {**told, "objects": objects, "watches": len(self._watches), "resourceVersion": self._store.version}

    def _add_faults(self, request: web.BaseRequest, body: Any) -> Json:
        self._faults.add(body if isinstance(body, list) else [body])
        return {"faults": len(self._faults.rules)}

    def _clear_faults(self, request: web.BaseRequest, body: Any) -> Json:
        self._faults.clear()
        return {"faults": 0}

    def _set_outcomes(self, request: web.BaseRequest, body: Any) -> Json:
        self._scripts.set_rules(body.get("rules", []))
        if "default" in body:
            self._scripts.set_default(body["default"])
        return {"default": self._scripts.default}

    def _settings(self, request: web.BaseRequest, body: Any) -> Json:
        if self._kubelet is not None:
            self._kubelet.pod_start_seconds = float(body.get("pod_start_seconds", self._kubelet.pod_start_seconds))
            self._kubelet.run_seconds = float(body.get("run_seconds", self._kubelet.run_seconds))
            self._kubelet.termination_seconds = float(
                body.get("termination_seconds", self._kubelet.termination_seconds)
            )
        return {}

    def _set_access(self, request: web.BaseRequest, body: Any) -> Json:
        self._access.deny(body.get("deny", []))
        return {}

    def _outage(self, request: web.BaseRequest, body: Any) -> Json:
        seconds = float(body.get("seconds", 1.0))
        self._start_outage(seconds)
        return {"seconds": seconds}

    def _break_watches(self, request: web.BaseRequest, body: Any) -> Json:
        return {"broken": self._watches.break_all(broken=not body.get("politely", False))}

    def _start_over(self, request: web.BaseRequest, body: Any) -> Json:
        self._reset()
        return {}

    def _pods(self, kind: str, *, name: str) -> list[Record]:
        found: list[Record] = []
        if kind == "pods":
            found = [pod for key, pod in self._store.table(PODS).items() if key[1] == name]
        else:
            for job in self._jobs(name):
                found += self._store.pods_of(job.uid)
        if not found:
            raise LookupError(f"there is no pod for {kind}/{name}")
        return found

    def _jobs(self, name: str) -> list[Record]:
        return [job for key, job in self._store.table(JOBS).items() if key[1] == name]

    def _steer(self, kind: str, *, name: str, verb: str, body: Any) -> Json:
        if self._kubelet is None or self._controller is None:
            raise BadRule("the simulator runs without controllers or kubelet")
        if verb == "deadline":
            for job in self._jobs(name):
                self._controller.pass_deadline(job)
            return {}
        pods = self._pods(kind, name=name)
        for pod in pods:
            if verb == "log":
                self._kubelet.write_log(pod, lines=list(body["lines"]))
            else:
                if body.get("outcome") not in OUTCOMES:
                    raise BadRule(f"outcome: write one of {', '.join(OUTCOMES)}")
                self._kubelet.decide(pod, outcome=OUTCOMES[body["outcome"]])
        return {"pods": [pod.key[1] for pod in pods]}


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
