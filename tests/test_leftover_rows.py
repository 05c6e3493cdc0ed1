"""A test that commits leaves nothing to the next one, and takes nothing from it."""

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django_q.models import Schedule

from tests.factories import a_kaniko_job
from tests.leftover_rows import remove_leftover_rows


@pytest.mark.django_db(transaction=True)
def test_the_tables_are_as_migrate_left_them() -> None:
    remove_leftover_rows(None)
    before = _counts()
    a_kaniko_job()
    User.objects.create_user("somebody")
    Schedule.objects.all().delete()
    assert _counts() != before

    remove_leftover_rows(None)

    assert _counts() == before
    assert Schedule.objects.count() == 1
    assert before["auth_permission"] > 0


def _counts() -> dict[str, int]:
    """How many rows each table has."""
    with transaction.atomic(), connection.cursor() as cursor:
        counts = {}
        for table in connection.introspection.table_names():
            cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608
            counts[table] = cursor.fetchone()[0]
    return counts
