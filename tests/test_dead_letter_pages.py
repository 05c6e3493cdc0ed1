"""The pages of failures: five clicks to a running replay, everything shown, nothing done by those who may only look."""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from kanikojobs.admin.dead_letters.letters import DeadLetterAdmin
from kanikojobs.database_time import now
from kanikojobs.models import (
    DeadLetter,
    FailureGroup,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    ReplayItem,
    ReplayRule,
    ReplayRun,
)
from kanikojobs.replay import runs
from kanikojobs.replay.selection import Selection
from tests.factories import a_message, a_replay_rule
from tests.replay_cases import AN_OPERATOR, a_failed_build, an_expired, an_invalid, every_case, run_to_the_end

pytestmark = pytest.mark.django_db

VIEW = (
    "view_kanikojob",
    "view_jobstartevent",
    "view_deadletter",
    "view_failuregroup",
    "view_replayrun",
    "view_replayitem",
    "view_replayrule",
    "view_operatoraction",
)
ACT = ("replay_deadletter", "edit_deadletter", "discard_deadletter", "change_failuregroup", "view_secrets_deadletter")


def client_with(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{User.objects.count()}", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return client_with(*VIEW, *ACT)


@pytest.fixture
def viewer() -> Client:
    return client_with(*VIEW)


def text_of(response: Any) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))


def links(response: Any, *, to: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'href="([^"]+)"', response.content.decode()) if to in link]


def form_of(response: Any, *, action: str) -> dict[str, str]:
    """The fields of the form that goes to an address with this in it, as the page fills them in."""
    html = response.content.decode()
    form = next(form for form in re.findall(r"<form.*?</form>", html, re.DOTALL) if action in form)
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r'name="([^"]+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name:
            fields[name[1]] = unescape(value[1]) if value else ""
    return fields | {"action": unescape(re.findall(r'action="([^"]*)"', form)[0])}


def test_from_the_home_to_a_running_replay_with_rate_and_probe_in_five_clicks(operator: Client) -> None:
    letters = [a_failed_build(message=f"exit status 1 in /kaniko/{number}") for number in range(12)]
    an_invalid()

    home = operator.get("/admin/")
    (way, *_) = [link for link in links(home, to="/failuregroup/") if link.endswith("/failuregroup/")]
    groups = operator.get(way)  # 1
    group = operator.get(
        reverse(
            "admin:kanikojobs_failuregroup_change",
            args=[FailureGroup.objects.get(fingerprint=letters[0].fingerprint).pk],
        )
    )  # 2: a link of the list, see below
    plan = operator.get(links(group, to="/replayrun/plan/")[0])  # 3
    form = form_of(plan, action="/replayrun/start/")
    run_page = operator.post(form.pop("action"), form, follow=True)  # 4

    run = ReplayRun.objects.get()
    assert group.request["PATH_INFO"] in links(groups, to="/failuregroup/")
    assert (run.total, run.rate, run.probe, run.max_failure_rate) == (12, 20, 5, 10)
    assert run.state == "running"
    assert run_page.status_code == 200
    assert "0 of 12" in text_of(run_page)


def test_the_plans_page_says_what_would_come_of_all_and_why_some_fail(viewer: Client) -> None:
    every_case()

    page = text_of(viewer.get("/admin/kanikojobs/replayrun/plan/?all=1"))

    words = " ".join(page.split())
    assert "What would come of 18 dead letters" in words
    assert "queued for a build 7" in words
    assert "still invalid 3" in words
    assert "What would fail again, and why" in words
    assert "for example" in words
    assert "ask for the permission to replay" in words


def test_a_plan_that_is_started_later_keeps_its_cut_off(operator: Client) -> None:
    an_expired()
    form = form_of(operator.get("/admin/kanikojobs/replayrun/plan/?causes=expired"), action="/start/")
    an_expired()

    operator.post(form.pop("action"), form)

    assert ReplayRun.objects.get().total == 1


def test_wrong_numbers_are_told_on_the_plans_page(operator: Client) -> None:
    an_expired()
    form = form_of(operator.get("/admin/kanikojobs/replayrun/plan/?causes=expired"), action="/start/")

    page = operator.post(form.pop("action"), form | {"rate": "-1", "reason": ""})

    assert not ReplayRun.objects.exists()
    assert "This field is required" in text_of(page)


@pytest.mark.parametrize("query", ["color=red", "ids=x", "groups=abc", "died_from=yesterday"])
def test_a_plan_of_a_filter_that_means_nothing_is_refused_with_a_message(viewer: Client, query: str) -> None:
    page = viewer.get(f"/admin/kanikojobs/replayrun/plan/?{query}", follow=True)

    assert page.redirect_chain
    assert f"{query.split('=')[0]}: " in text_of(page).lower()


def test_the_list_of_groups_shows_what_is_new_since_a_time(viewer: Client) -> None:
    old, new = a_failed_build(), an_invalid()
    FailureGroup.objects.filter(fingerprint=old.fingerprint).update(first_seen_at="2026-01-01T00:00:00Z")

    page = text_of(viewer.get("/admin/kanikojobs/failuregroup/?new_since=1h"))
    everything = text_of(viewer.get("/admin/kanikojobs/failuregroup/"))
    nonsense = text_of(viewer.get("/admin/kanikojobs/failuregroup/?new_since=%00"))

    assert "JSON" in page
    assert "BuildStepFailed" not in page
    assert "BuildStepFailed" in everything
    assert "BuildStepFailed" in nonsense
    assert new.pk


@pytest.mark.parametrize("order", ["1", "-4", "7", "-7", "8", "-8"])
def test_the_list_of_groups_is_sorted_by_count_first_and_last(viewer: Client, order: str) -> None:
    an_invalid()

    assert viewer.get(f"/admin/kanikojobs/failuregroup/?o={order}").status_code == 200


def test_a_letters_page_shows_all_the_evidence(operator: Client) -> None:
    event = json.loads(a_message().body)
    event["data"]["priority"] = 11
    letter = an_invalid(json.dumps(event).encode())

    page = text_of(operator.get(f"/admin/kanikojobs/deadletter/{letter.pk}/change/"))

    assert "data.priority: the number 11" in page
    assert '"priority": 11' in page
    assert "curl --fail-with-body" in page
    assert letter.third_party_id in page


def test_bytes_that_are_no_text_are_shown_in_hex_and_downloaded_to_the_byte(operator: Client) -> None:
    letter = an_invalid(b"\xff\x00\x01")

    page = text_of(operator.get(f"/admin/kanikojobs/deadletter/{letter.pk}/change/"))
    file = operator.get(f"/admin/kanikojobs/deadletter/{letter.pk}/download/")

    assert "ff 00 01" in page
    assert file.content == b"\xff\x00\x01"
    assert file["Content-Type"] == "application/octet-stream"
    assert file["Content-Disposition"].startswith("attachment")


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>{{ 7 }}'


def test_hostile_text_is_text_on_every_page(operator: Client) -> None:
    event = json.loads(a_message().body) | {"id": HOSTILE}
    event["data"]["third_party_id"] = HOSTILE
    letter = an_invalid(json.dumps(event).encode())
    a_failed_build(message=HOSTILE)
    run = runs.start(selection=Selection(), cut_off=now(), pace=runs.Pace(), author=AN_OPERATOR, reason=HOSTILE)
    run_to_the_end(run)

    pages = [
        operator.get(path).content.decode()
        for path in every_page(letter=letter, run=run, rule=a_replay_rule())
        if "/download/" not in path  # a file to keep, and none to open
    ]

    assert all("<script>alert" not in page and "<img src=x" not in page for page in pages)
    assert any("&lt;script&gt;alert" in page for page in pages)


def every_page(*, letter: DeadLetter, run: ReplayRun, rule: ReplayRule) -> Iterator[str]:
    """The address of every page of failures."""
    group = FailureGroup.objects.get(fingerprint=letter.fingerprint)
    for model, id in (
        ("failuregroup", group.pk),
        ("deadletter", letter.pk),
        ("replayrun", run.pk),
        ("replayitem", ReplayItem.objects.earliest("id").pk),
        ("replayrule", rule.pk),
    ):
        yield reverse(f"admin:kanikojobs_{model}_changelist")
        yield reverse(f"admin:kanikojobs_{model}_change", args=[id])
    yield f"/admin/kanikojobs/replayrun/{run.pk}/change/?part=run"
    yield f"/admin/kanikojobs/replayrun/{run.pk}/change/?outcome=invalid"
    yield f"/admin/kanikojobs/replayrun/plan/?groups={letter.fingerprint}"
    yield f"/admin/kanikojobs/deadletter/{letter.pk}/download/"


def every_action(*, letter: DeadLetter, run: ReplayRun, rule: ReplayRule) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every address that does something, with what it wants."""
    group = FailureGroup.objects.get(fingerprint=letter.fingerprint)
    reason = {"reason": "Because."}
    for action in ("retry", "discard", "restore"):
        yield f"/admin/kanikojobs/deadletter/{letter.pk}/{action}/", reason
    for action in ("mend", "check"):
        yield f"/admin/kanikojobs/deadletter/{letter.pk}/{action}/", reason | {"body": a_message().body.decode()}
    for action in ("replay_selected", "discard_selected", "restore_selected"):
        fields = reason | {"action": action, "_selected_action": letter.pk}
        yield "/admin/kanikojobs/deadletter/", fields
        yield "/admin/kanikojobs/deadletter/", fields | {"select_across": "1"}
    yield f"/admin/kanikojobs/failuregroup/{group.pk}/note/", reason | {"note": "x"}
    yield f"/admin/kanikojobs/failuregroup/{group.pk}/discard/", reason
    yield "/admin/kanikojobs/replayrun/start/?all=1", reason | {"cut_off": now().isoformat(), "rate": 20}
    for action in ("pause", "resume", "cancel"):
        yield f"/admin/kanikojobs/replayrun/{run.pk}/{action}/", reason
    for model, id in (
        ("deadletter", letter.pk),
        ("failuregroup", group.pk),
        ("replayrun", run.pk),
        ("replayitem", ReplayItem.objects.earliest("id").pk),
    ):
        yield f"/admin/kanikojobs/{model}/{id}/change/", reason | {"state": "discarded"}
        yield f"/admin/kanikojobs/{model}/{id}/delete/", {"post": "yes"}
        yield f"/admin/kanikojobs/{model}/add/", reason
    yield f"/admin/kanikojobs/replayrule/{rule.pk}/change/", reason | {"enabled": "on", "name": "x"}
    yield f"/admin/kanikojobs/replayrule/{rule.pk}/delete/", {"post": "yes"}
    yield "/admin/kanikojobs/replayrule/add/", reason | {"name": "y", "transient_class": "evicted"}


def everything() -> list[Any]:
    models: Any = (
        DeadLetter,
        FailureGroup,
        ReplayRun,
        ReplayItem,
        ReplayRule,
        JobStartEvent,
        KanikoJob,
        OperatorAction,
    )
    return [list(model.objects.order_by("pk").values()) for model in models]


def a_house() -> tuple[DeadLetter, ReplayRun, ReplayRule]:
    """A letter, a run that goes on, and a rule."""
    an_expired()
    run = runs.start(
        selection=Selection(), cut_off=now(), pace=runs.Pace(), author=AN_OPERATOR, reason="The registry is back."
    )
    return an_invalid(), run, a_replay_rule()


def test_who_may_look_sees_every_page(viewer: Client) -> None:
    letter, run, rule = a_house()

    statuses = {path: viewer.get(path).status_code for path in every_page(letter=letter, run=run, rule=rule)}

    assert set(statuses.values()) == {200}, statuses


def test_who_may_not_look_sees_no_page() -> None:
    letter, run, rule = a_house()
    client = client_with()

    statuses = {path: client.get(path).status_code for path in every_page(letter=letter, run=run, rule=rule)}

    assert set(statuses.values()) == {403}, statuses


def test_actions_are_post_only_and_need_the_token() -> None:
    letter, run, rule = a_house()
    operator = client_with(*VIEW, *ACT)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.latest("pk"))
    before = everything()

    for path, fields in every_action(letter=letter, run=run, rule=rule):
        operator.get(path, fields)
        assert strict.post(path, fields).status_code == 403

    assert everything() == before


def test_one_click_replays_one(operator: Client) -> None:
    letter = an_expired()

    page = operator.post(f"/admin/kanikojobs/deadletter/{letter.pk}/retry/", follow=True)

    letter.refresh_from_db()
    action = OperatorAction.objects.get()
    assert letter.state == "replayed"
    assert "Replayed: queued." in text_of(page)
    assert (action.by, action.via, action.reason) == (User.objects.get().username, "admin", "Retried from its page.")


def test_the_selected_ones_are_replayed_and_all_that_match_on_the_server(operator: Client) -> None:
    chosen, *others = [an_expired() for _ in range(60)]
    an_invalid()

    first = operator.post(
        "/admin/kanikojobs/deadletter/",
        {"action": "replay_selected", "_selected_action": [chosen.pk], "reason": "One."},
        follow=True,
    )
    operator.post(
        "/admin/kanikojobs/deadletter/?cause__exact=expired&state__exact=open",
        {
            "action": "replay_selected",
            "_selected_action": [others[0].pk],
            "select_across": "1",
            "reason": "All.",
        },
    )

    one, all_ = ReplayRun.objects.order_by("id")
    assert (one.total, one.reason, all_.total, all_.reason) == (1, "One.", 59, "All.")
    assert first.status_code == 200
    assert DeadLetter.objects.filter(state="open").count() == 1


def test_a_list_offers_the_plan_of_what_it_shows(viewer: Client) -> None:
    letter = a_failed_build()
    an_invalid()

    page = viewer.get(
        f"/admin/kanikojobs/deadletter/?fingerprint={letter.fingerprint}&third_party_id={letter.third_party_id}"
    )
    plan = viewer.get(links(page, to="/plan/")[0])
    unplannable = viewer.get("/admin/kanikojobs/deadletter/?origin__exact=queue")

    assert "What would come of 1 dead letter" in " ".join(text_of(plan).split())
    assert links(unplannable, to="/plan/") == []


def test_a_body_is_mended_on_its_page(operator: Client) -> None:
    letter = an_invalid(b"{ broken")
    path = f"/admin/kanikojobs/deadletter/{letter.pk}"

    form = text_of(operator.get(f"{path}/mend/"))
    checked = operator.post(f"{path}/check/", {"body": '{"id": 5}'}).json()
    refused = text_of(operator.post(f"{path}/mend/", {"body": '{"id": 5}', "reason": "Mended."}))
    taken = operator.post(f"{path}/mend/", {"body": a_message().body.decode(), "reason": "Mended."}, follow=True)

    letter.refresh_from_db()
    assert "{ broken" in form
    assert not checked["good"]
    assert {"path": "id", "problem": "the number 5; must be a string"} in checked["faults"]
    assert "id: the number 5; must be a string" in refused
    assert "Replayed as mended: queued." in text_of(taken)
    assert bytes(letter.body) == b"{ broken"


def test_who_may_not_see_secrets_cannot_edit_what_would_lose_them() -> None:
    letter = an_invalid(b'{"password": "s3cr3t"}')
    client = client_with(*VIEW, "edit_deadletter", "replay_deadletter")
    path = f"/admin/kanikojobs/deadletter/{letter.pk}"

    pages = [client.get(f"{path}/{page}/") for page in ("change", "download")]

    assert client.get(f"{path}/mend/").status_code == 403
    assert all(b"s3cr3t" not in page.content for page in pages)


def test_a_rule_is_made_changed_and_never_deleted() -> None:
    client = client_with(*VIEW, "add_replayrule", "change_replayrule", "delete_replayrule")
    fields = {
        "name": "rate limits",
        "transient_class": "rate-limited",
        "delay": 600,
        "rate": 2,
        "max_failure_rate": 50,
        "most_times": 3,
        "reason": "They pass.",
    }

    client.post("/admin/kanikojobs/replayrule/add/", fields)
    rule = ReplayRule.objects.get()
    off = rule.enabled
    client.post(f"/admin/kanikojobs/replayrule/{rule.pk}/change/", fields | {"enabled": "on"})
    client.post(f"/admin/kanikojobs/replayrule/{rule.pk}/delete/", {"post": "yes"})
    rule.refresh_from_db()

    assert (off, rule.enabled) == (False, True)
    assert rule.made_by == User.objects.get().username
    assert list(OperatorAction.objects.order_by("id").values_list("kind", "outcome")) == [
        ("change-rule", "disabled"),
        ("change-rule", "enabled"),
    ]


def test_a_run_is_paused_resumed_and_cancelled_from_its_page(operator: Client) -> None:
    an_expired()
    run = runs.start(selection=Selection(), cut_off=now(), pace=runs.Pace(), author=AN_OPERATOR, reason="Again.")
    path = f"/admin/kanikojobs/replayrun/{run.pk}"

    states = []
    for action in ("pause", "resume", "cancel"):
        page = operator.post(f"{path}/{action}/", {"reason": "So."}, follow=True)
        run.refresh_from_db()
        states.append(run.state)
    without_reason = text_of(operator.post(f"{path}/pause/", {"reason": ""}, follow=True))

    assert states == ["paused", "running", "cancelled"]
    assert page.status_code == 200
    assert "Say why" in without_reason


@pytest.mark.parametrize("id", ["0", "999999", "x", "%00"])
@pytest.mark.parametrize("model", ["deadletter", "failuregroup", "replayrun"])
def test_what_is_not_there_is_no_error(operator: Client, model: str, id: str) -> None:
    assert operator.get(f"/admin/kanikojobs/{model}/{id}/change/", follow=True).status_code in (200, 404)


def test_pages_hold_to_the_content_security_policy(operator: Client) -> None:
    letter, run, rule = a_house()

    for path in every_page(letter=letter, run=run, rule=rule):
        response = operator.get(path)
        html = response.content.decode(errors="replace")
        assert "default-src 'none'" in response["Content-Security-Policy"]
        assert not re.search(r'<[^>]+\s(?:style|on\w+)="', html), path
        assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*application/json)", html), path
        assert "//" not in " ".join(re.findall(r'(?:src|href)="([^"#]+)"', html)).replace("http://www.w3.org", ""), path


def test_the_list_of_groups_costs_the_same_for_many_groups(viewer: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        a_failed_build(reason=f"Reason{chr(65 + number % 26)}{number}", message="words " + "abc"[number % 3] * 5)

    with django_assert_max_num_queries(14):
        viewer.get("/admin/kanikojobs/failuregroup/")


@pytest.mark.parametrize("field", ["ce_id", "fingerprint", "third_party_id", "parser_id"])
def test_a_whole_id_is_searched_for_by_index(field: str) -> None:
    assert f"{field}__exact" in DeadLetterAdmin.search_fields
    with connection.cursor() as cursor:
        # The table of a test is so small that reading all of it is cheaper.
        cursor.execute("SET LOCAL enable_seqscan = off")

        plan = DeadLetter.objects.filter(**{field: "x"}).values("pk").explain()

    assert "Index Cond" in plan
