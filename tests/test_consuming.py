"""The consumer against a real RabbitMQ and PostgreSQL, while each of them misbehaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings
from django.db import ProgrammingError, connection
from django.test import Client
from pytest_django import Settings

from kanikojobs import amqp, intake, lanes, tallies
from kanikojobs.consuming import Consuming, Refused
from kanikojobs.event_rows import Row, row_of
from kanikojobs.gate import consumer_pulse, gate_of
from kanikojobs.lanes import MOST_BYTES_PER_BATCH, Work
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import DeadLetter, Heartbeat, JobStartEvent, KanikoJob
from tests.consuming import consuming, eventually, publish_bodies, publish_samples, publish_unconfirmed, running
from tests.cuttable import Cuttable
from tests.factories import a_message
from tests.sample_events import sample_event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queues")]


def recorded() -> int:
    return JobStartEvent.objects.count()


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Nobody else can write to the table meanwhile."""
    parts = connection.settings_dict
    with psycopg.connect(
        host=parts["HOST"], port=parts["PORT"], user=parts["USER"], password=parts["PASSWORD"], dbname=parts["NAME"]
    ) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


def disconnect_others() -> None:
    """What a restart of PostgreSQL does to everybody's connections."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def through(proxy: Cuttable) -> str:
    """RABBITMQ_URL by way of the proxy."""
    parts = urlsplit(settings.RABBITMQ_URL)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}").geturl()


def port_of(url: str) -> int:
    return urlsplit(url).port or 5672


def test_a_database_that_is_slow_for_longer_than_the_heartbeat_costs_no_connection() -> None:
    publish_samples(range(30))

    with running(consuming(url=f"{settings.RABBITMQ_URL}?heartbeat=1", batch=10)) as consumer:
        eventually(lambda: consumer.counts.connected)
        with locked("kanikojobs_deadletter, kanikojobs_tally"):
            publish_samples(range(30, 60))
            # RabbitMQ ends a connection from which it has heard nothing for two heartbeats.
            time.sleep(4)
        eventually(lambda: consumer.counts.recorded == 60)

    assert consumer.counts.reconnects == 0
    assert recorded() == 60


def test_lost_database_connections_cost_no_event_and_no_redelivery() -> None:
    with running(consuming(batch=5)) as consumer:
        for start in range(0, 100, 20):
            publish_samples(range(start, start + 20))
            disconnect_others()
        eventually(lambda: recorded() == 100)
        eventually(lambda: consumer.counts.taken == 100)

    assert consumer.counts.reconnects == 0
    assert KanikoJob.objects.count() == 100


def test_a_lost_connection_to_rabbitmq_costs_no_event_and_doubles_none() -> None:
    with (
        Cuttable(to=port_of(settings.RABBITMQ_URL)) as proxy,
        running(consuming(url=through(proxy), batch=5)) as consumer,
    ):
        for start in range(0, 100, 20):
            publish_samples(range(start, start + 20))
            eventually(lambda: consumer.counts.connected)
            proxy.cut()
        eventually(lambda: recorded() == 100)

    assert consumer.counts.reconnects >= 1
    assert KanikoJob.objects.count() == 100


def test_a_deleted_queue_is_declared_anew_and_consumed() -> None:
    with running(consuming()) as consumer:
        eventually(lambda: consumer.granted)
        with amqp.connect(settings.RABBITMQ_URL, name="tests") as link:
            link.channel().queue_delete(settings.KANIKOJOBS_QUEUE)
        eventually(lambda: consumer.counts.reconnects > 0)
        publish_samples(range(3))
        eventually(lambda: recorded() == 3)


def test_two_consumers_and_the_sink_fed_with_the_same_events_record_each_once(client: Client) -> None:
    bodies = [json.dumps(sample_event(number)).encode() for number in range(5000)]
    batches = [b"[" + b",".join(bodies[start : start + 250]) + b"]" for start in range(0, 5000, 250)]

    with running(consuming(batch=100)) as one, running(consuming(batch=100)) as other:
        eventually(lambda: one.granted and other.granted)
        publish_unconfirmed(bodies)
        answers = [client.post("/", batch, content_type="application/cloudevents-batch+json") for batch in batches]
        eventually(lambda: one.counts.taken + other.counts.taken == 5000, seconds=60)

    assert {answer.status_code for answer in answers} == {202}
    assert one.counts.taken
    assert other.counts.taken
    assert recorded() == KanikoJob.objects.count() == 5000
    assert set(JobStartEvent.objects.values_list("times_seen", flat=True)) == {2}
    outcomes = {series: total.count for series, total in tallies.totals(prefix="intake/").items()}
    assert sum(count for series, count in outcomes.items() if series.endswith("/recorded")) == 5000
    assert sum(count for series, count in outcomes.items() if series.endswith("/duplicate")) == 5000


def test_stopping_gives_back_what_is_not_written(depth: Callable[[str], int]) -> None:
    publish_samples(range(40))
    writing, may_go_on = threading.Event(), threading.Event()

    def write(batch: intake.Batch) -> IntakeResult:
        writing.set()
        may_go_on.wait(60)
        return intake.write(batch, origin=JobStartEvent.Origin.QUEUE)

    works = lanes.works(queue=settings.KANIKOJOBS_QUEUE, dlq="", drain_dlq=False)
    slow = {queue: replace(work, write=write) for queue, work in works.items()}
    with running(consuming(queues=slow, batch=1)) as consumer:
        writing.wait(60)
        consumer.stop.set()
        may_go_on.set()

    # What was being written is committed and acknowledged; the rest waits for whoever comes next.
    assert 1 <= consumer.counts.taken < 40
    assert recorded() == consumer.counts.taken
    eventually(lambda: depth(settings.KANIKOJOBS_QUEUE) == 40 - consumer.counts.taken)


def test_stopping_does_not_wait_for_a_database_that_hangs(depth: Callable[[str], int]) -> None:
    publish_samples(range(10))

    with locked("kanikojobs_tally"):
        with running(consuming(batch=10)) as consumer:
            eventually(lambda: depth(settings.KANIKOJOBS_QUEUE) == 0)
        eventually(lambda: depth(settings.KANIKOJOBS_QUEUE) == 10)

    assert consumer.counts.taken == 0


def test_without_a_database_nothing_is_taken(settings: Settings, depth: Callable[[str], int]) -> None:
    publish_samples(range(10))
    with running(consuming(gate=gate_of_a_database_that_is_away)) as consumer:
        eventually(lambda: consumer.counts.connected)
        time.sleep(1.5)
        still_there = depth(settings.KANIKOJOBS_QUEUE)

    assert still_there == 10
    assert not consumer.counts.database_up


def gate_of_a_database_that_is_away(_counts: object) -> bool:
    from django.db import OperationalError

    raise OperationalError("connection refused")


def test_missing_tables_stop_it_before_it_takes_anything(depth: Callable[[str], int]) -> None:
    publish_samples(range(10))
    consumer = consuming(gate=gate_of(consumer_pulse()))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE kanikojobs_jobstartevent RENAME TO away")
    try:
        with pytest.raises(ProgrammingError, match="does not exist"):
            consumer.run()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO kanikojobs_jobstartevent")

    eventually(lambda: depth(settings.KANIKOJOBS_QUEUE) == 10)


def test_it_gives_signs_of_life_and_says_good_bye() -> None:
    pulse = consumer_pulse()

    with running(consuming(gate=gate_of(pulse), farewell=pulse.rest)):
        eventually(lambda: Heartbeat.objects.filter(role=Heartbeat.Role.CONSUMER).exists())

    assert not Heartbeat.objects.exists()


REFUSALS = [
    pytest.param("wrong:wrong@", "", "user name or the password", id="wrong password"),
    pytest.param("", "no-such-host", "virtual host", id="no such virtual host"),
]


@pytest.mark.parametrize(("user", "virtual_host", "words"), REFUSALS)
def test_a_refusal_at_the_start_ends_it_with_a_sentence(user: str, virtual_host: str, words: str) -> None:
    whole = settings.RABBITMQ_URL.removeprefix("amqp://").rstrip("/")
    url = f"amqp://{user}{whole.rpartition('@')[2] if user else whole}/{virtual_host}"

    with pytest.raises(Refused, match=words):
        consuming(url=url, once=True).run()


def test_a_queue_that_is_not_there_ends_it_when_it_may_not_declare() -> None:
    with pytest.raises(Refused, match="declare_topology"):
        consuming(on_connect=lambda _: None, once=True).run()


def test_a_broker_that_is_not_there_yet_is_waited_for() -> None:
    publish_samples(range(3))
    proxy = Cuttable(to=port_of(settings.RABBITMQ_URL))

    with running(consuming(url=through(proxy))) as consumer:
        eventually(lambda: consumer.counts.reconnects >= 2)
        with proxy:
            eventually(lambda: recorded() == 3)


def test_a_batch_ends_at_its_bytes() -> None:
    publish_bodies(*[b"x" * (MOST_BYTES_PER_BATCH // 2 - 1)] * 5, b"x" * (2 * MOST_BYTES_PER_BATCH))
    sizes: list[list[int]] = []

    def write(messages: Sequence[Message]) -> IntakeResult:
        sizes.append([len(message.body) for message in messages])
        return IntakeResult(outcomes=(Outcome.DEAD,) * len(messages))

    work = Work(read=lambda messages: [], pack=lambda messages, _: messages, write=write)
    consuming(queues={settings.KANIKOJOBS_QUEUE: work}, once=True).run()

    assert sum(map(len, sizes)) == 6
    assert all(len(batch) == 1 or sum(batch) <= MOST_BYTES_PER_BATCH for batch in sizes)


BROKEN_JSON = "{"
TOO_DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("data_json", [BROKEN_JSON, TOO_DEEP], ids=["a value it cannot read", "beyond its limits"])
def test_a_value_that_postgres_refuses_spoils_only_its_own_event(data_json: str) -> None:
    messages = [a_message() for _ in range(16)]
    prepared = intake.prepare(messages, origin=JobStartEvent.Origin.QUEUE)
    poisoned = prepared[5]
    assert isinstance(poisoned, Row)
    prepared[5] = row_of(poisoned.event._replace(data_json=data_json))

    result = intake.write(intake.pack(messages, prepared), origin=JobStartEvent.Origin.QUEUE)

    letter = DeadLetter.objects.get()
    assert (result.recorded, result.dead, result.outcomes[5]) == (15, 1, Outcome.DEAD)
    assert letter.ce_id == poisoned.event.event_id
    assert bytes(letter.body) == messages[5].body
    assert "PostgreSQL cannot store it" in letter.reason


def test_once_ends_when_all_is_drained_the_dead_letters_too() -> None:
    publish_samples(range(25))
    publish_bodies(b"{")

    counts = Consuming.run(consuming(once=True))

    assert (counts.recorded, counts.dead) == (25, 1)
