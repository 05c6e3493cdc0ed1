"""Which migrations can be applied while the version before them runs on: squawk's rules for PostgreSQL.

The new tables are there before the new code is, and while one replaces the other both write: so nothing may go or
change its name that the old code uses, nothing may be demanded that it does not write, and no statement may lock a
large table for as long as it takes to read it. The README's section "Upgrades" says what to write instead.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

# Before the first release nobody has old code, so whatever is a part of it is exempt. Raised with each migration until
# then, and never after it.
BEFORE_THE_FIRST_RELEASE = 18

# What squawk asks for and we do not, with the reason.
NOT_ASKED_FOR = {
    "prefer-robust-stmts": "Django records which migrations were applied, and runs each in a transaction",
    "prefer-bigint-over-int": "the types are chosen in the models",
    "prefer-bigint-over-smallint": "the types are chosen in the models",
    "prefer-identity": "Django makes identity columns",
    "prefer-text-field": "the lengths are what the senders were promised",
    "prefer-timestamptz": "Django makes no others",
    "require-lock-timeout": "the migration Job sets it for all statements (base/builder/migrate.yaml)",
    "require-statement-timeout": "an index that is built concurrently may take long and blocks nobody",
}

# Migrations that may break a rule: for each the rules, and why that is safe.
ALLOWED: dict[str, dict[str, str]] = {}

SQUAWK = Path(sys.executable).parent / "squawk"


def broken_rules(sql: str, *, atomic: bool) -> set[str]:
    """The rules that some SQL breaks; `atomic` says whether it runs in one transaction."""
    arguments = [str(SQUAWK), "--reporter=json", "--pg-version=14", f"--exclude={','.join(NOT_ASKED_FOR)}"]
    if atomic:
        arguments.append("--assume-in-transaction")
    done = subprocess.run(arguments, input=sql, capture_output=True, text=True, timeout=60)
    try:
        return {found["rule_name"] for found in json.loads(done.stdout)}
    except ValueError:
        raise RuntimeError(f"squawk ended with {done.returncode}: {done.stderr or done.stdout}") from None


def sql_of(migration: Migration, *, state: ProjectState) -> str:
    """What Django would send to PostgreSQL for a migration, from the state before it."""
    # A connection of its own: an index is built concurrently outside of a transaction only, and a test has one open.
    unused = connection.copy()
    try:
        with unused.schema_editor(collect_sql=True, atomic=False) as editor:
            migration.apply(state.clone(), editor, collect_sql=True)
            for statement in editor.deferred_sql:
                editor.execute(statement, None)
            editor.deferred_sql.clear()
        return "\n".join(editor.collected_sql)
    finally:
        unused.close()


def migration_of(operations: Sequence[Operation], *, atomic: bool) -> Migration:
    """A migration with these operations, as a module of migrations would have it."""
    return type("Tried", (Migration,), {"operations": list(operations), "atomic": atomic})("tried", "kanikojobs")


def later_migrations() -> dict[str, tuple[Migration, ProjectState]]:
    """The migrations that are no part of the first release, each with the state before it."""
    loader = MigrationExecutor(connection).loader
    found = {}
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if app == "kanikojobs" and int(name.partition("_")[0]) > BEFORE_THE_FIRST_RELEASE:
            found[name] = (migration, loader.project_state((app, name), at_end=False))
    return found
