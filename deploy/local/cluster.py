"""A real cluster instead of the simulated one: the current context of a kubeconfig, and only after a yes.

`python -m deploy.local.cluster` asks at the terminal and prints the context's name, for `make test-cluster`.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.local.processes import StackError
from deploy.local.simulator import NAMESPACE


@dataclass(frozen=True, slots=True)
class Cluster:
    """A context of a kubeconfig, and the namespace in which Jobs will be created."""

    kubeconfig: Path
    context: str
    namespace: str


def asked_for() -> bool:
    """Whether a real cluster is to be used.

    StackError when KANIKOJOBS_CLUSTER is neither of its two values.
    """
    wanted = os.environ.get("KANIKOJOBS_CLUSTER", "simulator")
    if wanted not in ("simulator", "kubeconfig"):
        raise StackError(f'KANIKOJOBS_CLUSTER="{wanted}" is not known. Write simulator or kubeconfig.')
    return wanted == "kubeconfig"


def current() -> Cluster:
    """The current context of KUBECONFIG or ~/.kube/config. StackError when there is none."""
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    try:
        context = (yaml.safe_load(path.read_text()) or {}).get("current-context")
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise StackError(f"{path} cannot be read as a kubeconfig: {error}. Name another in KUBECONFIG.") from None
    if not context:
        raise StackError(f"{path} has no current context. Choose one: kubectl config use-context NAME")
    return Cluster(kubeconfig=path, context=context, namespace=os.environ.get("KANIKOJOBS_NAMESPACE", NAMESPACE))


def confirm(cluster: Cluster) -> None:
    """Returns once a person or KANIKOJOBS_CLUSTER_CONFIRM has named the context. StackError otherwise."""
    confirmed = os.environ.get("KANIKOJOBS_CLUSTER_CONFIRM")
    if confirmed is None and sys.stdin.isatty():
        told = f"Jobs will be created in the cluster of context {cluster.context}, namespace {cluster.namespace}."
        print(f"{told}\nWrite the context's name to go on: ", end="", file=sys.stderr, flush=True)
        confirmed = sys.stdin.readline().strip()
    if confirmed != cluster.context:
        raise StackError(
            f"Context {cluster.context}, namespace {cluster.namespace}: not confirmed, so nothing was started.\n"
            f"To confirm without a terminal: KANIKOJOBS_CLUSTER_CONFIRM={cluster.context}"
        )


if __name__ == "__main__":
    try:
        found = current()
        confirm(found)
        print(found.context)
    except StackError as error:
        sys.exit(str(error))
