"""Retention: what is old and needed by nobody goes, all else stays, and killing it at any moment does no harm."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from threading import Event, Thread
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, models, transaction
from pytest_django import Settings

from kanikojobs import intake, pausing, retry, tallies
from kanikojobs.audit import Author
from kanikojobs.models import (
    ContainerLog,
    DeadLetter,
    Drift,
    FailureGroupHour,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    Outage,
    OutcomeEvent,
    PruneRun,
    ReplayRun,
    Tally,
)
from kanikojobs.replay import disposal
from kanikojobs.replay.selection import Selection
from kanikojobs.retention import pruning
from kanikojobs.retention.kinds import KINDS, NAMES
from kanikojobs.retention.pruning import Batch
from tests.factories import (
    a_dead_letter,
    a_failure_group,
    a_kaniko_job,
    a_message,
    a_replay_item,
    a_replay_run,
)
from tests.old_rows import (
    a_built_event,
    a_failed_event,
    ago,
    an_old_event,
    jobs_without_all_of_their_rows,
    many_built_events,
    row_counts,
)
from tests.sample_events import sample_event
from tests.stack_plugin import StartCommand

pytestmark = pytest.mark.django_db

AN_OPERATOR = Author(name="an-operator", via=OperatorAction.Via.COMMAND)


def prune() -> dict[str, int]:
    """A whole run, without pauses; what it removed."""
    run = pruning.begin()
    assert pruning.prune(share=100)
    run.refresh_from_db()
    return dict(run.removed)


def total_removed() -> Counter[str]:
    return sum((Counter(run.removed) for run in PruneRun.objects.all()), Counter())


# --- What goes ------------------------------------------------------------------------------------------------------


def test_an_old_event_goes_with_all_that_was_written_of_it() -> None:
    a_built_event(days=100)
    young = a_built_event(days=1)

    removed = prune()

    assert removed == {"events": 1, "kaniko-jobs": 1, "attempts": 1, "evidence": 1, "logs": 1, "outbox": 1}
    assert JobStartEvent.objects.get() == young
    assert set(row_counts().values()) == {0, 1}


def test_logs_attempts_and_the_outbox_may_go_before_their_event() -> None:
    a_built_event(days=45)

    removed = prune()

    assert removed == {"attempts": 1, "logs": 1, "outbox": 1}
    assert KanikoJob.objects.count() == 1


def test_a_settled_dead_letter_goes_with_its_items_and_then_its_event_does() -> None:
    letter = a_failed_event(state="replayed", settled_at=ago(95))
    run = a_replay_run(state="finished", finished_at=ago(95), started_at=ago(95))
    a_replay_item(run=run, letter=letter, outcome="queued", at=ago(95), event=letter.event)

    removed = prune()

    assert removed == {"dead-letters": 1, "replay-items": 1, "events": 1, "kaniko-jobs": 1, "attempts": 1}
    assert ReplayRun.objects.get() == run


def test_a_replayed_letter_that_is_younger_than_its_event_stays_and_forgets_it() -> None:
    letter = a_failed_event(state="replayed", settled_at=ago(1))

    removed = prune()

    letter.refresh_from_db()
    assert removed["events"] == 1
    assert (letter.event, letter.kaniko_job) == (None, None)


def test_the_small_tables_are_pruned_by_the_age_of_the_audit() -> None:
    old_group = a_failure_group(first_seen_at=ago(800), last_seen_at=ago(800))
    FailureGroupHour.objects.create(group=old_group, hour=ago(10), deaths=1)
    a_replay_run(state="cancelled", started_at=ago(800), finished_at=ago(800))
    Outage.objects.create(ongoing=False, reason="away", started_at=ago(800), ended_at=ago(800))
    OperatorAction.objects.create(kind="discard", by="somebody", via="admin", reason="Old.", at=ago(800))
    PruneRun.objects.create(ongoing=False, started_at=ago(800), finished_at=ago(800))

    removed = prune()

    assert removed == {
        "failure-groups": 1,
        "trends": 1,
        "replays": 1,
        "outages": 1,
        "audit": 1,
        "prune-runs": 1,
    }


# --- What stays -----------------------------------------------------------------------------------------------------


def unfinished_job() -> models.Model:
    event = a_built_event()
    a_kaniko_job(event=event, number=2, state="queued", queued_at=ago(100))
    return event


def young_end() -> models.Model:
    event = an_old_event()
    a_kaniko_job(event=event, state="succeeded", queued_at=ago(100), finished_at=ago(2))
    return event


def seen_again_lately() -> models.Model:
    return an_old_event(last_seen_at=ago(2))


def open_letter() -> models.Model:
    return a_failed_event().event  # type: ignore[return-value]


def discarded_lately() -> models.Model:
    return a_failed_event(state="discarded", settled_at=ago(2)).event  # type: ignore[return-value]


def open_letter_that_only_names_it() -> models.Model:
    """Such as a second copy of its message, which expired in the queue."""
    event = an_old_event()
    a_dead_letter(cause="expired", ce_source=event.source, ce_id=event.event_id, first_died_at=ago(99))
    return event


def outcome_not_told() -> models.Model:
    event = an_old_event()
    job = a_kaniko_job(event=event, state="succeeded", queued_at=ago(100), finished_at=ago(100))
    OutcomeEvent.objects.create(kaniko_job=job, made_at=ago(100))
    return event


@pytest.mark.parametrize(
    "needed",
    [
        unfinished_job,
        young_end,
        seen_again_lately,
        open_letter,
        discarded_lately,
        open_letter_that_only_names_it,
        outcome_not_told,
    ],
)
def test_an_old_event_stays_while_somebody_needs_it(needed: Callable[[], models.Model]) -> None:
    event = needed()

    removed = prune()

    assert removed.keys() <= {"attempts", "logs", "outbox"}
    assert list(JobStartEvent.objects.all()) == [event]


def test_an_open_dead_letter_keeps_what_explains_it() -> None:
    letter = a_failed_event(days=1000)
    assert letter.kaniko_job is not None
    ContainerLog.objects.create(
        kaniko_job=letter.kaniko_job, pod="p", container="c", text="ERROR", captured_at=ago(1000)
    )

    assert prune() == {}


def test_a_letter_in_an_unfinished_replay_stays() -> None:
    letter = a_failed_event(state="replayed", settled_at=ago(95))
    a_replay_item(run=a_replay_run(state="settling"), letter=letter, outcome="queued", at=ago(95))

    prune()

    assert DeadLetter.objects.get() == letter


def test_the_last_word_on_consuming_stays_however_old_it_is() -> None:
    pausing.pause(author=AN_OPERATOR, reason="Migrating.")
    pausing.resume(author=AN_OPERATOR, reason="Done.")
    pausing.pause(author=AN_OPERATOR, reason="Again.")
    OperatorAction.objects.update(at=ago(2000))

    removed = prune()

    assert removed == {"audit": 2}
    assert pausing.current().paused


def test_drift_without_a_row_goes_by_itself_and_with_one_stays_with_it() -> None:
    job = a_kaniko_job(state="running")
    Drift.objects.create(kind="JobVanished", namespace="builds", name="a", kaniko_job=job, found_at=ago(200))
    Drift.objects.create(kind="NoRow", namespace="builds", name="b", found_at=ago(200))

    removed = prune()

    assert removed == {"drift": 1}
    assert Drift.objects.get().kind == "JobVanished"


def test_what_is_kept_for_ever_stays(settings: Settings) -> None:
    for name in ("EVENTS", "ATTEMPTS", "LOGS", "DEAD_LETTERS", "OUTBOX", "TALLIES", "AUDIT"):
        setattr(settings, f"KANIKOJOBS_KEEP_{name}", timedelta())
    a_built_event(days=3000)
    a_failed_event(days=3000, state="discarded", settled_at=ago(3000))

    assert prune() == {}


def test_counters_do_not_go_backwards() -> None:
    tallies.add(tallies.counts({"intake/queue/recorded": 7, "creation/created": 5}))
    Tally.objects.exclude(span="all").update(since=ago(1000))
    before = tallies.totals(prefix="")

    removed = prune()

    after = tallies.totals(prefix="")
    assert removed["tallies"] == 4
    assert set(Tally.objects.exclude(series__startswith="pruned/").values_list("span", flat=True)) == {"all"}
    assert {series: after[series] for series in before} == before
    assert after["pruned/tallies"].count == 4


def test_a_message_that_comes_again_while_its_event_is_kept_is_still_a_duplicate() -> None:
    message = a_message(sample_event(1))
    intake.record([message], origin=JobStartEvent.Origin.QUEUE)
    KanikoJob.objects.update(state="succeeded", job_uid="0" * 32, finished_at=ago(89), queued_at=ago(89))
    JobStartEvent.objects.update(received_at=ago(89), last_seen_at=ago(89))
    prune()

    result = intake.record([message], origin=JobStartEvent.Origin.QUEUE)

    assert (result.recorded, result.duplicates) == (0, 1)
    assert KanikoJob.objects.count() == 1


# --- How ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_just_what_a_run_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 3)
    many_built_events(30)
    letter = a_failed_event(state="discarded", settled_at=ago(95))
    a_replay_item(
        run=a_replay_run(state="finished", started_at=ago(800), finished_at=ago(800)),
        letter=letter,
        outcome="gone",
        at=ago(800),
    )
    a_failure_group(fingerprint=letter.fingerprint, first_seen_at=ago(800), last_seen_at=ago(800))
    for _ in range(3):
        a_built_event(days=45)

    planned = pruning.plan()
    before = row_counts()

    assert planned.keys() == set(NAMES)
    assert row_counts() == before
    assert prune() == {kind: count for kind, count in planned.items() if count}
    assert planned["events"] == 28


def test_a_batch_looks_at_no_more_rows_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    many_built_events(25)
    batches: list[Batch] = []

    pruning.begin()
    pruning.prune(share=100, on_batch=batches.append)

    of_events = [batch.removed.get("events", 0) for batch in batches if batch.kind == "events"]
    assert max(of_events) <= 10
    assert sum(of_events) == 25 - DeadLetter.objects.count()


def test_a_run_ends_where_all_rows_are_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    many_built_events(15)
    many_built_events(50, days=1)
    batches: list[Batch] = []

    pruning.begin()
    pruning.prune(share=100, on_batch=batches.append)

    # The second is half young; behind it all are.
    assert len([batch for batch in batches if batch.kind == "events"]) == 2


def test_a_run_that_was_broken_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 5)
    many_built_events(40)
    begun = pruning.begin()

    def break_off(batch: Batch) -> None:
        if batch.kind == "events":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruning.prune(share=100, on_batch=break_off)
    begun.refresh_from_db()
    position = (begun.kind, begun.after)
    removed = prune()

    assert position[0] == "events"
    assert position[1] > 0
    assert PruneRun.objects.get() == begun
    assert removed["events"] == 40 - DeadLetter.objects.count()


@contextmanager
def refused(statement: str) -> Iterator[None]:
    """The server ends statements of this kind with what a lost connection is told as."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the connection is lost' USING ERRCODE = 'connection_failure'; END $$"
        )
        cursor.execute(f"CREATE TRIGGER refuse BEFORE {statement} EXECUTE FUNCTION pg_temp.refuse()")
        yield
        cursor.execute("DROP FUNCTION pg_temp.refuse CASCADE")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE ON kanikojobs_jobattempt",
        "DELETE ON kanikojobs_kanikojob",
        "DELETE ON kanikojobs_jobstartevent",
        "UPDATE ON kanikojobs_prunerun",
        "INSERT ON kanikojobs_tally",
    ],
)
def test_a_batch_that_ends_at_any_statement_has_done_nothing(settings: Settings, statement: str) -> None:
    settings.KANIKOJOBS_KEEP_ATTEMPTS = settings.KANIKOJOBS_KEEP_LOGS = settings.KANIKOJOBS_KEEP_OUTBOX = timedelta()
    a_built_event()
    before = row_counts()
    pruning.begin()

    with refused(statement), pytest.raises(OperationalError):
        pruning.prune(share=100)

    assert row_counts() == before
    assert total_removed() == Counter()
    assert prune()["events"] == 1


def test_it_stops_after_the_time_that_it_is_given() -> None:
    many_built_events(10)
    pruning.begin()

    finished = pruning.prune(seconds=0)

    assert finished is False
    assert JobStartEvent.objects.count() == 10


def test_what_is_removed_is_counted_for_ever() -> None:
    a_built_event()
    prune()
    a_built_event()
    prune()

    assert tallies.totals(prefix="pruned/")["pruned/events"].count == 2


# --- Beside others --------------------------------------------------------------------------------------------------


def in_another_connection(work: Callable[[], Any], *, while_: Callable[[], Any]) -> Any:
    """Do something while a transaction of another connection, which has done some `work`, is open."""
    begun, end = Event(), Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                work()
                begun.set()
                end.wait(30)
        finally:
            begun.set()
            connection.close()

    thread = Thread(target=hold)
    thread.start()
    begun.wait(30)
    try:
        return while_()
    finally:
        end.set()
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_what_somebody_holds_is_passed_over_without_waiting() -> None:
    held, other = a_built_event(), a_built_event()

    removed = in_another_connection(
        lambda: JobStartEvent.objects.select_for_update(no_key=True).get(pk=held.pk), while_=prune
    )

    assert removed["events"] == 1
    assert JobStartEvent.objects.get() == held
    assert not JobStartEvent.objects.filter(pk=other.pk).exists()
    assert prune()["events"] == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once_share_one_run() -> None:
    many_built_events(20)
    pruning.begin()

    assert (
        in_another_connection(
            lambda: PruneRun.objects.select_for_update().get(), while_=lambda: pruning.prune(share=100, seconds=0.3)
        )
        is False
    )

    assert total_removed() == Counter()
    assert prune()["events"] > 0
    assert PruneRun.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_event_that_is_retried_at_that_moment_stays() -> None:
    event = a_built_event()
    job = event.kaniko_jobs.get()

    in_another_connection(lambda: retry.retry(job.pk, author=AN_OPERATOR, reason="Again."), while_=prune)

    assert KanikoJob.objects.filter(event=event).count() == 2
    assert prune().get("events") is None


def test_a_retry_that_comes_too_late_finds_nothing() -> None:
    job = a_built_event().kaniko_jobs.get()
    prune()

    with pytest.raises(KanikoJob.DoesNotExist):
        retry.retry(job.pk, author=AN_OPERATOR, reason="Again.")


def test_a_letter_that_is_restored_keeps_its_event() -> None:
    letter = a_failed_event(state="discarded", settled_at=ago(50))
    prune()
    disposal.restore(selection=Selection(ids=(letter.pk,)), author=AN_OPERATOR, reason="It was needed.")
    DeadLetter.objects.update(first_died_at=ago(1000), last_died_at=ago(1000))

    prune()

    letter.refresh_from_db()
    assert letter.state == "open"
    assert letter.event is not None


@pytest.mark.django_db(transaction=True)
def test_killed_in_the_middle_nothing_is_half_and_the_next_one_finishes_it(start_command: StartCommand) -> None:
    many_built_events(600)
    before = row_counts()["kanikojobs_jobstartevent"]
    kept = DeadLetter.objects.count()

    child = start_command("prune", "--share", "25")
    child.wait_until(lambda: total_removed()["events"] > 0, seconds=60)
    child.kill()
    with transaction.atomic():
        # The server may still be at the last batch of the process that is gone.
        list(PruneRun.objects.select_for_update())
        gone = before - row_counts()["kanikojobs_jobstartevent"]
        assert total_removed()["events"] == total_removed()["kaniko-jobs"] == gone
        assert tallies.totals(prefix="pruned/")["pruned/events"].count == gone
    prune()

    assert total_removed()["events"] == total_removed()["kaniko-jobs"] == before - kept
    assert JobStartEvent.objects.count() == KanikoJob.objects.count() == kept
    assert jobs_without_all_of_their_rows() == 0


# --- Foreign keys and indexes ---------------------------------------------------------------------------------------

FOREIGN_KEYS = """
    SELECT con.conrelid::regclass::text, att.attname, con.confrelid::regclass::text, con.confdeltype::text, EXISTS (
        SELECT FROM pg_index WHERE indrelid = con.conrelid AND indkey[0] = con.conkey[1] AND indisvalid
          AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) = format('(%%I IS NOT NULL)', att.attname))
    )
    FROM pg_constraint con JOIN pg_attribute att ON att.attrelid = con.conrelid AND att.attnum = con.conkey[1]
    WHERE con.contype = 'f' AND con.confrelid = ANY (%s::regclass[])
"""


def pruned_tables() -> list[str]:
    return sorted({table for kind in KINDS.values() for table in (kind.table, *(also.table for also in kind.along))})


def test_every_row_that_points_to_what_goes_is_taken_along_or_forgets_it_and_is_found_by_an_index() -> None:
    handled = {
        *((also.table, also.column) for kind in KINDS.values() for also in kind.along),
        *((emptied.table, emptied.column) for kind in KINDS.values() for emptied in kind.emptied),
    }

    with connection.cursor() as cursor:
        cursor.execute(FOREIGN_KEYS, [pruned_tables()])
        keys = cursor.fetchall()

    assert ("kanikojobs_kanikojob", "event_id") in {key[:2] for key in keys}
    for table, column, target, on_delete, indexed in keys:
        assert (table, column) in handled, f"{table}.{column} points to {target}"
        # PostgreSQL itself refuses: what is forgotten here cannot be lost there.
        assert on_delete == "a", f"{table}.{column}"
        assert indexed, f"{table}.{column}"


def test_no_batch_reads_a_whole_table() -> None:
    many_built_events(10)
    a_failed_event(state="replayed", settled_at=ago(95))
    statements: list[str] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().startswith(("WITH", "SELECT id FROM kanikojobs", "UPDATE", "DELETE")):
            statements.append(context["cursor"].cursor.mogrify(sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        prune()

    assert len(statements) > 30
    with connection.cursor() as cursor:
        # Then only what no index can answer is read whole, and told as such.
        cursor.execute("SET LOCAL enable_seqscan = off")
        for statement in statements:
            cursor.execute(f"EXPLAIN {statement}".replace("%", "%%"), [])
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"


# --- The command ----------------------------------------------------------------------------------------------------


def output_of(*arguments: str) -> str:
    said = StringIO()
    call_command("prune", *arguments, stdout=said)
    return said.getvalue()


def test_the_command_tells_what_it_removed() -> None:
    a_built_event()

    said = output_of("--share", "100")

    assert [line.split()[1:] for line in said.splitlines() if "events" in line] == [
        ["events", "│", "90", "days", "│", "1", "│"]
    ]
    assert not JobStartEvent.objects.exists()


def test_a_dry_run_of_the_command_removes_nothing(settings: Settings) -> None:
    settings.KANIKOJOBS_KEEP_LOGS = timedelta()
    a_built_event()

    said = output_of("--dry-run")

    assert "would be removed" in said
    assert "ever" in next(line for line in said.splitlines() if "logs" in line)
    assert JobStartEvent.objects.count() == 1
    assert not PruneRun.objects.exists()


@pytest.mark.parametrize("share", ["0", "101", "-5"])
def test_a_share_that_makes_no_sense_is_refused(share: str) -> None:
    with pytest.raises(CommandError, match="at most 100"):
        call_command("prune", f"--share={share}")
