"""What every test may ask for.

The servers come from `tests.stack_plugin`, which explains why it is not in here.
"""

from collections.abc import Callable, Iterator
from uuid import uuid4

import hypothesis
import pytest
from django.test import TransactionTestCase
from pytest_django import Settings

from deploy.local.postgres import Postgres
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.stack import Given

# The same examples on every run, and none fails because the machine is slow. `--hypothesis-profile=default` looks for
# new ones.
hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    """Real hashing takes a quarter of a second per user on purpose, and most tests of pages make one."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def django_db_setup(postgres: Postgres | Given, django_db_setup: None) -> Iterator[None]:
    """pytest-django's own, once there is a server to make the test database in."""
    from tests.leftover_rows import remove_leftover_rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", remove_leftover_rows)
        yield


@pytest.fixture
def queues(settings: Settings, rabbitmq: RabbitMQ | Given) -> Iterator[None]:
    """Names of its own for the test's queues and dead-letter exchange in the settings; deleted afterwards."""
    from kanikojobs.amqp import connect

    name = f"test-{uuid4().hex[:12]}"
    settings.RABBITMQ_URL = rabbitmq.url
    settings.KANIKOJOBS_QUEUE = name
    settings.KANIKOJOBS_DLQ = f"{name}.dlq"
    settings.KANIKOJOBS_DLX = f"{name}.dlx"
    yield
    channel = connect(rabbitmq.url, name="tests").channel()
    channel.queue_delete(settings.KANIKOJOBS_QUEUE)
    channel.queue_delete(settings.KANIKOJOBS_DLQ)
    channel.exchange_delete(settings.KANIKOJOBS_DLX)
    channel.connection.close()


@pytest.fixture
def depth(rabbitmq: RabbitMQ | Given) -> Iterator[Callable[[str], int]]:
    """How many messages are ready in a queue now, as RabbitMQ says; those that a consumer holds are not."""
    from kanikojobs.amqp import connect

    with connect(rabbitmq.url, name="tests") as connection:
        channel = connection.channel()
        yield lambda queue: int(channel.queue_declare(queue, passive=True).method.message_count)
