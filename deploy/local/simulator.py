"""The simulated Kubernetes API server as a process, and its controls for the tests and the demo."""

import sys
from pathlib import Path

from deploy.local.processes import Child, free_port

CHECKOUT = Path(__file__).resolve().parents[2]
_START_SECONDS = 30.0


class Simulator:
    """`python -m deploy.local.kubernetes_simulator` on a port of its own.

    Its objects live in memory: a stop forgets them.
    """

    def __init__(self, *, folder: Path) -> None:
        """Nothing is started or written yet, but `url` and `kubeconfig` are settled."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kubeconfig = folder / "kubeconfig"
        self._child = Child(
            name="simulator",
            command=[
                *[sys.executable, "-m", "deploy.local.kubernetes_simulator"],
                *["--port", str(self.port), "--kubeconfig", str(self.kubeconfig)],
                *["--namespace", "kaniko-builds"],
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
