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
    execute(times=20)

    monkeypatch.setattr(cursors, "PLANS_LAST", -1.0)
    execute(times=1)

    assert prepared() == 0


def test_the_error_of_a_statement_is_djangos() -> None:
    with pytest.raises(ProgrammingError) as caught, cursors.binding_cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")

    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
