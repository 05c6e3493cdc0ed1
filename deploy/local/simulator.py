"""The simulated Kubernetes API server as a process, and its controls for the tests and the demo."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deploy.local.processes import Child, free_port

CHECKOUT = Path(__file__).resolve().parents[2]
NAMESPACE = "kaniko-builds"
_START_SECONDS = 30.0

Json = dict[str, Any]


class SimulatorError(Exception):
    """The simulator refused a control call. The text is its own and says what to write instead."""


class Simulator:
    """`python -m deploy.local.kubernetes_simulator`, whose docstring says what the controls take.

    Its objects live in memory: a stop forgets them.
    """

    def __init__(self, *, folder: Path) -> None:
        """Nothing is started or written yet, but `url` and `kubeconfig` are settled."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "kubeconfig"
        # The controls have a port of their own, which stays open during a scripted outage.
        control_port = free_port()
        self._controls = f"http://127.0.0.1:{control_port}/simulator"
        self._child = Child(
            name="simulator",
            command=[
                *[sys.executable, "-m", "deploy.local.kubernetes_simulator", "--namespace", NAMESPACE],
                *["--port", str(self.port), "--control-port", str(control_port)],
                *["--kubeconfig", str(self.kubeconfig)],
            ],
            log=folder / "logs" / "simulator.log",
            cwd=CHECKOUT,
            grace=3.0,
        )

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self) -> str:
        """Starts the server and waits until it listens. Returns its URL."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Starts the server and does not wait for it."""
        if not self.running:
            self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
            self.kubeconfig.unlink(missing_ok=True)
            self._child.start()

    def wait_ready(self) -> str:
        """Waits for the kubeconfig, which the server writes once it listens. Returns the URL."""
        self._child.wait_until(self.kubeconfig.exists, seconds=_START_SECONDS)
        return self.url

    def stop(self) -> None:
        self._child.stop()

    def kill(self) -> None:
        self._child.kill()

    def discard(self) -> None:
        self._child.kill()

    def restart(self) -> str:
        """Stops and starts, on the same port, with no objects."""
        self.stop()
        return self.start()

    def reset(self) -> None:
        """Forgets all objects, scripts, faults and counts, and ends an outage."""
        self._call("POST", "reset", {})

    def faults(self, rules: list[Json]) -> None:
        """Scripts faults, behind those that are scripted already."""
        self._call("POST", "faults", rules)

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def outcomes(self, *, default: str = "succeed", rules: list[Json] | None = None) -> None:
        """Scripts what becomes of Jobs that are created from now on."""
        self._call("POST", "outcomes", {"default": default, "rules": rules or []})

    def settings(self, **seconds: float) -> None:
        """Sets `pod_start_seconds`, `run_seconds` and `termination_seconds`."""
        self._call("POST", "settings", seconds)

    def outage(self, seconds: float) -> None:
        """Cuts all connections to the API and refuses new ones for so long."""
        self._call("POST", "outage", {"seconds": seconds})

    def break_watches(self, *, politely: bool = False) -> None:
        """Cuts every open watch, or ends them in good order."""
        self._call("POST", "break-watches", {"politely": politely})

    def compact(self) -> None:
        """Forgets the history: a watch that wants to go on from before gets 410."""
        self._call("POST", "compact", {})

    def end_pod(self, job: str, *, outcome: str) -> None:
        """Ends the running pod of a Job with an outcome."""
        self._call("POST", f"jobs/{job}/outcome", {"outcome": outcome})

    def write_log(self, job: str, *lines: str) -> None:
        """Adds lines to the log of a Job's pods."""
        self._call("POST", f"jobs/{job}/log", {"lines": list(lines)})

    def pass_deadline(self, job: str) -> None:
        self._call("POST", f"jobs/{job}/deadline", {})

    def deny(self, rules: list[Json]) -> None:
        """Refuses what fits a rule: any of verb, resource (`pods/log` for a subresource), namespace."""
        self._call("POST", "access", {"deny": rules})

    def stats(self) -> Json:
        """What the server has seen, with every name and identity."""
        return self._call("GET", "stats?detail=1")

    def _call(self, method: str, path: str, body: Any = None) -> Json:
        request = urllib.request.Request(  # noqa: S310 - the address is ours
            f"{self._controls}/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise SimulatorError(f"{method} {path}: {error.read().decode(errors='replace')}") from error
