"""`manage.py consume_queue` as an operator and an orchestrator see it: exit codes, signals, probes, memory."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from pytest_django import Settings

from deploy.local.processes import Child, free_port
from deploy.local.stack import LocalStack
from kanikojobs import amqp
from kanikojobs.consumer_status import Counts, serve
from kanikojobs.messages import IntakeResult, Outcome
from kanikojobs.models import DeadLetter, JobStartEvent
from tests.bench.meter import peak_mb
from tests.consuming import eventually, publish_bodies, publish_samples
from tests.stack_plugin import StartCommand

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queues")]


def ended(child: Child, *, seconds: float = 30) -> int:
    eventually(lambda: not child.running, seconds=seconds)
    assert child.returncode is not None
    return child.returncode


def http_get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_draining_once_says_what_became_of_the_messages(capsys: pytest.CaptureFixture[str]) -> None:
    publish_samples([*range(10), 3])
    publish_bodies(b"{")
    publish_bodies(json.dumps({"specversion": "1.0", "id": "1", "source": "other", "type": "other"}).encode())

    call_command("consume_queue", once=True)

    assert capsys.readouterr().out == "13 messages: 10 recorded, 1 duplicates, 1 dead letters, 1 not ours\n"


def test_what_the_broker_dead_lettered_is_drained_too(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_LENGTH = 2
    publish_samples(range(5))
    eventually(lambda: amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_DLQ]) != {})
    eventually(lambda: sum(amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_DLQ]).values()) == 3)

    call_command("consume_queue", once=True)

    assert JobStartEvent.objects.count() == 2
    assert [letter.cause for letter in DeadLetter.objects.all()] == [DeadLetter.Cause.MAXLEN] * 3


def test_dead_letters_stay_with_the_broker_if_they_are_to(settings: Settings) -> None:
    settings.KANIKOJOBS_DRAIN_DLQ = False
    settings.KANIKOJOBS_MAX_LENGTH = 2
    publish_samples(range(5))

    call_command("consume_queue", once=True)

    assert JobStartEvent.objects.count() == 2
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(("reader", "flag"), [("consumer", True), ("knative", False)], ids=["flag", "setting"])
def test_where_knative_reads_the_queue_only_dead_letters_are_taken(
    settings: Settings, reader: str, flag: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.KANIKOJOBS_MAX_LENGTH = 2
    settings.KANIKOJOBS_QUEUE_READER = reader
    publish_samples(range(5))
    queues = [settings.KANIKOJOBS_QUEUE, settings.KANIKOJOBS_DLQ]
    eventually(lambda: amqp.depths(settings.RABBITMQ_URL, queues=queues)[settings.KANIKOJOBS_DLQ] == 3)

    call_command("consume_queue", once=True, dead_letters_only=flag)

    assert capsys.readouterr().out.startswith("3 messages: 0 recorded")
    assert DeadLetter.objects.count() == 3
    assert amqp.depths(settings.RABBITMQ_URL, queues=queues) == dict(zip(queues, (2, 0), strict=True))


def test_a_consumer_with_nothing_to_drain_says_so(settings: Settings) -> None:
    settings.KANIKOJOBS_DRAIN_DLQ = False

    with pytest.raises(CommandError, match="Nothing is left to drain"):
        call_command("consume_queue", dead_letters_only=True)


@pytest.mark.parametrize(
    ("batch", "prefetch"), [(0, 10), (20, 10), (10, 65_536)], ids=["no batch", "batch over prefetch", "beyond AMQP"]
)
def test_numbers_that_cannot_work_are_refused(batch: int, prefetch: int) -> None:
    with pytest.raises(CommandError, match="--prefetch"):
        call_command("consume_queue", once=True, batch=batch, prefetch=prefetch)


def test_a_port_that_is_taken_is_refused(rabbitmq: object) -> None:
    taken = urlsplit(settings.RABBITMQ_URL).port

    with pytest.raises(CommandError, match="--metrics-port"):
        call_command("consume_queue", once=True, metrics_port=taken)


def test_sigterm_ends_it_in_order(start_command: StartCommand) -> None:
    publish_samples(range(50))
    child = start_command("consume_queue")
    eventually(lambda: JobStartEvent.objects.count() == 50)

    child.ask_to_end()

    assert ended(child) == 0
    assert "50 messages: 50 recorded" in child.log_tail()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_also_while_both_servers_are_away(start_command: StartCommand, number: signal.Signals) -> None:
    away = {
        "RABBITMQ_URL": f"amqp://u:p@127.0.0.1:{free_port()}/",
        "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/none",
    }
    child = start_command("consume_queue", env=away)
    eventually(lambda: "rabbitmq-away" in child.log_tail())

    child.stop_signal = number
    child.ask_to_end()

    assert ended(child) == 0


def test_a_signal_ends_it_while_postgres_is_away(start_command: StartCommand) -> None:
    publish_samples(range(10))
    child = start_command("consume_queue", env={"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/none"})
    eventually(lambda: "database-away" in child.log_tail())

    child.ask_to_end()

    assert ended(child) == 0
    assert amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE]) == {settings.KANIKOJOBS_QUEUE: 10}


def test_a_database_without_tables_ends_it_with_a_hint(start_command: StartCommand, local_stack: LocalStack) -> None:
    publish_samples(range(10))
    empty = urlsplit(local_stack.postgres.url)._replace(path="/postgres").geturl()

    child = start_command("consume_queue", env={"DATABASE_URL": empty})

    assert ended(child) == 1
    assert "Run manage.py migrate" in child.log_tail(1)
    assert amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE]) == {settings.KANIKOJOBS_QUEUE: 10}


def test_a_wrong_password_ends_it_in_one_line_that_does_not_repeat_it(start_command: StartCommand) -> None:
    host = settings.RABBITMQ_URL.rpartition("@")[2]

    child = start_command("consume_queue", env={"RABBITMQ_URL": f"amqp://kanikojobs:hush-hush@{host}"})

    assert ended(child) == 1
    assert "CommandError: RabbitMQ refuses the user name or the password. Correct RABBITMQ_URL." in child.log_tail(1)
    assert "hush-hush" not in child.log_tail(1000)
    assert "Traceback" not in child.log_tail(1000)


def test_its_port_serves_its_own_counters_and_its_health(start_command: StartCommand) -> None:
    port = free_port()
    publish_samples(range(20))
    child = start_command("consume_queue", "--metrics-port", str(port))
    eventually(lambda: JobStartEvent.objects.count() == 20)

    name = settings.KANIKOJOBS_QUEUE
    wanted = f'kanikojobs_consumer_messages_total{{outcome="recorded",queue="{name}"}} 20.0'
    eventually(lambda: wanted in http_get(port, "/metrics")[1])
    metrics = http_get(port, "/metrics")[1]
    health = http_get(port, "/health")

    assert "kanikojobs_consumer_rabbitmq_up 1.0" in metrics
    assert "kanikojobs_consumer_database_up 1.0" in metrics
    assert "kanikojobs_consumer_paused 0.0" in metrics
    assert "kanikojobs_consumer_reconnects_total 0.0" in metrics
    for stamp in ("last_message", "last_loop"):
        found = re.search(rf"^kanikojobs_consumer_{stamp}_timestamp_seconds (\S+)$", metrics, re.MULTILINE)
        assert found
        assert 0 < time.time() - float(found[1]) < 60
    assert health[0] == 200
    assert child.running


def test_health_stays_good_while_both_servers_are_away(start_command: StartCommand) -> None:
    port = free_port()
    away = {
        "RABBITMQ_URL": f"amqp://u:p@127.0.0.1:{free_port()}/",
        "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/none",
    }
    child = start_command("consume_queue", "--metrics-port", str(port), env=away)
    eventually(lambda: "rabbitmq-away" in child.log_tail())

    assert http_get(port, "/health")[0] == 200
    assert "kanikojobs_consumer_rabbitmq_up 0.0" in http_get(port, "/metrics")[1]


def test_health_is_bad_once_the_process_is_stopped_in_its_tracks() -> None:
    counts = Counts()
    counts.add(IntakeResult(outcomes=(Outcome.RECORDED, Outcome.DEAD)), queue="jobs")
    port = free_port()
    server = serve(counts, port=port, stalled_after=30)
    try:
        counts.last_loop_at = time.time()
        alive = http_get(port, "/health")
        counts.last_loop_at -= 31
        stalled = http_get(port, "/health")
    finally:
        server.shutdown()
        server.server_close()

    assert alive[0] == 200
    assert (stalled[0], json.loads(stalled[1])["status"]) == (503, "stalled")


MOST_MEMORY_MB = 150


def test_bodies_of_10_mb_do_not_fill_the_memory(start_command: StartCommand) -> None:
    publish_bodies(*[b"%d" % number + b"x" * 10_000_000 for number in range(8)])

    child = start_command("consume_queue")
    eventually(lambda: DeadLetter.objects.count() == 8, seconds=60)

    assert peak_mb(child.pid) < MOST_MEMORY_MB
