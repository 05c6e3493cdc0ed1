"""Puts the parts together, and opens and closes the listening socket (outages close it for a while)."""

import asyncio
import socket
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

from deploy.local.kubernetes_simulator import clock, identity
from deploy.local.kubernetes_simulator.access import Access
from deploy.local.kubernetes_simulator.control import PREFIX, Control
from deploy.local.kubernetes_simulator.faults import Faults
from deploy.local.kubernetes_simulator.garbage_collector import GarbageCollector
from deploy.local.kubernetes_simulator.job_controller import JobController
from deploy.local.kubernetes_simulator.kubelet import Kubelet
from deploy.local.kubernetes_simulator.recorder import Recorder
from deploy.local.kubernetes_simulator.resources import NAMESPACES, SERVICE_ACCOUNTS
from deploy.local.kubernetes_simulator.scripts import Scripts
from deploy.local.kubernetes_simulator.server import Handler
from deploy.local.kubernetes_simulator.store import Store
from deploy.local.kubernetes_simulator.tally import Tally
from deploy.local.kubernetes_simulator.watches import Watches

_BACKLOG = 1024
_KEEP_ALIVE_SECONDS = 3600.0
_READ_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """How the simulator behaves. All times are seconds."""

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int | None = None
    token: str = ""
    namespaces: tuple[str, ...] = ()
    outcome: str = "succeed"
    pod_start_seconds: float = 0.05
    run_seconds: float = 0.2
    termination_seconds: float = 0.05
    backoff_seconds: float = 0.1
    collect_seconds: float = 0.02
    bookmark_seconds: float = 5.0
    history: int = 20_000
    max_events: int = 20_000
    seed: int | None = None
    controllers: bool = True
    kubelet: bool = True


class Simulator:
    """One simulated API server with what acts on its objects."""

    def __init__(self, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        identity.seed(settings.seed)
        self._settings = settings
        self._loop = loop
        self._store = Store(history=settings.history, max_events=settings.max_events)
        self._tally = Tally()
        self._faults = Faults()
        self._access = Access(token=settings.token)
        self._scripts = Scripts(default=settings.outcome)
        self._store.listeners.append(self._tally.hear)
        self._watches = Watches(self._store)
        recorder = Recorder(self._store)
        self._kubelet: Kubelet | None = None
        self._controller: JobController | None = None
        if settings.kubelet:
            self._kubelet = Kubelet(
                store=self._store,
                recorder=recorder,
                loop=loop,
                pod_start_seconds=settings.pod_start_seconds,
                run_seconds=settings.run_seconds,
                termination_seconds=settings.termination_seconds,
            )
        if settings.controllers:
            GarbageCollector(store=self._store, loop=loop, delay_seconds=settings.collect_seconds)
            self._controller = JobController(
                store=self._store,
                recorder=recorder,
                kubelet=self._kubelet,
                scripts=self._scripts,
                loop=loop,
                backoff_seconds=settings.backoff_seconds,
            )
        self._handler = Handler(
            store=self._store,
            watches=self._watches,
            kubelet=self._kubelet,
            faults=self._faults,
            access=self._access,
            tally=self._tally,
            bookmark_seconds=settings.bookmark_seconds,
        )
        self._control = Control(
            store=self._store,
            watches=self._watches,
            kubelet=self._kubelet,
            controller=self._controller,
            scripts=self._scripts,
            faults=self._faults,
            access=self._access,
            tally=self._tally,
            start_outage=self._start_outage,
            reset=self._reset,
        )
        self._server = web.Server(
            self._handle, request_factory=self._request, access_log=None, keepalive_timeout=_KEEP_ALIVE_SECONDS
        )
        self._socket: socket.socket | None = None
        self._port = settings.port
        self._listener: asyncio.Server | None = None
        self._control_server = web.Server(self._control.handle, access_log=None, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        self._control_listener: asyncio.Server | None = None
        self._end_of_outage: asyncio.TimerHandle | None = None
        self._make_namespaces()

    @property
    def url(self) -> str:
        return f"http://{self._settings.host}:{self._port}"

    @property
    def control_url(self) -> str:
        """Where the control API stays reachable during an outage; the same as `url` where no port was asked for."""
        if self._control_listener is None:
            return self.url
        return f"http://{self._settings.host}:{self._control_listener.sockets[0].getsockname()[1]}"

    @property
    def namespace(self) -> str:
        return self._settings.namespaces[0] if self._settings.namespaces else "default"

    def _make_namespaces(self) -> None:
        for name in dict.fromkeys(("default", "kube-system", *self._settings.namespaces)):
            base = {"uid": identity.new_uid(), "creationTimestamp": clock.now()}
            labels = {"kubernetes.io/metadata.name": name}
            namespace = {
                "metadata": {"name": name, "labels": labels, **base},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            }
            self._store.add(NAMESPACES, obj=namespace)
            account = {
                "name": "default",
                "namespace": name,
                "uid": identity.new_uid(),
                "creationTimestamp": clock.now(),
            }
            self._store.add(SERVICE_ACCOUNTS, obj={"metadata": account})

    def _request(self, message: RawRequestMessage, payload, protocol, writer, task) -> web.BaseRequest:  # type: ignore[no-untyped-def]
        # BaseRequest refuses bodies over 1 MiB; the API server's own limit is 3 MiB and its own answer.
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=_READ_LIMIT)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            return await self._control.handle(request)
        return await self._handler.handle(request)

    async def start(self) -> None:
        self._socket = self._bind(self._settings.port)
        self._port = int(self._socket.getsockname()[1])
        await self._listen()
        if self._settings.control_port is not None:
            self._control_listener = await self._loop.create_server(
                self._control_server, self._settings.host, self._settings.control_port
            )

    def _bind(self, port: int) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self._settings.host, port))
        bound.setblocking(False)
        return bound

    async def _listen(self) -> None:
        if self._socket is not None:
            self._listener = await self._loop.create_server(self._server, sock=self._socket, backlog=_BACKLOG)

    def _start_outage(self, seconds: float) -> None:
        """Connections are refused and cut for a while. The port stays bound, so that nobody else gets it."""
        if self._end_of_outage is not None:
            self._end_of_outage.cancel()
        self._end_of_outage = self._loop.call_later(seconds, self._end_outage)
        # After this request's own answer has been written.
        self._loop.call_later(0.01, self._close_listener)

    def _close_listener(self) -> None:
        if self._listener is None or self._socket is None:
            return
        self._listener.close()
        self._listener = None
        self._cut_connections()
        self._socket = self._bind(self._port)

    def _end_outage(self) -> None:
        self._end_of_outage = None
        if self._listener is None:
            self._opening = self._loop.create_task(self._listen())

    def _cut_connections(self) -> None:
        self._watches.break_all()
        for connection in list(self._server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def _reset(self) -> None:
        """Everything as after the start; resource versions go on rising, so that old watches are told 410."""
        self._watches.break_all()
        if self._controller is not None:
            self._controller.clear()
        if self._kubelet is not None:
            self._kubelet.clear()
            self._kubelet.pod_start_seconds = self._settings.pod_start_seconds
            self._kubelet.run_seconds = self._settings.run_seconds
            self._kubelet.termination_seconds = self._settings.termination_seconds
        self._store.clear()
        self._faults.clear()
        self._access.deny([])
        self._scripts.set_rules([])
        self._scripts.set_default(self._settings.outcome)
        self._make_namespaces()
        self._tally.clear()

    def stop(self) -> None:
        """Stops at once: nothing is drained."""
        if self._end_of_outage is not None:
            self._end_of_outage.cancel()
        for listener in (self._listener, self._control_listener):
            if listener is not None:
                listener.close()
        self._cut_connections()
