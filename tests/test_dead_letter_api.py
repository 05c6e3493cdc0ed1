"""Dead letters, failure groups and replays over REST: what may be done, by whom, and what it answers."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, FailureGroup, JobStartEvent, OperatorAction, ReplayRun
from kanikojobs.replay import runs
from kanikojobs.replay.selection import Selection
from tests.factories import a_message, a_replay_item, a_replay_run
from tests.replay_cases import AN_OPERATOR, a_failed_build, an_expired, an_invalid, every_case, run_to_the_end

pytestmark = pytest.mark.django_db

VIEW = ("view_deadletter", "view_failuregroup", "view_replayrun")


def client_with(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{User.objects.count()}", password="x")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(HTTP_ACCEPT="application/json")
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return client_with(*VIEW, "replay_deadletter", "edit_deadletter", "discard_deadletter", "change_failuregroup")


@pytest.fixture
def viewer() -> Client:
    return client_with(*VIEW)


def post(client: Client, path: str, **body: Any) -> Any:
    return client.post(f"/async-jobs/{path}", json.dumps(body), content_type="application/json")


def test_a_plan_and_the_run_that_is_started_from_it(operator: Client) -> None:
    expected = every_case()
    planned = post(operator, "dead-letters/plan", filter={}).json()
    an_expired()

    answer = post(
        operator, "replays", filter={}, cut_off=planned["cut_off"], rate=20, probe=2, reason="The registry is back."
    )
    ReplayRun.objects.update(rate=None, probe=0)
    run = run_to_the_end(ReplayRun.objects.get())

    assert answer.status_code == 202
    assert answer.json() | {"total": planned["total"], "probe": 2, "rate": 20.0} == answer.json()
    assert planned["outcomes"] == {str(outcome): count for outcome, count in expected.items()}
    assert run.handled == planned["total"] == sum(expected.values())
    shown = operator.get(f"/async-jobs/replays/{run.pk}").json()
    assert (shown["queued"], shown["author_name"], shown["reason"]) == (7, run.author_name, "The registry is back.")


def test_the_items_of_a_run_are_listed_and_filtered(operator: Client) -> None:
    an_expired()
    an_invalid()
    post(operator, "replays", filter={}, reason="Again.")
    run = run_to_the_end(ReplayRun.objects.get())

    all_, invalid = (
        operator.get(f"/async-jobs/replays/{run.pk}/items{query}").json()["results"]
        for query in ("", "?outcome=invalid")
    )

    assert [item["outcome"] for item in all_] == ["queued", "invalid"]
    assert [item["outcome"] for item in invalid] == ["invalid"]
    assert "JSON" in invalid[0]["detail"]


def test_items_come_in_their_order_and_by_outcome_and_result(operator: Client) -> None:
    run = a_replay_run()
    for position, (outcome, result) in enumerate([("queued", "failed-again"), ("queued", ""), ("invalid", "")], 1):
        a_replay_item(run=run, position=position, outcome=outcome, result=result, at=now())

    def positions(query: str) -> list[int]:
        answer = operator.get(f"/async-jobs/replays/{run.pk}/items?{query}")
        return [item["position"] for item in answer.json()["results"]]

    assert positions("") == [1, 2, 3]
    assert positions("outcome=queued") == [1, 2]
    assert positions("result=failed-again") == [1]
    assert operator.get(f"/async-jobs/replays/{run.pk}/items?outcome=lost").status_code == 400


def test_pause_resume_and_cancel_answer_409_when_they_come_too_late(operator: Client) -> None:
    an_expired()
    post(operator, "replays", filter={}, reason="Again.")
    path = f"replays/{ReplayRun.objects.get().pk}"

    answers = [
        (action, post(operator, f"{path}/{action}", reason="So.").status_code)
        for action in ("pause", "pause", "resume", "resume", "cancel", "cancel", "resume")
    ]

    assert [status for _, status in answers] == [200, 409, 200, 409, 200, 409, 409]
    assert OperatorAction.objects.filter(reason="So.", via="api").count() == 3


def test_one_letter_is_replayed_at_once(operator: Client) -> None:
    letter = an_expired()

    answer = post(operator, f"dead-letters/{letter.pk}/replay", reason="Again.")
    again = post(operator, f"dead-letters/{letter.pk}/replay", reason="Again.")

    assert (answer.status_code, again.status_code) == (202, 409)
    assert JobStartEvent.objects.count() == 1
    assert operator.get(f"/async-jobs/dead-letters/{letter.pk}").json()["replays"][0]["outcome"] == "queued"


def test_a_mended_body_is_checked_and_replayed(operator: Client) -> None:
    letter = an_invalid(b"{ broken")
    good = a_message().body.decode()

    checked = post(operator, f"dead-letters/{letter.pk}/check", body="{}").json()
    refused = post(operator, f"dead-letters/{letter.pk}/replay", reason="Mended.", body="{}")
    taken = post(operator, f"dead-letters/{letter.pk}/replay", reason="Mended.", body=good)

    assert (checked["outcome"], checked["is_good"]) == ("invalid", False)
    assert checked["faults"] == refused.json()["body"]
    assert (refused.status_code, taken.status_code) == (400, 202)
    letter.refresh_from_db()
    assert bytes(letter.body) == b"{ broken"
    assert letter.replayed_as is not None


def test_letters_are_discarded_and_restored_one_by_one_and_by_filter(operator: Client) -> None:
    first, second = an_invalid(b"{ 1"), an_invalid(b"{ 2")

    answers = [
        post(operator, f"dead-letters/{first.pk}/discard", reason="A test.").json(),
        post(operator, "dead-letters/discard", filter={"causes": ["invalid"]}, reason="A test.").json(),
        post(operator, f"dead-letters/{first.pk}/restore", reason="No test.").json(),
        post(operator, "dead-letters/restore", filter={}, reason="No test.").json(),
    ]

    assert [answer["done"] for answer in answers] == [1, 1, 1, 1]
    assert DeadLetter.objects.filter(state="open", pk__in=[first.pk, second.pk]).count() == 2


def test_groups_are_listed_ordered_and_filtered(viewer: Client) -> None:
    often, once = an_invalid(b"{"), a_failed_build()
    an_invalid(b"{")
    FailureGroup.objects.filter(fingerprint=once.fingerprint).update(first_seen_at="2020-01-01T00:00:00Z")

    def found(query: str) -> list[str]:
        return [group["fingerprint"] for group in viewer.get(f"/async-jobs/failure-groups{query}").json()["results"]]

    assert found("?order=deaths") == [often.fingerprint, once.fingerprint]
    assert found("?order=first_seen") == [often.fingerprint, once.fingerprint]
    assert found("?first_seen_at__gte=2026-01-01T14:00:00Z") == [often.fingerprint]
    assert found("?cause=build-failed") == [once.fingerprint]
    assert found("?state=regressed") == []


def test_pages_of_groups_follow_each_other(viewer: Client) -> None:
    for cause in ("a", "b", "c"):
        an_invalid(f'{{"{cause}": 1}} {cause * 3}'.encode())
        a_failed_build(reason=f"Reason{cause.upper()}", message=f"words {cause}")

    first = viewer.get("/async-jobs/failure-groups?page_size=2").json()
    second = viewer.get(first["next"]).json()

    ids = [group["id"] for group in first["results"] + second["results"]]
    assert len(ids) == len(set(ids)) == 4


@pytest.mark.parametrize("cursor", ["cD1qdW5r", "cD0tMQ=="])
def test_a_made_up_cursor_is_not_found(viewer: Client, cursor: str) -> None:
    an_invalid()

    assert viewer.get(f"/async-jobs/failure-groups?cursor={cursor}").status_code == 404


def test_a_note_is_taken_with_an_assignee_and_on_record(operator: Client) -> None:
    letter = an_invalid()
    User.objects.create_user("somebody")

    answer = operator.patch(
        f"/async-jobs/failure-groups/{letter.fingerprint}",
        json.dumps({"note": "The sender knows.", "assignee": "somebody", "reason": "Called them."}),
        content_type="application/json",
    )

    group = FailureGroup.objects.get()
    assert answer.status_code == 200
    assert group.assignee is not None
    assert (group.note, group.assignee.username, group.state) == ("The sender knows.", "somebody", "ongoing")
    assert OperatorAction.objects.get().reason == "Called them."


SECRET = b'{"data": {"parameters": {"environment": {"API_TOKEN": "s3cr3t"}}}}'


def test_secrets_are_struck_out_unless_permitted(viewer: Client) -> None:
    letter = an_invalid(SECRET)
    path = f"/async-jobs/dead-letters/{letter.pk}"

    assert "s3cr3t" not in viewer.get(path).content.decode()
    assert "s3cr3t" in client_with(*VIEW, "view_secrets_deadletter").get(path).json()["body"]


def test_what_repeats_a_secret_is_struck_out_everywhere(viewer: Client) -> None:
    event = json.loads(a_message().body)
    event["data"]["parameters"]["environment"] = {"NPM_TOKEN": 4711}
    letter = an_invalid(json.dumps(event).encode())
    a_failed_build(message="fetching https://somebody:4711@example.com failed")
    run = run_to_the_end(
        runs.start(selection=Selection(), cut_off=now(), pace=runs.Pace(), author=AN_OPERATOR, reason="Again.")
    )
    paths = ("dead-letters", f"dead-letters/{letter.pk}", f"replays/{run.pk}/items", "failure-groups")

    def told(client: Client) -> list[str]:
        plan = post(client, "dead-letters/plan", filter={}).content.decode()
        return [*(client.get(f"/async-jobs/{path}").content.decode() for path in paths), plan]

    permitted = told(client_with(*VIEW, "view_secrets_deadletter"))

    assert not [answer for answer in told(viewer) if "4711" in answer]
    assert ["4711" in answer for answer in permitted] == [True, True, True, False, True]


ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "replays": ("replay_deadletter", {"filter": {}, "reason": "x"}),
    "replays/{run}/pause": ("replay_deadletter", {"reason": "x"}),
    "replays/{run}/resume": ("replay_deadletter", {"reason": "x"}),
    "replays/{run}/cancel": ("replay_deadletter", {"reason": "x"}),
    "dead-letters/{letter}/replay": ("replay_deadletter", {"reason": "x"}),
    "dead-letters/{letter}/discard": ("discard_deadletter", {"reason": "x"}),
    "dead-letters/{letter}/restore": ("discard_deadletter", {"reason": "x"}),
    "dead-letters/discard": ("discard_deadletter", {"filter": {}, "reason": "x"}),
    "dead-letters/restore": ("discard_deadletter", {"filter": {}, "reason": "x"}),
}


@pytest.mark.parametrize("path", ACTIONS)
def test_each_action_needs_its_permission_and_a_reason(path: str) -> None:
    letter, run = an_invalid(), a_replay_run(state="paused")
    permission, body = ACTIONS[path]
    url = path.format(letter=letter.pk, run=run.pk)
    others = {"replay_deadletter", "edit_deadletter", "discard_deadletter", "change_failuregroup"} - {permission}

    without = post(client_with(*VIEW, *others), url, **body).status_code
    nobody = post(Client(), url, **body).status_code
    allowed = client_with(*VIEW, permission)
    no_reason = post(allowed, url, **body | {"reason": " "}).status_code

    assert (without, nobody, no_reason) == (403, 401, 400)
    assert not OperatorAction.objects.exists()
    assert post(allowed, url, **body).status_code in (200, 202, 409)


def test_mending_needs_the_permission_to_edit_besides() -> None:
    letter = an_invalid()
    client = client_with(*VIEW, "replay_deadletter")

    answer = post(client, f"dead-letters/{letter.pk}/replay", reason="x", body=a_message().body.decode())

    assert answer.status_code == 403
    assert not ReplayRun.objects.exists()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"filter": {"color": "red"}}, {"filter"}),
        ({"filter": "all"}, {"filter"}),
        ({}, {"filter"}),
        ({"filter": {}, "rate": 0}, {"rate"}),
        ({"filter": {}, "batch": 5000}, {"batch"}),
        ({"filter": {}, "probe": -1}, {"probe"}),
        ({"filter": {}, "max_failure_rate": 101}, {"max_failure_rate"}),
        ({"filter": {}, "limit": 0}, {"limit"}),
        ({"filter": {}, "cut_off": "soon"}, {"cut_off"}),
    ],
    ids=str,
)
def test_a_start_that_makes_no_sense_is_told_so(operator: Client, body: dict[str, Any], complaint: set[str]) -> None:
    an_expired()

    answer = post(operator, "replays", reason="x", **body)

    assert answer.status_code == 400
    assert answer.json().keys() == complaint
    assert not ReplayRun.objects.exists()


def test_the_openapi_document_describes_every_action_with_examples(
    admin_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    document = admin_client.get("/api/schema/", HTTP_ACCEPT="application/json").json()

    posts = {path for path, item in document["paths"].items() if "post" in item}
    assert {"/async-jobs/replays", "/async-jobs/replays/{id}/pause", "/async-jobs/dead-letters/plan"} <= posts
    start = document["paths"]["/async-jobs/replays"]["post"]["requestBody"]["content"]["application/json"]
    assert next(iter(start["examples"].values()))["value"]["probe"] == 5
    assert "Error" not in capsys.readouterr().err
