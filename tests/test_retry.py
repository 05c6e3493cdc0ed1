"""Retry and cancel: who may, what comes of it, and that clicking twice does no harm."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.test.client import MULTIPART_CONTENT
from rest_framework.test import APIClient

from deploy.local.simulator import Simulator
from kanikojobs import audit, kube, kube_watch, retry
from kanikojobs.audit import Author
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, FailureGroup, KanikoJob, OperatorAction
from kanikojobs.replay import runs
from kanikojobs.replay.selection import Selection
from kanikojobs.retry import OverridesInvalid
from kanikojobs.states import FINISHED, State
from tests.factories import a_dead_letter, a_kaniko_job, an_event
from tests.replay_cases import a_failed_build, ended, run_to_the_end
from tests.watched_jobs import create_some, created_jobs, queued_job, wait_until, watching

ALICE = Author(name="alice", via=OperatorAction.Via.COMMAND)


def a_finished_job(state: str = "failed", **fields: Any) -> KanikoJob:
    return a_kaniko_job(event=an_event(source_url="https://github.com/notifi/parsers/p"), state=state, **fields)


@pytest.mark.django_db
@pytest.mark.parametrize("state", [state.value for state in FINISHED])
def test_a_retry_is_the_next_number_of_the_same_event(state: str) -> None:
    job = a_finished_job(state)

    act = retry.retry(job.pk, author=ALICE, reason="the registry is back")

    following = act.kaniko_job
    assert act.done
    assert (following.event, following.number, following.state) == (job.event, 2, "queued")
    assert following.name != job.name
    action = OperatorAction.objects.get()
    assert (action.by, action.reason, action.outcome) == ("alice", "the registry is back", "done")
    assert (action.target_type, action.target_id) == ("kanikojob", str(job.pk))
    assert action.detail["kaniko_job"] == following.pk


@pytest.mark.django_db
def test_a_retry_settles_the_dead_letters_of_the_event_and_says_what_they_became() -> None:
    first = a_failed_build()
    assert first.kaniko_job is not None
    second = ended(a_kaniko_job(event=first.event, number=2), State.FAILED)
    other, conflict = a_failed_build(), a_dead_letter(event=first.event, cause="identity-conflict")

    act = retry.retry(second.pk, author=ALICE, reason="the registry is back")

    settled = DeadLetter.objects.filter(state="replayed").order_by("pk")
    assert [letter.kaniko_job for letter in settled] == [first.kaniko_job, second]
    assert {(letter.replayed_as, letter.replayed_as_job) for letter in settled} == {(first.event, act.kaniko_job)}
    assert all(letter.settled_at for letter in settled)
    assert set(DeadLetter.objects.filter(state="open")) == {other, conflict}
    group = FailureGroup.objects.get(fingerprint=first.fingerprint)
    assert (group.open_letters, group.replayed) == (1, True)
    assert OperatorAction.objects.get().detail["dead_letters"] == [letter.pk for letter in settled]


@pytest.mark.django_db
def test_a_dead_letter_that_waits_in_a_replay_is_not_replayed_after_a_retry_by_hand() -> None:
    letter = a_failed_build()
    run = runs.start(selection=Selection(), cut_off=now(), pace=runs.Pace(), author=ALICE, reason="all of them")

    retry.retry(letter.kaniko_job_id or 0, author=ALICE, reason="this one first")
    run = run_to_the_end(run)

    assert (run.total, run.gone, run.queued) == (1, 1, 0)
    assert KanikoJob.objects.count() == 2


@pytest.mark.django_db
def test_a_refused_retry_leaves_the_dead_letter_open() -> None:
    letter = a_failed_build()
    a_kaniko_job(event=letter.event, number=2, state="running")

    retry.retry(letter.kaniko_job_id or 0, author=ALICE, reason="again")

    letter.refresh_from_db()
    assert letter.state == "open"


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["queued", "creating", "created", "running"])
def test_a_retry_is_refused_while_one_is_unfinished_and_the_refusal_is_kept(state: str) -> None:
    job = a_finished_job()
    a_kaniko_job(event=job.event, number=2, state=state)

    act = retry.retry(job.pk, author=ALICE, reason="again")

    assert not act.done
    assert act.message == f"Refused: number 2 of this event is unfinished ({state})."
    assert job.event.kaniko_jobs.count() == 2
    assert OperatorAction.objects.get().outcome == "refused"


@pytest.mark.django_db
def test_edited_parameters_are_kept_and_stay_edited_in_the_next_retry() -> None:
    job = a_finished_job()
    edited = retry.retry(job.pk, author=ALICE, reason="more", overrides={"memory": "8Gi", "priority": 1}).kaniko_job
    KanikoJob.objects.filter(pk=edited.pk).update(state="failed", finished_at=edited.queued_at)

    again = retry.retry(edited.pk, author=ALICE, reason="longer", overrides={"build_timeout": 3600}).kaniko_job

    assert (edited.overrides, edited.priority) == ({"memory": "8Gi", "priority": 1}, 1)
    assert again.overrides == {"memory": "8Gi", "priority": 1, "build_timeout": 3600}


BAD_OVERRIDES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"backoffLimit": 3}, "backoffLimit: not known; write one of memory, "),
    "of another type": ({"memory": 8}, "memory: must be a text"),
    "a flag for a number": ({"build_timeout": True}, "build_timeout: must be a whole number"),
    "no quantity": ({"memory": "lots"}, "memory: not a quantity such as 500m, 2 or 4Gi"),
    "no priority": ({"priority": 11}, "priority: must be from 1"),
    "too long": ({"build_timeout": 10**6}, "build_timeout: must be from 1 to "),
    "a flag in the Dockerfile's path": ({"dockerfile": "../x"}, "dockerfile: must be a path inside the source"),
    "a source that is not allowed": ({"source_url": "https://internal.example/x/y"}, "internal.example"),
    "an environment of numbers": ({"environment": {"A": 1}}, "environment: names and values must be texts"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BAD_OVERRIDES)
def test_edited_parameters_that_cannot_be_used_are_refused_with_the_reason(name: str) -> None:
    overrides, problem = BAD_OVERRIDES[name]
    job = a_finished_job()

    with pytest.raises(OverridesInvalid) as refusal:
        retry.retry(job.pk, author=ALICE, reason="try this", overrides=overrides)

    assert problem in str(refusal.value)
    assert job.event.kaniko_jobs.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("act", [retry.retry, retry.cancel])
@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_whoever_acts_says_why(act: Any, reason: str) -> None:
    job = a_finished_job()

    with pytest.raises(audit.ReasonMissing):
        act(job.pk, author=ALICE, reason=reason)

    assert OperatorAction.objects.count() == 0


@pytest.mark.django_db
def test_a_queued_job_is_cancelled_at_once() -> None:
    job = queued_job()

    act = retry.cancel(job.pk, author=ALICE, reason="not wanted")

    job.refresh_from_db()
    assert act.done
    assert (job.state, job.reason) == ("cancelled", "CancelledByOperator")
    assert job.message == "Cancelled by alice: not wanted"


@pytest.mark.django_db
@pytest.mark.parametrize("state", [state.value for state in FINISHED])
def test_what_is_finished_cannot_be_cancelled(state: str) -> None:
    job = a_finished_job(state)

    act = retry.cancel(job.pk, author=ALICE, reason="too late")

    assert (act.done, act.message) == (False, f"Refused: it is {state}.")
    assert OperatorAction.objects.get().outcome == "refused"


@pytest.mark.django_db(transaction=True)
def test_a_running_job_is_cancelled_when_its_pods_are_gone_and_its_log_is_kept(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="running").exists())
        first = retry.cancel(job.pk, author=ALICE, reason="wrong branch")
        second = retry.cancel(job.pk, author=Author(name="bob", via=OperatorAction.Via.API), reason="me too")
        wait_until(lambda: KanikoJob.objects.filter(state="cancelled").exists())

    job.refresh_from_db()
    assert (first.done, second.done) == (True, False)
    assert (job.reason, job.message) == ("CancelledByOperator", "Cancelled by alice: wrong branch")
    assert simulator.stats()["objects"] == {"jobs": 0, "pods": 0}
    assert "Retrieving image manifest" in job.logs.get(container="kaniko").text
    assert OperatorAction.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_create_was_never_answered_is_removed_before_its_row_is_cancelled(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    simulator.faults([{"do": "drop-after", "verb": "create", "count": 1}])
    job = queued_job()
    create_some()
    job.refresh_from_db()
    assert (job.state, job.may_exist) == ("queued", True)

    act = retry.cancel(job.pk, author=ALICE, reason="changed my mind")
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(state="cancelled").exists())

    assert act.message == "Asked for: it is cancelled when its Job and pods are gone."
    assert simulator.stats()["objects"]["jobs"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_job_that_came_to_be_after_its_row_was_cancelled_is_removed(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    KanikoJob.objects.filter(pk=job.pk).update(state="cancelled", finished_at=job.queued_at)

    with watching():
        wait_until(lambda: simulator.stats()["objects"]["jobs"] == 0)
        wait_until(lambda: job.drift.exists())

    assert job.drift.get().kind == "CancelledRuns"


def at_once(*acts: Any) -> list[retry.Act]:
    """Each in a thread with a connection of its own, started together."""
    barrier = Barrier(len(acts))

    def run(act: Any) -> retry.Act:
        try:
            barrier.wait()
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as people:
        return list(people.map(run, acts))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", ["failed", "queued"])
def test_a_retry_and_a_cancel_at_once_leave_one_outcome_and_two_records(state: str) -> None:
    job = a_finished_job() if state == "failed" else queued_job()

    acts = at_once(
        lambda: retry.retry(job.pk, author=ALICE, reason="again"),
        lambda: retry.cancel(job.pk, author=Author(name="bob", via=OperatorAction.Via.API), reason="stop"),
    )

    job.refresh_from_db()
    numbers = job.event.kaniko_jobs.count()
    assert OperatorAction.objects.count() == 2
    if state == "failed":
        assert [act.done for act in acts] == [True, False]
        assert (numbers, job.state) == (2, "failed")
    else:
        # Whoever was first: the cancel went through, and a retry before it was refused.
        assert acts[1].done
        assert job.state == "cancelled"
        assert numbers == (2 if acts[0].done else 1)


@pytest.mark.django_db(transaction=True)
def test_retry_clicked_by_five_at_once_makes_one_job_and_five_records() -> None:
    job = a_finished_job()

    acts = at_once(*[lambda: retry.retry(job.pk, author=ALICE, reason="again")] * 5)

    assert sorted(act.done for act in acts) == [False] * 4 + [True]
    assert job.event.kaniko_jobs.count() == 2
    assert OperatorAction.objects.count() == 5


def a_user(*permissions: str) -> User:
    user = User.objects.create_user("carol", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_kanikojob", *permissions]))
    return user


WAYS = {
    "REST retry": ("/async-jobs/jobs/{}/retry", "retry_kanikojob"),
    "REST cancel": ("/async-jobs/jobs/{}/cancel", "cancel_kanikojob"),
    "admin retry": ("/admin/kanikojobs/kanikojob/{}/retry/", "retry_kanikojob"),
    "admin cancel": ("/admin/kanikojobs/kanikojob/{}/cancel/", "cancel_kanikojob"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("way", WAYS)
def test_each_way_needs_its_own_permission(client: Client, way: str) -> None:
    path, permission = WAYS[way]
    job = queued_job() if "cancel" in way else a_finished_job()
    others = {"retry_kanikojob", "cancel_kanikojob"} - {permission}
    client.force_login(a_user(*others))

    answer = client.post(path.format(job.pk), {"reason": "I may not"}, content_type=_type(way))

    assert answer.status_code == 403
    assert OperatorAction.objects.count() == 0
    assert job.event.kaniko_jobs.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("way", WAYS)
def test_each_way_acts_for_who_may_and_says_who(client: Client, way: str) -> None:
    path, permission = WAYS[way]
    job = queued_job() if "cancel" in way else a_finished_job()
    client.force_login(a_user(permission))

    answer = client.post(path.format(job.pk), {"reason": "I may"}, content_type=_type(way))

    action = OperatorAction.objects.get()
    job.refresh_from_db()
    assert answer.status_code == (302 if way.startswith("admin") else 200)
    assert (action.by, action.reason, action.outcome) == ("carol", "I may", "done")
    assert job.state == "cancelled" if "cancel" in way else job.event.kaniko_jobs.count() == 2


def _type(way: str) -> str:
    return "application/json" if way.startswith("REST") else MULTIPART_CONTENT


@pytest.mark.django_db
@pytest.mark.parametrize("way", WAYS)
def test_no_way_acts_on_a_get_or_without_the_token_against_forgery(way: str) -> None:
    path, permission = WAYS[way]
    job = a_finished_job()
    client = Client(enforce_csrf_checks=True)
    client.force_login(a_user(permission))

    answers = [client.get(path.format(job.pk)), client.post(path.format(job.pk), {"reason": "forged"})]

    assert [answer.status_code for answer in answers][1] in (403, 415)
    assert answers[0].status_code == 405
    assert OperatorAction.objects.count() == 0


@pytest.mark.django_db
def test_rest_says_why_it_refuses() -> None:
    job = queued_job()
    client = APIClient()
    client.force_authenticate(a_user("retry_kanikojob"))

    refused = client.post(f"/async-jobs/jobs/{job.pk}/retry", {"reason": "again"}, format="json")
    silent = client.post(f"/async-jobs/jobs/{job.pk}/retry", {}, format="json")
    nowhere = client.post("/async-jobs/jobs/999999/retry", {"reason": "again"}, format="json")

    assert (refused.status_code, refused.json()["done"]) == (409, False)
    assert refused.json()["message"] == "Refused: number 1 of this event is unfinished (queued)."
    assert (silent.status_code, list(silent.json())) == (400, ["reason"])
    assert nowhere.status_code == 404


@pytest.mark.django_db
def test_rest_retries_with_edited_parameters() -> None:
    job = a_finished_job()
    client = APIClient()
    client.force_authenticate(a_user("retry_kanikojob"))
    path = f"/async-jobs/jobs/{job.pk}/retry"

    bad = client.post(path, {"reason": "more", "overrides": {"memory": "lots"}}, format="json")
    good = client.post(path, {"reason": "more", "overrides": {"memory": "8Gi"}}, format="json")

    assert (bad.status_code, bad.json()) == (400, {"overrides": ["memory: not a quantity such as 500m, 2 or 4Gi"]})
    assert KanikoJob.objects.get(pk=good.json()["kaniko_job"]["id"]).overrides == {"memory": "8Gi"}


@pytest.mark.django_db
def test_several_are_retried_from_the_list_and_the_refused_are_named(client: Client) -> None:
    failed, unfinished = a_finished_job(), queued_job()
    client.force_login(a_user("retry_kanikojob"))

    answer = client.post(
        "/admin/kanikojobs/kanikojob/",
        {"action": "retry_selected", "_selected_action": [failed.pk, unfinished.pk], "reason": "the registry is back"},
        follow=True,
    )

    told = [str(message) for message in answer.context["messages"]]
    assert told[0] == "1 retried."
    assert told[1].startswith(f"{unfinished.name}: Refused: ")
    assert failed.event.kaniko_jobs.count() == 2


@pytest.mark.django_db
def test_the_page_offers_what_may_be_done_and_escapes_what_others_wrote(client: Client) -> None:
    job = a_finished_job(reason="OOMKilled", message="<script>alert(1)</script>")
    job.logs.create(pod="p", container="kaniko", text="<img src=x onerror=alert(1)>")
    client.force_login(a_user("retry_kanikojob"))

    page = client.get(f"/admin/kanikojobs/kanikojob/{job.pk}/change/").content.decode()

    assert f"/admin/kanikojobs/kanikojob/{job.pk}/retry/" in page
    assert f"/admin/kanikojobs/kanikojob/{job.pk}/cancel/" not in page
    assert "Retry with more memory" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.mark.django_db
def test_the_commands_act_and_say_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    job, waiting = a_finished_job(), queued_job()

    call_command("retry_job", job.name, "--reason=again", "--set=memory=8Gi", "--set=environment.A=b")
    call_command("cancel_job", str(waiting.pk), "--reason=not wanted")

    following = job.event.kaniko_jobs.get(number=2)
    waiting.refresh_from_db()
    assert following.overrides == {"memory": "8Gi", "environment": {"A": "b"}}
    assert waiting.state == "cancelled"
    assert following.name in capsys.readouterr().out
    assert {action.via for action in OperatorAction.objects.all()} == {"command"}


BAD_COMMANDS = {
    "no such job": ("retry_job", "nobody", "--reason=x"),
    "unfinished": ("retry_job", "{queued}", "--reason=x"),
    "no value": ("retry_job", "{failed}", "--reason=x", "--set=memory"),
    "no number": ("retry_job", "{failed}", "--reason=x", "--set=build_timeout=long"),
    "no reason": ("cancel_job", "{queued}", "--reason= "),
    "finished": ("cancel_job", "{failed}", "--reason=x"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_a_command_that_cannot_act_fails(name: str) -> None:
    ids = {"failed": a_finished_job().pk, "queued": queued_job().pk}

    with pytest.raises(CommandError):
        call_command(*[part.format(**ids) for part in BAD_COMMANDS[name]])

    assert KanikoJob.objects.filter(number=2).count() == 0


@pytest.mark.django_db(transaction=True)
def test_edited_parameters_are_in_the_job_that_is_created(simulator: Simulator) -> None:
    simulator.outcomes(default="hang")
    job = a_finished_job()
    edited = {"memory": "8Gi", "build_timeout": 77, "environment": {"A": "b"}}
    following = retry.retry(job.pk, author=ALICE, reason="more", overrides=edited).kaniko_job

    create_some()

    spec = kube.request("GET", kube_watch.jobs_path(following.name)).body["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["activeDeadlineSeconds"] == 77
    assert container["resources"]["limits"]["memory"] == "8Gi"
    assert "--build-arg=A=b" in container["args"]
