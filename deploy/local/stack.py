"""PostgreSQL, RabbitMQ and a Kubernetes API server for the laptop: up together, and gone together.

`LocalStack` is a context manager. However its block is left (end, exception, Ctrl-C, SIGTERM, SIGHUP), in
whatever phase, no process of it is left behind; after SIGKILL the guardian sees to that. Stacks in different
folders share nothing.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self, TextIO

from deploy.local.postgres import Postgres
from deploy.local.processes import Child, StackError, finish
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.simulator import Simulator

CHECKOUT = Path(__file__).resolve().parents[2]
LOCAL = CHECKOUT / ".local"
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server(Protocol):
    """What the stack needs of a server: started without waiting, awaited, thrown away."""

    @property
    def url(self) -> str: ...
    def launch(self) -> None: ...
    def wait_ready(self) -> str: ...
    def discard(self) -> None: ...


class Given:
    """A server that somebody else runs and named in the environment.

    It is used and never started or ended.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def launch(self) -> None:
        pass

    def wait_ready(self) -> str:
        return self.url

    def start(self) -> str:
        return self.url

    def discard(self) -> None:
        pass


class LocalStack:
    """The three servers and the processes that run against them, with all their files in `folder`."""

    def __init__(self, *, folder: Path, durable: bool = True, kubeconfig: Path | None = None) -> None:
        """Nothing is started or written yet, but `environment` is settled.

        `durable=False` trades safety against a crash of the machine for speed. `kubeconfig` names a cluster
        to use instead of the simulated one. DATABASE_URL and RABBITMQ_URL in the environment are used instead
        of our own.
        """
        self.folder = folder
        given_database, given_rabbitmq = os.environ.get("DATABASE_URL"), os.environ.get("RABBITMQ_URL")
        self.postgres: Postgres | Given = (
            Given(given_database) if given_database else Postgres(folder=folder, durable=durable)
        )
        self.rabbitmq: RabbitMQ | Given = Given(given_rabbitmq) if given_rabbitmq else RabbitMQ(folder=folder)
        self.simulator = Simulator(folder=folder) if kubeconfig is None else None
        self.kubeconfig = self.simulator.kubeconfig if self.simulator else kubeconfig
        self._children: list[Child] = []
        self._lock: TextIO | None = None
        self._signals = contextlib.ExitStack()

    def environment(self) -> dict[str, str]:
        """What a process needs in order to use this stack."""
        return {
            "DATABASE_URL": self.postgres.url,
            "RABBITMQ_URL": self.rabbitmq.url,
            "KUBECONFIG": str(self.kubeconfig),
        }

    def __enter__(self) -> Self:
        """Starts the servers side by side and waits for all of them."""
        self._signals.enter_context(signals_end_this_process())
        try:
            self.claim_folder()
            servers = self._servers()
            for server in servers:
                server.launch()
            for server in servers:
                server.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def claimed(self) -> bool:
        """Whether this stack has a folder, and so may have started something."""
        return self._lock is not None

    def claim_folder(self) -> None:
        """Makes the folder ours, and empty. StackError when another stack is up in it."""
        with _one_at_a_time(self.folder.parent):
            self._lock = _try_to_lock(self.folder)
        if self._lock is None:
            raise StackError(f"another stack is up in {self.folder}: end it first with Ctrl-C in its terminal")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def start_process(
        self,
        *,
        name: str,
        command: list[str],
        env: dict[str, str],
        grace: float = 5.0,
        inherits: tuple[int, ...] = (),
    ) -> Child:
        """Starts a process against the stack, from the checkout; it ends before the servers do.

        Its log is `logs/NAME.log`.
        """
        child = Child(
            name=name,
            command=command,
            log=self.folder / "logs" / f"{name}.log",
            env=os.environ | self.environment() | env,
            cwd=CHECKOUT,
            grace=grace,
            inherits=inherits,
        )
        self._children.append(child)
        child.start()
        return child

    def run_process(self, *, name: str, command: list[str], env: dict[str, str]) -> None:
        """Runs a process against the stack to its end. StackError, with the end of its log, when it fails."""
        child = self.start_process(name=name, command=command, env=env)
        code = child.wait()
        self.forget(child)
        if code != 0:
            raise StackError(f"{name} ended with {code}\n{child.log_tail()}")

    def forget(self, child: Child) -> None:
        """Lets go of a process that has ended and was meant to."""
        self._children.remove(child)

    def check(self) -> None:
        """StackError, with the end of its log, when a process of the stack has ended by itself."""
        for child in self._children:
            if not child.running:
                raise StackError(f"{child.name} ended with {child.returncode}\n{child.log_tail()}")

    def close(self) -> None:
        """Ends everything, the last started first.

        A second Ctrl-C meanwhile changes nothing: the end is near anyway.
        """
        with _signals_ignored():
            for child in self._children:
                child.ask_to_end()
            for child in reversed(self._children):
                child.stop()
            self._children.clear()
            for server in self._servers():
                server.discard()
            for data in ("postgres", "rabbitmq"):
                shutil.rmtree(self.folder / data, ignore_errors=True)
            finish()
            if self._lock is not None:
                self._lock.close()
                _lock_path(self.folder).unlink(missing_ok=True)
                self._lock = None
            self._signals.close()

    def _servers(self) -> list[Server]:
        """The slowest to start first."""
        servers: list[Server] = [self.rabbitmq]
        if self.simulator is not None:
            servers.append(self.simulator)
        return [*servers, self.postgres]


@contextlib.contextmanager
def _one_at_a_time(parent: Path) -> Iterator[None]:
    """Whoever takes a folder's lock must not meet one who is just removing what looked like a leftover."""
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / "claims").open("w") as claims:
        fcntl.flock(claims, fcntl.LOCK_EX)
        yield


def remove_leftovers(parent: Path, *, pattern: str) -> None:
    """Removes the folders of stacks that were killed before they could tidy up.

    Those that are up keep theirs.
    """
    with _one_at_a_time(parent):
        for lock_path in parent.glob(f"{pattern}.lock"):
            folder = lock_path.with_suffix("")
            lock = _try_to_lock(folder)
            if lock is not None:
                with lock:
                    Postgres.remove_data_of(folder)
                    shutil.rmtree(folder, ignore_errors=True)
                    lock_path.unlink(missing_ok=True)


@contextlib.contextmanager
def signals_end_this_process() -> Iterator[None]:
    """Turns the signals that ask for an end into SystemExit, so that `finally` and `with` do their work.

    SIGINT is set too: a shell starts background commands with it ignored. SIGHUP stays ignored below `nohup`.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in _END_SIGNALS}
    for number, handler in before.items():
        if not (number == signal.SIGHUP and handler == signal.SIG_IGN):
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _try_to_lock(folder: Path) -> TextIO | None:
    """The lock of a stack's folder, beside it, or None when another process has it.

    The system frees it at any death.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_path(folder).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
