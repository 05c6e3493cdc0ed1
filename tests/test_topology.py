"""The queues and exchanges on a real RabbitMQ, and what is said where others stand in their place."""

from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from pytest_django import Settings

from kanikojobs import amqp
from kanikojobs.topology import Difference, difference, topology, unknown_argument

pytestmark = pytest.mark.usefixtures("queues")

QUORUM = {"x-queue-type": "quorum"}


def there_is_a_queue(name: str, *, durable: bool = True, auto_delete: bool = False, **arguments: Any) -> None:
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        connection.channel().queue_declare(name, durable=durable, auto_delete=auto_delete, arguments=named)


def asked_for() -> dict[str, Any]:
    """The arguments of the main queue, as keywords."""
    return {name.replace("-", "_"): value for name, value in topology().queues[0].arguments.items()}


def complaint() -> list[str]:
    """The lines of the command's error, by which it ends with 1."""
    with pytest.raises(CommandError) as raised:
        call_command("declare_topology")
    assert raised.value.returncode == 1
    return str(raised.value).splitlines()


def test_it_declares_both_queues_and_their_bindings(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("declare_topology")

    name, dlq, dlx = settings.KANIKOJOBS_QUEUE, settings.KANIKOJOBS_DLQ, settings.KANIKOJOBS_DLX
    assert capsys.readouterr().out.splitlines() == [
        f"queue {name}",
        f"  bound to exchange amq.topic by {settings.KANIKOJOBS_EVENT_TYPE}",
        f"queue {dlq}",
        f"  bound to exchange {dlx} by {dlq}",
    ]
    assert amqp.depths(settings.RABBITMQ_URL, queues=[name, dlq]) == {name: 0, dlq: 0}


def test_declaring_again_changes_nothing() -> None:
    call_command("declare_topology")
    call_command("declare_topology")


def test_the_arguments_are_those_of_the_document() -> None:
    assert topology().queues[0].arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 86_400_000,
        "x-max-length": 10_000,
        "x-overflow": "drop-head",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": settings.KANIKOJOBS_DLX,
        "x-dead-letter-routing-key": settings.KANIKOJOBS_DLQ,
    }


def test_publishers_reach_the_queue_by_the_events_type() -> None:
    call_command("declare_topology")

    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        publication = amqp.Publication("amq.topic", settings.KANIKOJOBS_EVENT_TYPE, b"{}", "application/json", {})
        confirmed = amqp.publish(connection, [publication])

    assert confirmed == 1
    assert amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE])[settings.KANIKOJOBS_QUEUE] == 1


def test_each_differing_argument_is_named_with_both_values() -> None:
    there_is_a_queue(settings.KANIKOJOBS_QUEUE, **asked_for() | {"x_max_length": 5, "x_overflow": "reject-publish"})

    lines = complaint()

    name = settings.KANIKOJOBS_QUEUE
    assert f"  queue {name}: x-max-length is 5, but the settings ask for 10000" in lines
    assert f"  queue {name}: x-overflow is reject-publish, but the settings ask for drop-head" in lines
    assert sum("but the settings ask for" in line for line in lines) == 2


def test_the_remedies_are_named() -> None:
    there_is_a_queue(settings.KANIKOJOBS_QUEUE, **asked_for() | {"x_max_length": 5})

    remedy = complaint()[-1]

    for word in ("KANIKOJOBS_MAX_LENGTH", "rabbitmqctl set_policy", "rabbitmqctl delete_queue"):
        assert word in remedy


@pytest.mark.parametrize(
    ("there", "lines"),
    [
        pytest.param(
            {},
            [
                "x-dead-letter-exchange is not set, but the settings ask for {dlx}",
                "x-dead-letter-routing-key is not set, but the settings ask for {dlq}",
                "x-max-length is not set, but the settings ask for 10000",
                "x-message-ttl is not set, but the settings ask for 86400000",
                "x-overflow is not set, but the settings ask for drop-head",
                "x-queue-type is classic, but the settings ask for quorum",
            ],
            id="a classic queue",
        ),
        pytest.param({"x_expires": 600_000}, ["x-expires is 600000, but the settings ask for nothing"], id="one more"),
        pytest.param(
            {"x_dead_letter_routing_key": "12"},
            ["x-dead-letter-routing-key is 12, but the settings ask for {dlq}"],
            id="a text of digits",
        ),
        pytest.param({"x_delivery_limit": 3}, ["x-delivery-limit is 3, but the settings ask for 20"], id="a limit"),
    ],
)
def test_every_kind_of_difference_is_named(there: dict[str, Any], lines: list[str]) -> None:
    name = settings.KANIKOJOBS_QUEUE
    there_is_a_queue(name, **asked_for() | there if there else {})

    found = {line.removeprefix(f"  queue {name}: ") for line in complaint()}

    wanted = {line.format(dlx=settings.KANIKOJOBS_DLX, dlq=settings.KANIKOJOBS_DLQ) for line in lines}
    assert wanted <= found


def test_a_queue_that_is_not_durable_is_named() -> None:
    there_is_a_queue(settings.KANIKOJOBS_QUEUE, durable=False)

    assert any("durable is false, but the settings ask for true" in line for line in complaint())


def test_an_exchange_of_another_type_is_named() -> None:
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        connection.channel().exchange_declare(settings.KANIKOJOBS_DLX, "fanout", durable=True)

    line = f"  exchange {settings.KANIKOJOBS_DLX}: type is fanout, but the settings ask for direct"
    assert line in complaint()


def test_what_differs_in_both_queues_is_named_at_once() -> None:
    there_is_a_queue(settings.KANIKOJOBS_QUEUE, **asked_for() | {"x_max_length": 5})
    there_is_a_queue(settings.KANIKOJOBS_DLQ, x_queue_type="quorum", x_delivery_limit=7)

    lines = complaint()

    assert any(line.startswith(f"  queue {settings.KANIKOJOBS_QUEUE}: x-max-length") for line in lines)
    assert any(line.startswith(f"  queue {settings.KANIKOJOBS_DLQ}: x-delivery-limit is 7") for line in lines)


def test_asking_changes_nothing_about_what_is_there() -> None:
    there_is_a_queue(settings.KANIKOJOBS_QUEUE, **asked_for() | {"x_max_length": 5})

    first, second = complaint(), complaint()

    assert first == second


def test_a_queue_that_another_connection_holds_for_itself_is_told() -> None:
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as holder:
        holder.channel().queue_declare(settings.KANIKOJOBS_QUEUE, exclusive=True)

        assert any("exclusive access" in line for line in complaint())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amqp://nobody:wrong@{host}/", "user name or the password"),
        ("amqp://{user}@{host}/no-such-host", "virtual host"),
        ("amqp://{user}@127.0.0.1:1/", "cannot be reached"),
        ("", "RABBITMQ_URL is not set"),
        ("http://localhost/", "no URL of a broker"),
        ("localhost:5672", "no URL of a broker"),
    ],
    ids=["wrong password", "wrong virtual host", "nobody there", "not set", "another scheme", "no scheme"],
)
def test_it_says_in_one_line_why_rabbitmq_cannot_be_had(settings: Settings, url: str, words: str) -> None:
    user, _, host = settings.RABBITMQ_URL.removeprefix("amqp://").rstrip("/").rpartition("@")
    settings.RABBITMQ_URL = url.format(user=user, host=host)

    (line,) = complaint()

    assert words in line
    assert user.rpartition(":")[2] not in line


def test_a_missing_permission_is_told_in_one_line(settings: Settings) -> None:
    # Names that begin with amq. are RabbitMQ's own: it refuses them as it refuses what a user may not touch.
    settings.KANIKOJOBS_QUEUE = "amq.not-ours"

    (line,) = complaint()

    assert "ACCESS_REFUSED" in line
    assert "configure, write and read permissions" in line


# What RabbitMQ 4 writes, where it differs from 3.10, which the other tests talk to.
REPLIES = [
    pytest.param(
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': "
        "received '10000' but current is '5'",
        Difference(argument="x-max-length", wanted="10000", current=5),
        id="both values bare",
    ),
    pytest.param(
        "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': "
        "received the value '20' of type 'signedint' but current is none",
        Difference(argument="x-delivery-limit", wanted="20", current=None),
        id="not set",
    ),
    pytest.param(
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': "
        "received 'quorum' but current is 'classic'",
        Difference(argument="x-queue-type", wanted="quorum", current="classic"),
        id="a text",
    ),
    pytest.param("NOT_FOUND - no queue 'q' in vhost '/'", None, id="something else"),
]


@pytest.mark.parametrize(("reply", "found"), REPLIES)
def test_a_reply_is_read(reply: str, found: Difference | None) -> None:
    assert difference(reply) == found


def test_an_argument_that_the_queues_type_does_not_know_is_found() -> None:
    reply = "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue 'q' in vhost '/' of queue type classic"

    assert unknown_argument(reply) == "x-delivery-limit"
    assert unknown_argument("NOT_FOUND - no queue 'q' in vhost '/'") is None
