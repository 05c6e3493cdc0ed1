"""Where RabbitMQ comes from on this machine: installed, unpacked from Debian's packages, or a container.

Nothing is installed on the machine itself: Debian's package would also start a system-wide node, which is not
ours to start.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.debian_packages import DebianPackageError, unpack
from deploy.local.private_place import own_private_place
from deploy.local.processes import StackError

CHECKOUT = Path(__file__).resolve().parents[2]
CONTAINER_IMAGE = "docker.io/library/rabbitmq:3.13"
_DEBIAN_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_BROKER = ("rabbit", "rabbit_common", "rabbitmq_prelaunch")
_SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

_WAYS = """RabbitMQ is needed and was not found. Any one of these will do:
  - set RABBITMQ_URL to a broker that you have: RABBITMQ_URL=amqp://user:password@host:5672/ make demo
  - install it, so that `rabbitmq-server` is on PATH (Debian and Ubuntu: apt-get install rabbitmq-server)
  - start Docker, and a container is used
Unpacking Debian's packages into .local/ was tried and failed: """


@dataclass(frozen=True, slots=True)
class Programs:
    """`rabbitmq-server`, `epmd` beside it, and the search path on which the former finds Erlang."""

    server: Path
    epmd: Path
    path: str

    def broker_folders(self) -> list[Path]:
        """What there must be among the plugins of a node that uses none; empty where plugins lie elsewhere."""
        plugins = self.server.resolve().parents[1] / "plugins"
        found = [folder for name in _BROKER for folder in plugins.glob(f"{name}-[0-9]*")]
        return found if len(found) == len(_BROKER) else []


@dataclass(frozen=True, slots=True)
class Container:
    """A container engine that answers, by its command."""

    command: Path


def find_rabbitmq() -> Programs | Container:
    """What there is, in the order of least effort.

    StackError names the ways to get RabbitMQ when there is none.
    """
    try:
        return _installed() or _unpacked()
    except DebianPackageError as error:
        container = _container()
        if container is None:
            raise StackError(f"{_WAYS}{error}") from error
        return container


def _installed() -> Programs | None:
    path = os.pathsep.join([*os.environ.get("PATH", "").split(os.pathsep), *_SYSTEM_FOLDERS])
    found = shutil.which("rabbitmq-server", path=path)
    if found is None:
        return None
    server = Path(found)
    if server.resolve().name == "rabbitmq-script-wrapper":
        # Debian's wrapper changes to the user `rabbitmq` and writes to the system's folders; the script
        # behind it does not.
        server = _DEBIAN_SERVER
    return _programs(server, path=path)


def _unpacked() -> Programs:
    """Debian's packages below `.local/`, or outside if that has a space, which breaks RabbitMQ's scripts."""
    wanted = CHECKOUT / ".local" / "rabbitmq"
    root = own_private_place() / "rabbitmq" if " " in str(wanted) else wanted
    if not root.exists():
        print(f"RabbitMQ is not installed: unpacking Debian's packages into {root} …", file=sys.stderr)
        unpack(["rabbitmq-server"], into=root)
    erl = root / "usr/lib/erlang/bin/erl"
    erl.write_text(re.sub(r"ROOTDIR=/.*/?usr/lib/erlang", f"ROOTDIR={root}/usr/lib/erlang", erl.read_text()))
    path = os.pathsep.join([f"{root}/usr/bin", f"{root}/bin", *_SYSTEM_FOLDERS])
    return _programs(root / "usr/lib/rabbitmq/bin/rabbitmq-server", path=path)


def _programs(server: Path, *, path: str) -> Programs:
    erl = shutil.which("erl", path=path)
    if erl is None:
        raise StackError(f"{server} was found, but not Erlang's `erl`, which runs it: put that on PATH")
    beside = shutil.which("epmd", path=f"{Path(erl).resolve().parent}{os.pathsep}{path}")
    if beside is None:
        raise StackError(f"{erl} was found, but not Erlang's `epmd`, which it needs: put that on PATH")
    return Programs(server=server, epmd=Path(beside), path=path)


def _container() -> Container | None:
    command = shutil.which("docker") or shutil.which("podman")
    if command is None:
        return None
    answers = subprocess.run([command, "info"], capture_output=True, timeout=20).returncode == 0
    return Container(command=Path(command)) if answers else None
