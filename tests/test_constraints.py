"""Rows that cannot be: each constraint refuses what it is there for, past the ORM."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models

from kanikojobs.models import (
    BuildProfile,
    ContainerLog,
    Drift,
    FailureGroupHour,
    JobEvidence,
    OperatorAction,
    PruneRun,
)
from tests.factories import (
    a_dead_letter,
    a_failure_group,
    a_kaniko_job,
    a_replay_item,
    a_replay_rule,
    a_replay_run,
    an_attempt,
    an_event,
)

pytestmark = pytest.mark.django_db

NOW = "clock_timestamp()"
UUID = "gen_random_uuid()"
LEASE = f"claim = {UUID}, leased_until = {NOW}"


@dataclass(frozen=True, slots=True)
class Case:
    """`change` is the SET of an UPDATE that makes the row of `table`, in `state` if it has one, an impossible one.

    `without` names a constraint that would refuse the same row first and is taken away for the test.
    """

    constraint: str
    table: str
    change: str
    state: str = "queued"
    without: str = ""


CASES = [
    Case("event_identity_not_empty", "jobstartevent", "source = ''"),
    Case("event_identity_not_empty", "jobstartevent", "event_id = ''"),
    Case("event_identity_not_empty", "jobstartevent", "type = ''"),
    Case("event_priority_1_to_10", "jobstartevent", "priority = 0"),
    Case("event_priority_1_to_10", "jobstartevent", "priority = 11"),
    Case("event_build_timeout_at_least_1s", "jobstartevent", "build_timeout = 0"),
    Case("event_origin_known", "jobstartevent", "origin = 'pigeon'"),
    Case("event_times_seen_at_least_1", "jobstartevent", "times_seen = 0"),
    Case("event_other_way_has_a_first", "jobstartevent", f"origin = 'replay', other_way_at = {NOW}"),
    Case("kanikojob_number_at_least_1", "kanikojob", "number = 0"),
    Case("kanikojob_state_known", "kanikojob", "state = 'paused'", without="kanikojob_finished_has_its_time"),
    Case("kanikojob_state_known", "kanikojob", "state = ''", without="kanikojob_finished_has_its_time"),
    Case("kanikojob_finished_has_its_time", "kanikojob", "state = 'paused'"),
    Case("kanikojob_finished_has_its_time", "kanikojob", "state = 'failed'"),
    Case("kanikojob_finished_has_its_time", "kanikojob", "state = 'cancelled'"),
    Case("kanikojob_finished_has_its_time", "kanikojob", "finished_at = NULL", "succeeded"),
    Case("kanikojob_finished_has_its_time", "kanikojob", f"finished_at = {NOW}"),
    Case("kanikojob_finished_has_its_time", "kanikojob", f"finished_at = {NOW}", "running"),
    Case("kanikojob_created_has_a_uid", "kanikojob", "state = 'created'"),
    Case("kanikojob_created_has_a_uid", "kanikojob", "state = 'running'"),
    Case("kanikojob_created_has_a_uid", "kanikojob", f"state = 'succeeded', finished_at = {NOW}"),
    Case("kanikojob_created_has_a_uid", "kanikojob", "job_uid = NULL", "running"),
    Case("kanikojob_creating_is_leased", "kanikojob", "state = 'creating'"),
    Case("kanikojob_creating_is_leased", "kanikojob", "claim = NULL", "creating"),
    Case("kanikojob_creating_is_leased", "kanikojob", "leased_until = NULL", "creating"),
    Case("kanikojob_creating_is_leased", "kanikojob", "state = 'queued'", "creating"),
    Case("kanikojob_creating_is_leased", "kanikojob", LEASE, "created"),
    Case("kanikojob_creating_is_leased", "kanikojob", LEASE, "failed"),
    Case("kanikojob_only_queued_waits", "kanikojob", f"run_at = {NOW}", "creating"),
    Case("kanikojob_only_queued_waits", "kanikojob", f"run_at = {NOW}", "failed"),
    Case("kanikojob_who_waits_is_queued", "kanikojob", "waits_for_id = id", "creating"),
    Case("kanikojob_who_waits_is_queued", "kanikojob", "waits_for_id = id", "running"),
    Case("kanikojob_priority_1_to_10", "kanikojob", "priority = 0"),
    Case("kanikojob_priority_1_to_10", "kanikojob", "priority = 11"),
    Case("kanikojob_name_not_empty", "kanikojob", "name = ''"),
    Case("attempt_number_at_least_1", "jobattempt", "number = 0"),
    Case("attempt_outcome_known", "jobattempt", f"outcome = 'shrugged', finished_at = {NOW}"),
    Case("attempt_finished_has_its_time", "jobattempt", "outcome = 'created'"),
    Case("attempt_finished_has_its_time", "jobattempt", f"finished_at = {NOW}"),
    Case("attempt_duration_not_negative", "jobattempt", "duration = -0.001"),
    Case("deadletter_cause_known", "deadletter", "cause = 'boredom'"),
    Case("deadletter_state_known", "deadletter", "state = 'lost'"),
    Case("deadletter_times_seen_at_least_1", "deadletter", "times_seen = 0"),
    Case("deadletter_dies_forward_in_time", "deadletter", "last_died_at = first_died_at - interval '1 second'"),
    Case("evidence_digest_is_one", "jobevidence", "image_digest = 'sha256:short'"),
    Case("drift_kind_known", "drift", "kind = 'Lonely'"),
    Case("failuregroup_state_known", "failuregroup", "state = 'ignored'"),
    Case("failuregroup_counts_not_negative", "failuregroup", "deaths = -1"),
    Case("failuregroup_counts_not_negative", "failuregroup", "open_letters = -1"),
    Case("operatoraction_kind_known", "operatoraction", "kind = 'shrug'"),
    Case("operatoraction_via_known", "operatoraction", "via = 'telepathy'"),
    Case("operatoraction_says_who_and_why", "operatoraction", "by = ''"),
    Case("operatoraction_says_who_and_why", "operatoraction", "reason = ''"),
    Case("buildprofile_names_its_third_party", "buildprofile", "third_party_id = ''"),
    Case("outage_ended_has_its_time", "outage", "ongoing = false"),
    Case("outage_ended_has_its_time", "outage", f"ended_at = {NOW}"),
    Case("prunerun_finished_has_its_time", "prunerun", "ongoing = false"),
    Case("prunerun_finished_has_its_time", "prunerun", f"finished_at = {NOW}"),
    Case("replayitem_outcome_known", "replayitem", f"outcome = 'shrugged', at = {NOW}"),
    Case("replayitem_handled_has_its_time", "replayitem", "outcome = 'queued'"),
    Case("replayitem_handled_has_its_time", "replayitem", f"at = {NOW}"),
    Case("replayitem_result_known", "replayitem", "result = 'perhaps'"),
    Case("replayrule_is_bounded", "replayrule", "rate = 0"),
    Case("replayrule_is_bounded", "replayrule", "most_times = 1"),
    Case("replayrule_is_bounded", "replayrule", "max_failure_rate = 101"),
    Case("replayrule_says_who_and_why", "replayrule", "made_by = ''"),
    Case("replayrule_says_who_and_why", "replayrule", "reason = ''"),
    Case("replayrun_state_known", "replayrun", "state = 'lost'"),
    Case("replayrun_finished_has_its_time", "replayrun", "state = 'finished'"),
    Case("replayrun_finished_has_its_time", "replayrun", f"finished_at = {NOW}"),
    Case("replayrun_says_who_and_why", "replayrun", "author_name = ''"),
    Case("replayrun_says_who_and_why", "replayrun", "reason = ''"),
    Case("replayrun_rate_above_0", "replayrun", "rate = 0"),
    Case("replayrun_batch_at_least_1", "replayrun", "batch = 0"),
    Case("tally_never_negative", "tally", "count = -1"),
    Case("tally_span_known", "tally", "span = 'week'"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.constraint}: {case.change} from {case.state}")
def test_an_impossible_row_is_refused(case: Case) -> None:
    if case.without:
        execute(f"ALTER TABLE kanikojobs_{case.table} DROP CONSTRAINT {case.without}")
    match case.table:
        case "jobstartevent":
            id = an_event().pk
        case "kanikojob":
            id = a_kaniko_job(state=case.state).pk
        case "jobattempt":
            id = an_attempt().pk
        case "deadletter":
            id = a_dead_letter().pk
        case "jobevidence":
            id = JobEvidence.objects.create(kaniko_job=a_kaniko_job(state="running")).pk
        case "drift":
            id = Drift.objects.create(kind=Drift.Kind.NO_ROW, namespace="builds", name="a-job").pk
        case "outage":
            id = execute("INSERT INTO kanikojobs_outage (reason) VALUES ('ConnectionFailed') RETURNING id")
        case "heartbeat":
            id = execute("INSERT INTO kanikojobs_heartbeat (role, instance) VALUES ('consumer', 'host/1') RETURNING id")
        case "buildprofile":
            id = BuildProfile.objects.create(third_party_id="somebody").pk
        case "failuregroup":
            id = a_failure_group().pk
        case "operatoraction":
            id = OperatorAction.objects.create(kind="discard", by="an-operator", via="api", reason="Not needed.").pk
        case "prunerun":
            id = PruneRun.objects.create().pk
        case "replayitem":
            id = a_replay_item().pk
        case "replayrule":
            id = a_replay_rule().pk
        case "replayrun":
            id = a_replay_run().pk
        case "tally":
            id = a_tally()

    with pytest.raises(IntegrityError) as refusal:
        execute(f"UPDATE kanikojobs_{case.table} SET {case.change} WHERE id = %s", id)  # noqa: S608

    assert constraint_of(refusal.value) == case.constraint


@dataclass(frozen=True, slots=True)
class Twin:
    """`copied` and `changed` make a second row of the first, alike in all that the constraint is about."""

    constraint: str
    table: str
    changed: str


NAME_ONCE = "kanikojob_kubernetes_name_once"

# Each copy differs from its original in whatever another unique constraint is about.
TWINS = [
    Twin("event_identity", "jobstartevent", ""),
    Twin("kanikojob_number_once_per_event", "kanikojob", "name = name || '-2', number = number"),
    Twin(NAME_ONCE, "kanikojob", "number = 2"),
    Twin("kanikojob_one_unfinished_per_event", "kanikojob", "name = name || '-2', number = 2"),
    Twin("kanikojob_line_has_one_head", "kanikojob", "name = name || '-2', event_id = event_id + 1"),
    Twin("kanikojob_one_follower", "kanikojob", "name = name || '-2', event_id = event_id + 1"),
    Twin("attempt_number_once_per_kanikojob", "jobattempt", ""),
    Twin("deadletter_open_once", "deadletter", ""),
    Twin("containerlog_once", "containerlog", ""),
    Twin("drift_found_once", "drift", ""),
    Twin("failuregroup_once", "failuregroup", ""),
    Twin("failuregrouphour_once", "failuregrouphour", ""),
    Twin("replayitem_position_once", "replayitem", "outcome = 'queued', at = now()"),
    Twin("replayitem_letter_waits_in_one_run", "replayitem", "position = 2"),
    Twin("replayrule_name_once", "replayrule", ""),
    Twin("outage_one_at_a_time", "outage", ""),
    Twin("prunerun_one_at_a_time", "prunerun", ""),
    Twin("heartbeat_one_row_per_process", "heartbeat", ""),
    Twin("tally_one_row_per_span_and_shard", "tally", ""),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.constraint)
def test_a_second_row_of_what_can_be_only_once_is_refused(twin: Twin) -> None:
    match twin.table:
        case "jobstartevent":
            id = an_event().pk
        case "kanikojob":
            # Only one of two unfinished ones of an event would be refused for being that.
            state = "failed" if twin.constraint in ("kanikojob_number_once_per_event", NAME_ONCE) else "queued"
            before = a_kaniko_job() if twin.constraint == "kanikojob_one_follower" else None
            id = a_kaniko_job(state=state, place=1, waits_for=before).pk
        case "jobattempt":
            id = an_attempt().pk
        case "deadletter":
            id = a_dead_letter().pk
        case "containerlog":
            id = ContainerLog.objects.create(kaniko_job=a_kaniko_job(), pod="a-job-x", container="kaniko", text="").pk
        case "drift":
            id = Drift.objects.create(kind=Drift.Kind.NO_ROW, namespace="builds", name="a-job").pk
        case "outage":
            id = execute("INSERT INTO kanikojobs_outage (reason) VALUES ('ConnectionFailed') RETURNING id")
        case "heartbeat":
            id = execute("INSERT INTO kanikojobs_heartbeat (role, instance) VALUES ('consumer', 'host/1') RETURNING id")
        case "failuregroup":
            id = a_failure_group().pk
        case "failuregrouphour":
            id = FailureGroupHour.objects.create(group=a_failure_group(), hour=datetime.now(UTC)).pk
        case "prunerun":
            id = PruneRun.objects.create().pk
        case "replayitem":
            id = a_replay_item().pk
        case "replayrule":
            id = a_replay_rule().pk
        case "tally":
            id = a_tally()

    with pytest.raises(IntegrityError) as refusal:
        copy_row(twin.table, id, twin.changed)

    assert constraint_of(refusal.value) == twin.constraint


@pytest.mark.parametrize("state", ["failed", "cancelled", "succeeded"])
def test_a_finished_kaniko_job_leaves_room_for_the_next_number(state: str) -> None:
    finished = a_kaniko_job(state=state)

    following = a_kaniko_job(event=finished.event, number=2)

    assert list(finished.event.kaniko_jobs.order_by("number")) == [finished, following]


@pytest.mark.parametrize("change", [{"state": "discarded"}, {"state": "replayed"}])
def test_a_closed_dead_letter_leaves_room_for_the_same_message(change: dict[str, str]) -> None:
    closed = a_dead_letter(body=b"same", **change)

    again = a_dead_letter(body=b"same")

    assert closed.pk != again.pk


def test_a_kaniko_job_that_failed_before_it_was_created_needs_no_uid() -> None:
    failed = a_kaniko_job(state="failed")

    assert failed.job_uid is None


def test_every_constraint_of_the_models_has_a_case_here() -> None:
    declared = {
        constraint.name: constraint
        for model in apps.get_app_config("kanikojobs").get_models()
        for constraint in model._meta.constraints
    }

    checks = {name for name, constraint in declared.items() if isinstance(constraint, models.CheckConstraint)}
    uniques = {name for name, constraint in declared.items() if isinstance(constraint, models.UniqueConstraint)}

    assert checks | uniques == declared.keys()
    assert {case.constraint for case in CASES} == checks
    assert {twin.constraint for twin in TWINS} == uniques


def a_tally() -> int:
    return execute(
        "INSERT INTO kanikojobs_tally (span, since, series, shard) "
        "VALUES ('all', 'epoch', 'creation/created', 0) RETURNING id"
    )


def copy_row(table: str, id: int, changes: str) -> None:
    """Insert the row again under another primary key, with `name = expression, …` as changes."""
    columns = [
        column
        for column in (field.column for field in apps.get_model("kanikojobs", table)._meta.concrete_fields)
        if column != "id"
    ]
    values = dict(zip(columns, columns, strict=True))
    for change in filter(None, changes.split(", ")):
        name, expression = change.split(" = ")
        values[name] = expression
    execute(
        f"INSERT INTO kanikojobs_{table} ({', '.join(values)}) SELECT {', '.join(values.values())} "  # noqa: S608
        f"FROM kanikojobs_{table} WHERE id = %s RETURNING id",
        id,
    )


def execute(sql: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0] if cursor.description else None


def constraint_of(error: IntegrityError) -> str | None:
    """The name that PostgreSQL itself gives."""
    return error.__cause__.diag.constraint_name  # type: ignore[union-attr]
