"""A private RabbitMQ for the demo and the tests: one node that shares nothing with any other on the machine.

It has its own ports (AMQP, distribution, epmd), cookie, directories and user, listens on 127.0.0.1 alone, and
takes no setting from the machine or from our environment.
"""

import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from deploy.local.processes import Child, StackError, free_port
from deploy.local.rabbitmq_programs import CONTAINER_IMAGE, Container, Programs, find_rabbitmq

_USER = "kanikojobs"
_START_SECONDS = 120.0
_AMQP_GREETING = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
_METHOD_FRAME = b"\x01"


class RabbitMQ:
    """One node with its data in `folder`. The data outlives `restart` and `kill`, not `discard`."""

    def __init__(self, *, folder: Path) -> None:
        """Nothing is started or written yet, but `url` is settled."""
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self._children: list[Child] = []
        self._container: Container | None = None

    @property
    def url(self) -> str:
        return f"amqp://{_USER}:{self.password}@127.0.0.1:{self.port}/"

    @property
    def running(self) -> bool:
        return bool(self._children) and all(child.running for child in self._children)

    def start(self) -> str:
        """Starts the node and waits until it answers. Returns its URL."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Starts the node's processes and does not wait for it."""
        if self.running:
            return
        if not self._children:
            self._children = self._make()
        self._remove_container()
        for child in self._children:
            child.start()

    def wait_ready(self) -> str:
        """Waits until the node speaks AMQP, which it does once its users and queues are there.

        Returns the URL.
        """
        if not self._children:
            raise StackError("rabbitmq was not launched")
        self._children[-1].wait_until(self._answers, seconds=_START_SECONDS)
        return self.url

    def stop(self) -> None:
        """Ends the node in order."""
        for child in reversed(self._children):
            child.stop()
        self._remove_container()

    def kill(self) -> None:
        """Ends the node with SIGKILL, for tests of what survives.

        RabbitMQ confirms a persistent message once it is on disk, but a queue's declaration a moment before.
        """
        for child in reversed(self._children):
            child.kill()
        self._remove_container()

    def restart(self) -> str:
        """Stops and starts, on the same port and with the same data."""
        self.stop()
        return self.start()

    def discard(self) -> None:
        """Kills the node: whoever throws its data away needs no orderly end, which takes seconds."""
        self.kill()
        self._children = []

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(_AMQP_GREETING)
                return connection.recv(1) == _METHOD_FRAME
        except OSError:
            return False

    def _make(self) -> list[Child]:
        way = find_rabbitmq()
        if isinstance(way, Container):
            self._container = way
            return [self._container_child(way)]
        return self._node_children(way)

    def _node_children(self, programs: Programs) -> list[Child]:
        home = self.folder / "rabbitmq"
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        (home / "rabbitmq.conf").write_text(self._configuration())
        (home / "enabled_plugins").write_text("[].\n")
        (home / "rabbitmq-env.conf").write_text("")  # instead of the machine's own
        # The node finds itself by name; not every small machine has that name in /etc/hosts.
        (home / "inetrc").write_text('{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n')
        epmd_port = free_port()
        plugins = self._no_plugins(programs)
        env = {
            "PATH": programs.path,
            "HOME": str(home),  # Erlang makes its cookie here
            "LANG": "C.UTF-8",
            "ERL_INETRC": str(home / "inetrc"),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "kanikojobs@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            # Without busy waiting (RabbitMQ's guide to runtime tuning): a laptop has better use for its two cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "pid"),
        } | ({"RABBITMQ_PLUGINS_DIR": str(plugins)} if plugins else {})
        logs = self.folder / "logs"
        epmd = Child(
            name="epmd",
            command=[str(programs.epmd), "-port", str(epmd_port), "-address", "127.0.0.1"],
            log=logs / "epmd.log",
            env=env,
            cwd=home,
        )
        server = Child(
            name="rabbitmq",
            command=[str(programs.server)],
            log=logs / "rabbitmq.log",
            env=env,
            cwd=home,
            grace=20.0,
        )
        return [epmd, server]

    def _no_plugins(self, programs: Programs) -> Path | None:
        """A folder of plugins with the broker alone.

        At its start the node reads what every plugin in the folder could be set to, and for each module that it loads
        it looks into each of them, used or not. That is a quarter of the start's work.
        """
        folder = self.folder / "rabbitmq" / "plugins"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        broker = programs.broker_folders()
        for part in broker:
            (folder / part.name).symlink_to(part)
        return folder if broker else None

    def _configuration(self) -> str:
        """Small on purpose: a laptop's share of memory and disk, and a write-ahead log that is not 512 MB."""
        return (
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"default_user = {_USER}\n"
            f"default_pass = {self.password}\n"
            "vm_memory_high_watermark.absolute = 512MB\n"
            "disk_free_limit.absolute = 20MB\n"
            "raft.wal_max_size_bytes = 16777216\n"
        )

    def _container_child(self, container: Container) -> Child:
        """The container ends when its standard input does, so it cannot outlive the process that we hold."""
        settings = {"RABBITMQ_DEFAULT_USER": _USER, "RABBITMQ_DEFAULT_PASS": self.password}
        return Child(
            name="rabbitmq",
            command=[
                *[str(container.command), "run", "--rm", "--interactive", "--name", self._container_name],
                *["--hostname", "kanikojobs", "--publish", f"127.0.0.1:{self.port}:5672"],
                *[f"--env={name}={value}" for name, value in settings.items()],
                *["--volume", f"{self._container_name}:/var/lib/rabbitmq", CONTAINER_IMAGE],
                *["sh", "-c", "docker-entrypoint.sh rabbitmq-server & cat; kill $! && wait $!"],
            ],
            log=self.folder / "logs" / "rabbitmq.log",
            hold_stdin=True,
            grace=20.0,
        )

    @property
    def _container_name(self) -> str:
        return f"kanikojobs-{self.folder.name}-{self.port}"

    def _remove_container(self) -> None:
        if self._container is not None:
            subprocess.run([self._container.command, "rm", "--force", self._container_name], capture_output=True)
