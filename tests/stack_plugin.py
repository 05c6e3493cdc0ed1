"""The real servers for the tests: a pytest plugin, loaded by `-p tests.stack_plugin` before pytest-django.

Django's settings are read when pytest-django loads, long before it is known which tests will run. So the
ports are chosen and the environment is set first, and each server starts when the first test needs it: a test
that needs none starts none. DATABASE_URL and RABBITMQ_URL in the environment are used instead of servers of
our own.
"""

import gc
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from deploy.local import cluster
from deploy.local.postgres import Postgres
from deploy.local.processes import Child, StackError
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.simulator import Simulator
from deploy.local.stack import LOCAL, Given, LocalStack, remove_leftovers

_STACK = pytest.StashKey[LocalStack]()
_ENVIRONMENT = pytest.StashKey[dict[str, str]]()
# Whatever else of ours is in the developer's environment would change what the tests see.
_KEPT = ("KANIKOJOBS_CRDS", "KANIKOJOBS_CLUSTER", "KANIKOJOBS_CONFORMANCE", "DJANGO_SETTINGS_MODULE")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Settles where everything will be, before pytest-django reads the settings."""
    try:
        stack = LocalStack(folder=LOCAL / f"test-{os.getpid()}", durable=False, kubeconfig=_real_cluster())
    except StackError as error:
        raise pytest.UsageError(str(error)) from None
    early_config.stash[_STACK] = stack
    early_config.stash[_ENVIRONMENT] = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("KANIKOJOBS_", "DJANGO_")) and not name.startswith(_KEPT):
            del os.environ[name]
    os.environ |= stack.environment() | {
        "DJANGO_SECRET_KEY": secrets.token_hex(32),
        "DJANGO_ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
        "DJANGO_SECURE_COOKIES": "false",
    }


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Each process of `pytest -n` starts servers of its own: it must not take this process's for given ones."""
    os.environ.clear()
    given = config.stash[_ENVIRONMENT]
    os.environ.update(given)


def _real_cluster() -> Path | None:
    """The kubeconfig of a real cluster, if one was asked for and confirmed (`make test-cluster` does both)."""
    if not cluster.asked_for():
        return None
    chosen = cluster.current()
    cluster.confirm(chosen)
    return chosen.kubeconfig


def pytest_collection_finish() -> None:
    """What is there now stays until the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    stack = config.stash.get(_STACK, None)
    if stack is not None and stack.claimed:
        stack.close()
        shutil.rmtree(stack.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def local_stack(pytestconfig: pytest.Config) -> LocalStack:
    """The stack of this run, with a folder and no server yet."""
    remove_leftovers(LOCAL, pattern="test-*")
    stack = pytestconfig.stash[_STACK]
    stack.claim_folder()
    return stack


@pytest.fixture(scope="session")
def postgres(local_stack: LocalStack) -> Postgres | Given:
    """PostgreSQL, up. Tests reach it through Django; pytest-django makes the test database in it."""
    local_stack.postgres.start()
    return local_stack.postgres


@pytest.fixture(scope="session")
def rabbitmq(local_stack: LocalStack) -> RabbitMQ | Given:
    """RabbitMQ, up."""
    local_stack.rabbitmq.start()
    return local_stack.rabbitmq


@pytest.fixture(scope="session")
def simulator_process(local_stack: LocalStack) -> Simulator:
    """The simulated Kubernetes API server, up, with whatever earlier tests have left in it."""
    if local_stack.simulator is None:
        pytest.fail("this test scripts the simulated cluster, and a real one was asked for")
    local_stack.simulator.start()
    return local_stack.simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    """The simulated Kubernetes API server, empty and without scripted faults."""
    if not simulator_process.running:
        simulator_process.start()
    simulator_process.reset()
    return simulator_process


StartCommand = Callable[..., Child]


@pytest.fixture
def start_command(
    local_stack: LocalStack, transactional_db: None, settings: object, request: pytest.FixtureRequest
) -> Iterator[StartCommand]:
    """Starts `manage.py COMMAND` as a process against the test database and the queues of the settings.

    It ends with the test. Its log is in `child.log`; `child.log_tail()` is its end.
    """
    started: list[Child] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Child:
        from django.conf import settings as django_settings

        queues = {
            name: getattr(django_settings, name) for name in ("KANIKOJOBS_QUEUE", "KANIKOJOBS_DLQ", "KANIKOJOBS_DLX")
        }
        child = local_stack.start_process(
            name=f"{request.node.name}-{arguments[0]}-{len(started)}".replace("/", "-"),
            command=[sys.executable, "manage.py", *arguments],
            env={"DATABASE_URL": _test_database_url()} | queues | (env or {}),
        )
        started.append(child)
        return child

    yield start
    for child in reversed(started):
        child.stop()
        local_stack.forget(child)


def _test_database_url() -> str:
    """The database that pytest-django has made, for processes that do not run below pytest."""
    from django.db import connection

    parts = connection.settings_dict
    user, password, name = (quote(str(parts[key]), safe="") for key in ("USER", "PASSWORD", "NAME"))
    return f"postgresql://{user}:{password}@{parts['HOST']}:{parts['PORT']}/{name}"
