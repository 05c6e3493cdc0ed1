"""No event lost and none twice, whatever is killed: the small round. `make bench CASE=faults` does the large one."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import Sum
from django.test import Client

from deploy.local.postgres import Postgres
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.stack import Given
from kanikojobs.models import JobStartEvent
from tests import intake_faults
from tests.scraped import scrape, value
from tests.stack_plugin import StartCommand, _test_database_url

pytestmark = pytest.mark.django_db(transaction=True)
EVENTS = 1000


def disconnect_everybody() -> None:
    """What a restart does to PostgreSQL's clients, for a server that is not ours to restart."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.usefixtures("queues")
def test_every_confirmed_event_is_recorded_once_whatever_is_killed(
    start_command: StartCommand, postgres: Postgres | Given, rabbitmq: RabbitMQ | Given, client: Client
) -> None:
    call_command("declare_topology")
    database = disconnect_everybody if isinstance(postgres, Given) else postgres.restart
    broker = () if isinstance(rabbitmq, Given) else (rabbitmq.restart,)

    reckoning = intake_faults.run(
        rabbitmq_url=settings.RABBITMQ_URL,
        database_url=_test_database_url(),
        queues=[settings.KANIKOJOBS_QUEUE, settings.KANIKOJOBS_DLQ],
        start_consumer=lambda: start_command("consume_queue", "--prefetch", "200", "--batch", "50"),
        faults=[database, *broker],
        kills=2,
        events=EVENTS,
        seconds=4,
    )
    connections.close_all()

    assert reckoning.faults() == []
    assert len(reckoning.confirmed) == EVENTS
    samples = scrape(client)
    counted = {
        outcome: value(samples, "kanikojobs_intake_messages_total", origin="queue", outcome=outcome)
        for outcome in ("recorded", "duplicate", "dead", "not-ours")
    }
    seen = JobStartEvent.objects.aggregate(times=Sum("times_seen"))["times"]
    assert counted == {"recorded": EVENTS, "duplicate": seen - EVENTS, "dead": 0, "not-ours": 0}
