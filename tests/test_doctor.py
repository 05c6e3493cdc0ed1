"""`manage.py doctor`: each part that is wrong is named in plain words, with what to do, and the exit code tells."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import amqp, checkup, heartbeats
from kanikojobs.models import Heartbeat, PruneRun
from kanikojobs.topology import topology
from tests.database_away import database_away
from tests.deployment import OVERLAYS, of_kind
from tests.test_rights import granted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def house(queues: None, simulator: Simulator, settings: Settings) -> None:
    """Everything is there and well."""
    link = amqp.connect(settings.RABBITMQ_URL, name="tests")
    amqp.declare(link, topology())
    link.close()
    for role in Heartbeat.Role:
        heartbeats.Pulse(role).beat({"leads": True})


def doctor(*arguments: str) -> tuple[str, int]:
    """What it says, and its exit code."""
    said = StringIO()
    try:
        call_command("doctor", *arguments, stdout=said)
    except SystemExit as end:
        return said.getvalue(), int(end.code or 0)
    return said.getvalue(), 0


@pytest.mark.usefixtures("house")
def test_a_house_in_order_is_told_so() -> None:
    said, code = doctor()

    assert "BAD" not in said
    assert code == 0
    for part in ("Postgres: version", "RabbitMQ: has", "would take a Job (tried, none made)", "watcher: 1 running"):
        assert part in said


@pytest.mark.usefixtures("house")
def test_it_changes_nothing(simulator: Simulator) -> None:
    doctor()

    assert simulator.stats()["creates"]["by_identity"] == {}


def no_rabbitmq(settings: Settings, simulator: Simulator) -> None:
    settings.RABBITMQ_URL = "amqp://127.0.0.1:1/"


def no_queue(settings: Settings, simulator: Simulator) -> None:
    settings.KANIKOJOBS_QUEUE = "not-there"


def other_arguments(settings: Settings, simulator: Simulator) -> None:
    settings.KANIKOJOBS_MAX_LENGTH = 5


def a_wrong_url(settings: Settings, simulator: Simulator) -> None:
    settings.RABBITMQ_URL = "rabbitmq"


def no_cluster(settings: Settings, simulator: Simulator) -> None:
    simulator.stop()


def no_kubeconfig(settings: Settings, simulator: Simulator) -> None:
    settings.KUBECONFIG = "/not/there"


def may_not_create(settings: Settings, simulator: Simulator) -> None:
    simulator.deny([{"verb": "create", "resource": "jobs"}])


def may_not_read_logs(settings: Settings, simulator: Simulator) -> None:
    simulator.deny([{"verb": "get", "resource": "pods/log"}])


def wrong_settings(settings: Settings, simulator: Simulator) -> None:
    settings.KANIKOJOBS_DESTINATION = "registry:5000/{unknown}"


def a_silent_watcher(settings: Settings, simulator: Simulator) -> None:
    Heartbeat.objects.filter(role="watcher").delete()


def a_missing_migration(settings: Settings, simulator: Simulator) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_migrations SET name = 'gone' WHERE app = 'kanikojobs' AND name = '0001_initial'")


TROUBLES: list[tuple[Callable[[Settings, Simulator], None], str, str]] = [
    (no_rabbitmq, "RabbitMQ: cannot be used", "Check RABBITMQ_URL"),
    (no_queue, "RabbitMQ: has no queue not-there", "manage.py declare_topology"),
    (other_arguments, "x-max-length is 10000, but the settings ask for 5", "manage.py declare_topology"),
    (a_wrong_url, "RABBITMQ_URL: is not set, or no URL of a broker", "amqp://user:password@host"),
    (no_cluster, "Kubernetes: cannot be used", "the network to the API server"),
    (no_kubeconfig, "Kubernetes: cannot be used: NotConfigured", "Check KUBECONFIG"),
    (may_not_create, "create jobs in kaniko-builds, which workers must", "rbac.yaml"),
    (may_not_read_logs, "get pods/log in kaniko-builds, which watcher and web must", "rbac.yaml"),
    (wrong_settings, "KANIKOJOBS_DESTINATION cannot work", "README"),
    (a_silent_watcher, "watcher: is not running", "manage.py watch_jobs"),
]


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(("trouble", "says", "advises"), TROUBLES, ids=[row[0].__name__ for row in TROUBLES])
def test_what_is_wrong_is_said_with_what_to_do(
    simulator: Simulator,
    settings: Settings,
    trouble: Callable[[Settings, Simulator], None],
    says: str,
    advises: str,
) -> None:
    trouble(settings, simulator)

    said, code = doctor()

    _, _, rest = said[said.index("BAD") :].partition("\n")
    assert says in said
    assert advises in rest
    assert code == 1


@pytest.mark.usefixtures("house")
def test_without_the_database_the_other_parts_are_looked_at_all_the_same() -> None:
    with database_away():
        said, code = doctor()

    assert "Postgres: cannot be used" in said
    assert "RabbitMQ: has" in said
    assert "would take a Job" in said
    assert code == 1


@pytest.mark.usefixtures("house")
def test_a_process_is_judged_by_what_it_needs(simulator: Simulator) -> None:
    simulator.deny([{"verb": "delete", "resource": "jobs"}])

    workers, watcher = doctor("--process", "workers"), doctor("--process", "watcher")

    assert (workers[1], watcher[1]) == (0, 1)
    assert "RabbitMQ: " not in workers[0]


@pytest.mark.usefixtures("house")
def test_where_knative_reads_the_queue_a_missing_consumer_is_only_odd(settings: Settings) -> None:
    settings.KANIKOJOBS_QUEUE_READER = "knative"
    Heartbeat.objects.filter(role="consumer").delete()

    said, code = doctor()

    assert "odd consumer: is not running; Knative reads the queue" in said
    assert code == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_asks_for_exactly_the_rights_that_are_deployed(overlay: str) -> None:
    roles = of_kind(overlay, "Role")

    assert granted(roles["kaniko-job-creator"]) == checkup.CREATING
    assert granted(roles["kaniko-job-watcher"]) == checkup.WATCHING
    assert granted(roles["kaniko-log-reader"]) == checkup.READING_LOGS


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(
    ("days", "says"),
    [
        (0.5, "ok  retention: was finished 0.5 days ago"),
        (4, "odd retention: was finished 4.0 days ago: old rows are not removed"),
    ],
)
def test_it_says_when_old_rows_were_last_pruned(days: float, says: str) -> None:
    PruneRun.objects.create(ongoing=False, finished_at=datetime.now(UTC) - timedelta(days=days))

    said, code = doctor("--process=web")

    assert says in said
    assert code == 0
