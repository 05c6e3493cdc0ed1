"""Statements of the hot paths: prepared, and planned anew before their plans are out of date."""

import psycopg
import pytest
from django.db import ProgrammingError, connection

from kanikojobs import cursors

pytestmark = pytest.mark.django_db

STATEMENT = "SELECT count(*) FROM kanikojobs_kanikojob WHERE id = ANY (%s::bigint[])"


def execute(times: int) -> None:
    for _ in range(times):
        with cursors.binding_cursor() as cursor:
            cursor.execute(STATEMENT, [[1, 2, 3]])


def prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%kanikojobs_kanikojob%'")
        return int(cursor.fetchone()[0])


def test_what_is_executed_again_and_again_is_prepared() -> None:
    execute(times=20)

    assert prepared() == 1


def test_what_is_executed_once_is_not_prepared() -> None:
    execute(times=1)

    assert prepared() == 0


def test_a_plan_that_may_be_out_of_date_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE growing (id bigint PRIMARY KEY) ON COMMIT DROP")
        cursor.execute("INSERT INTO growing VALUES (1), (2)")
        cursor.execute("ANALYZE growing")
        read(times=20)
        cursor.execute("INSERT INTO growing SELECT generate_series(3, 20000)")

    made_for_two_rows = plan()
    monkeypatch.setattr(cursors, "PLANS_LAST", -1.0)
    read(times=1)

    assert ("Seq Scan" in made_for_two_rows, "Seq Scan" in plan()) == (True, False)


def read(times: int) -> None:
    for _ in range(times):
        with cursors.binding_cursor() as cursor:
            cursor.execute("SELECT id FROM growing WHERE id = %s::bigint OR id = 2", [1])


def plan() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%growing%'")
        (name,) = cursor.fetchone()
        cursor.execute(f"EXPLAIN EXECUTE {name} (1)")
        return "\n".join(row[0] for row in cursor.fetchall())


def test_statements_survive_that_plans_are_made_anew_however_seldom_they_are_executed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cursors, "PLANS_LAST", -1.0)
    with cursors.binding_cursor():
        pass

    execute(times=40)

    assert prepared() == 1


def test_the_error_of_a_statement_is_djangos() -> None:
    with pytest.raises(ProgrammingError) as caught, cursors.binding_cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")

    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
