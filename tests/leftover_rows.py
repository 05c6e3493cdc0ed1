"""What tests of more than one connection leave in the database is removed by DELETE.

Django truncates every table after such a test, and then writes its content types and permissions anew. With few rows
and many tables that costs a hundred times as much as deleting the rows, and hundreds of tests do it.
"""

from django.db import connection, transaction

from kanikojobs.retention.schedule import keep_schedule

# What `migrate` writes into them and no test changes.
_KEPT = {"django_content_type", "auth_permission"}


def remove_leftover_rows(_test_case: object) -> None:
    """Leaves each table as `migrate` does. Stands in for `TransactionTestCase._fixture_teardown`.

    Like TRUNCATE it waits for whoever is still writing, so that nothing is committed behind its back.
    """
    existing = connection.introspection.django_table_names(only_existing=True, include_views=False)
    tables = [connection.ops.quote_name(table) for table in existing if table not in _KEPT]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
        cursor.execute(";".join(f"DELETE FROM {table}" for table in tables))  # noqa: S608
    keep_schedule()
