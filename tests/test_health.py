"""What an orchestrator and Prometheus ask: alive, ready, and the metrics behind their token."""

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from tests.database_away import database_away


def test_alive_asks_nobody_else(client: Client) -> None:
    # Without a database fixture: a query would fail this test.
    response = client.get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_ready_when_the_database_has_its_tables(client: Client) -> None:
    response = client.get("/ready")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.django_db
def test_not_ready_without_tables_and_says_what_to_do(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")

    response = client.get("/ready")

    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "detail": "The tables are missing. Run manage.py migrate."}


@pytest.mark.django_db
def test_not_ready_on_the_tables_of_an_older_version(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'kanikojobs' AND name LIKE '0002%'")

    response = client.get("/ready")

    assert response.status_code == 503
    assert response.json()["detail"] == "Migration 0002_operator_action is not applied. Run manage.py migrate."


@pytest.mark.django_db
def test_ready_on_the_tables_of_a_newer_version(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('kanikojobs', '9999_next', now())")

    assert client.get("/ready").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_not_ready_while_the_database_is_away_and_ready_when_it_is_back(client: Client) -> None:
    with database_away():
        away, alive = client.get("/ready"), client.get("/health")
    back = client.get("/ready")

    assert away.status_code == 503
    assert away.json() == {"status": "not ready", "detail": "The database is away."}
    assert alive.status_code == 200
    assert back.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_has_ended_does_not_stay_not_ready(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
    connection.connection.close()

    first, second = client.get("/ready"), client.get("/ready")

    assert (first.status_code, second.status_code) == (503, 200)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic t0ken", 401),
        ("t0ken", 401),
        ("Bearer t0kén", 401),
        ("Bearer t0ken", 200),
        ("bearer  t0ken ", 200),
    ],
)
def test_metrics_are_for_who_has_the_token(
    client: Client, settings: Settings, authorization: str | None, status: int
) -> None:
    settings.KANIKOJOBS_METRICS_TOKEN = "t0ken"

    response = client.get("/metrics", headers={"authorization": authorization} if authorization else {})

    assert response.status_code == status
    assert (b"kaniko_job_creation_success_total" in response.content) == (status == 200)
    assert ("WWW-Authenticate" in response) == (status == 401)


@pytest.mark.django_db
def test_metrics_are_for_everybody_where_no_token_is_set(client: Client) -> None:
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_they_only_read(client: Client, path: str, method: str) -> None:
    assert getattr(client, method)(path).status_code == 405
