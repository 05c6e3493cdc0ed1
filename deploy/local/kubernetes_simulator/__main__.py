"""`python -m deploy.local.kubernetes_simulator`: serves until SIGTERM or SIGINT."""

import argparse
import asyncio
import gc
import signal
import tempfile
from pathlib import Path

import yaml

from deploy.local.kubernetes_simulator.outcomes import OUTCOMES, is_script
from deploy.local.kubernetes_simulator.simulator import Settings, Simulator


def _script(text: str) -> str:
    if not is_script(text):
        raise argparse.ArgumentTypeError(f"write one or more of {', '.join(OUTCOMES)}, joined by commas")
    return text


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="kubernetes_simulator", description="A simulated Kubernetes API server.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument(
        "--control-port", type=int, help="a second port for /simulator/, open during outages; 0 takes a free one"
    )
    parser.add_argument("--kubeconfig", type=Path, help="file to write once the server listens")
    parser.add_argument("--namespace", action="append", default=[], help="namespace to create; may be repeated")
    parser.add_argument("--token", default="", help="bearer token that requests need; empty needs none")
    parser.add_argument("--outcome", type=_script, default=defaults.outcome, help="what becomes of pods by default")
    parser.add_argument("--pod-start-seconds", type=float, default=defaults.pod_start_seconds)
    parser.add_argument("--run-seconds", type=float, default=defaults.run_seconds)
    parser.add_argument(
        "--backoff-seconds", type=float, default=defaults.backoff_seconds, help="before a retry of a failed pod"
    )
    parser.add_argument("--bookmark-seconds", type=float, default=defaults.bookmark_seconds)
    parser.add_argument(
        "--history", type=int, default=defaults.history, help="writes per resource that a watch can resume from"
    )
    parser.add_argument("--seed", type=int, help="the same uids and names in every run")
    parser.add_argument("--no-controllers", action="store_true", help="no Job controller, no garbage collector")
    parser.add_argument("--no-kubelet", action="store_true", help="pods are made but stay Pending")
    return parser


def kubeconfig(*, url: str, namespace: str, token: str) -> str:
    """A kubeconfig with one context, `simulator`."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulator", "cluster": {"server": url}}],
            "users": [{"name": "simulator", "user": {"token": token} if token else {}}],
            "contexts": [
                {
                    "name": "simulator",
                    "context": {"cluster": "simulator", "user": "simulator", "namespace": namespace},
                }
            ],
            "current-context": "simulator",
        },
        sort_keys=False,
    )


def write_whole(path: Path, *, text: str) -> None:
    """Writes a file so that a reader sees all of it or none, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(path)


async def serve(arguments: argparse.Namespace) -> None:
    settings = Settings(
        port=arguments.port,
        control_port=arguments.control_port,
        token=arguments.token,
        namespaces=tuple(arguments.namespace),
        outcome=arguments.outcome,
        pod_start_seconds=arguments.pod_start_seconds,
        run_seconds=arguments.run_seconds,
        backoff_seconds=arguments.backoff_seconds,
        bookmark_seconds=arguments.bookmark_seconds,
        history=arguments.history,
        seed=arguments.seed,
        controllers=not arguments.no_controllers,
        kubelet=not arguments.no_kubelet,
    )
    # Objects are held in their hundreds of thousands and form no cycles: rare collections keep creates fast.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    simulator = Simulator(settings)
    await simulator.start()
    if arguments.kubeconfig:
        text = kubeconfig(url=simulator.url, namespace=simulator.namespace, token=settings.token)
        write_whole(arguments.kubeconfig, text=text)
    print(f"Kubernetes simulator at {simulator.url}", flush=True)
    if arguments.control_port is not None:
        print(f"Control API at {simulator.control_url}/simulator/", flush=True)
    await stopped.wait()
    simulator.stop()


def main() -> None:
    asyncio.run(serve(_parser().parse_args()))


if __name__ == "__main__":
    main()
