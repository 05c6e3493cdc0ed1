"""Migrations can be applied while the version before them runs on, and the rules that say so find what breaks them."""

from collections.abc import Sequence

import pytest
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently, ValidateConstraint
from django.db import connection, models
from django.db.migrations import operations as migrations
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import Q
from django.db.models.functions import Now

from tests.deployment import of_kind
from tests.migration_rules import (
    ALLOWED,
    BEFORE_THE_FIRST_RELEASE,
    broken_rules,
    later_migrations,
    migration_of,
    sql_of,
)

pytestmark = pytest.mark.django_db

EVENT, JOB = "JobStartEvent", "KanikoJob"
CHECK = models.CheckConstraint(condition=Q(priority__lte=5), name="tried")
INDEX = models.Index(fields=["subject"], name="tried")
UNIQUE = models.UniqueConstraint(fields=["subject"], name="tried")

UNSAFE: dict[str, tuple[Sequence[Operation], set[str]]] = {
    "a column that the old code does not write": (
        [migrations.AddField(EVENT, "region", models.CharField(max_length=8, default=""))],
        {"ban-drop-default"},
    ),
    "an index that blocks writes": ([migrations.AddIndex(EVENT, INDEX)], {"require-concurrent-index-creation"}),
    "a constraint that reads the table": ([migrations.AddConstraint(EVENT, CHECK)], {"constraint-missing-not-valid"}),
    "a unique constraint that builds its index": (
        [migrations.AddConstraint(EVENT, UNIQUE)],
        {"disallowed-unique-constraint", "constraint-missing-not-valid"},
    ),
    "a foreign key that reads the table": (
        [migrations.AddField(JOB, "retried", models.ForeignKey(f"kanikojobs.{JOB}", models.SET_NULL, null=True))],
        {"adding-foreign-key-constraint"},
    ),
    "a column less": ([migrations.RemoveField(EVENT, "subject")], {"ban-drop-column"}),
    "a table less": ([migrations.DeleteModel("Turn")], {"ban-drop-table"}),
    "another name of a column": ([migrations.RenameField(EVENT, "subject", "topic")], {"renaming-column"}),
    "another name of a table": ([migrations.RenameModel("Turn", "Round")], {"renaming-table"}),
    "another type": (
        [migrations.AlterField(JOB, "node", models.IntegerField())],
        {"changing-column-type"},
    ),
    "a column that must be there now": (
        [migrations.AlterField(EVENT, "time", models.DateTimeField(db_default=Now()))],
        {"adding-not-nullable-field"},
    ),
    "an index less, for which everybody waits": (
        [migrations.RemoveIndex(EVENT, "event_of_parser")],
        {"require-concurrent-index-deletion"},
    ),
}

SAFE: dict[str, tuple[Sequence[Operation], bool]] = {
    "a column with a default in the database": (
        [migrations.AddField(EVENT, "region", models.CharField(max_length=8, db_default=""))],
        True,
    ),
    "a column that may be empty": ([migrations.AddField(EVENT, "region", models.IntegerField(null=True))], True),
    "an index that is built beside the work": ([AddIndexConcurrently(EVENT, INDEX)], False),
    "a constraint for what is new": ([AddConstraintNotValid(EVENT, CHECK)], True),
    "the look at what was there before": ([ValidateConstraint(EVENT, "event_priority_1_to_10")], True),
    "a table": (
        [
            migrations.CreateModel(
                "Round",
                [
                    ("id", models.BigAutoField(primary_key=True)),
                    ("number", models.IntegerField(unique=True)),
                ],
                options={"indexes": [models.Index(fields=["number", "id"], name="tried")]},
            )
        ],
        True,
    ),
    "a column that is only forgotten": (
        [migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField(EVENT, "subject")])],
        True,
    ),
}


def now() -> ProjectState:
    return MigrationExecutor(connection).loader.project_state()


@pytest.mark.parametrize("what", UNSAFE)
def test_what_the_old_code_would_not_survive_is_found(what: str) -> None:
    operations, rules = UNSAFE[what]
    sql = sql_of(migration_of(operations, atomic=True), state=now())

    assert rules <= broken_rules(sql, atomic=True), sql


@pytest.mark.parametrize("what", SAFE)
def test_what_the_old_code_survives_is_let_through(what: str) -> None:
    operations, atomic = SAFE[what]
    sql = sql_of(migration_of(operations, atomic=atomic), state=now())

    assert broken_rules(sql, atomic=atomic) == set(), sql


def test_every_migration_after_the_first_release_can_be_applied_beside_the_version_before_it() -> None:
    for name, (migration, state) in later_migrations().items():
        sql = sql_of(migration, state=state)
        broken = broken_rules(sql, atomic=migration.atomic)
        assert broken == set(ALLOWED.get(name, {})), (
            f"{name}\n{sql}\nWrite it as the README's section Upgrades says; or, if nothing was released yet, "
            f"raise BEFORE_THE_FIRST_RELEASE, now {BEFORE_THE_FIRST_RELEASE}."
        )


def test_what_was_allowed_is_there() -> None:
    assert ALLOWED.keys() <= later_migrations().keys()


def test_the_migration_job_waits_for_no_lock_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = of_kind("prod", "Job").values()
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (options,) = (variable["value"] for variable in variables if variable["name"] == "PGOPTIONS")
    monkeypatch.setenv("PGOPTIONS", options)

    as_there = connection.copy()
    try:
        with as_there.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            assert cursor.fetchone() == ("10s",)
    finally:
        as_there.close()
