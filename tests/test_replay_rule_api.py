"""Standing rules over REST: listed, made, changed and switched off, by whom, and on record."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from kanikojobs.models import OperatorAction, ReplayRule
from tests.factories import a_replay_rule

pytestmark = pytest.mark.django_db

URL = "/async-jobs/replay-rules"
A_RULE: dict[str, Any] = {"name": "rate limits", "transient_class": "rate-limited", "reason": "They pass."}


def client_with(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{User.objects.count()}")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(HTTP_ACCEPT="application/json")
    client.force_login(user)
    return client


def send(client: Client, method: str, path: str = "", **body: Any) -> Any:
    return getattr(client, method)(f"{URL}{path}", json.dumps(body), content_type="application/json")


@pytest.fixture
def maker() -> Client:
    return client_with("view_replayrule", "add_replayrule", "change_replayrule")


def test_a_rule_is_made_and_is_off_until_somebody_enables_it(maker: Client) -> None:
    answer = send(maker, "post", **A_RULE, delay=600)

    rule = ReplayRule.objects.get()
    action = OperatorAction.objects.get()
    assert answer.status_code == 201
    assert answer.json() | A_RULE | {"id": rule.pk, "enabled": False, "delay": 600} == answer.json()
    assert (rule.made_by, rule.enabled, rule.rate) == ("user-0", False, 1.0)
    assert (action.kind, action.by, action.via, action.reason) == ("change-rule", "user-0", "api", "They pass.")


def test_rules_are_listed_filtered_and_shown(maker: Client) -> None:
    on, off = a_replay_rule(enabled=True), a_replay_rule()

    everything = maker.get(URL).json()["results"]
    enabled = maker.get(f"{URL}?enabled=true").json()["results"]
    one = maker.get(f"{URL}/{off.pk}").json()

    assert [rule["id"] for rule in everything] == [off.pk, on.pk]
    assert [rule["id"] for rule in enabled] == [on.pk]
    assert one == everything[0]


def test_what_is_sent_is_changed_and_the_rest_stays(maker: Client) -> None:
    rule = a_replay_rule(rate=2, delay=60)

    answer = send(maker, "patch", f"/{rule.pk}", rate=5, enabled=True, reason="The limit was raised.")

    rule.refresh_from_db()
    action = OperatorAction.objects.get()
    assert answer.status_code == 200
    assert (rule.rate, rule.delay, rule.enabled, rule.reason) == (5, 60, True, "The limit was raised.")
    assert (action.outcome, action.detail["rate"], action.target_id) == ("enabled", 5, str(rule.pk))


def test_a_rule_is_switched_off_once(maker: Client) -> None:
    rule = a_replay_rule(enabled=True)

    answers = [send(maker, "post", f"/{rule.pk}/switch-off", reason="Enough.") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 409]
    assert [answer.json()["enabled"] for answer in answers] == [False, False]
    assert OperatorAction.objects.get().reason == "Enough."


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": ""}, "name"),
        ({"name": "taken"}, "name"),
        ({"transient_class": "bad-weather"}, "transient_class"),
        ({"rate": 0}, "rate"),
        ({"rate": "nan"}, "rate"),
        ({"rate": 1001}, "rate"),
        ({"max_failure_rate": 101}, "max_failure_rate"),
        ({"max_failure_rate": "inf"}, "max_failure_rate"),
        ({"most_times": 1}, "most_times"),
        ({"delay": -1}, "delay"),
        ({"delay": 2**31}, "delay"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["post", "patch"])
def test_what_makes_no_sense_is_refused_by_name(
    maker: Client, method: str, changes: dict[str, Any], complaint: str
) -> None:
    a_replay_rule(name="taken")
    rule = a_replay_rule()
    before = ReplayRule.objects.values().get(pk=rule.pk)

    answer = send(maker, method, f"/{rule.pk}" if method == "patch" else "", **A_RULE | changes)

    assert answer.status_code == 400
    assert set(answer.json()) == {complaint}
    assert ReplayRule.objects.values().get(pk=rule.pk) == before
    assert ReplayRule.objects.count() == 2


def test_a_change_without_a_reason_is_refused(maker: Client) -> None:
    rule = a_replay_rule()

    answer = send(maker, "patch", f"/{rule.pk}", rate=5)

    assert (answer.status_code, set(answer.json())) == (400, {"reason"})


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("post", "", "add_replayrule"),
        ("patch", "/{}", "change_replayrule"),
        ("post", "/{}/switch-off", "change_replayrule"),
    ],
)
def test_each_action_needs_its_permission(method: str, path: str, permission: str) -> None:
    path = path.format(a_replay_rule(enabled=True).pk)
    others = {"view_replayrule", "add_replayrule", "change_replayrule", "replay_deadletter"} - {permission}

    refused = send(client_with(*others), method, path, **A_RULE).status_code
    stranger = send(Client(), method, path, **A_RULE).status_code

    assert (refused, stranger) == (403, 401)
    assert not OperatorAction.objects.exists()
    assert send(client_with(permission), method, path, **A_RULE).status_code in (200, 201)


@pytest.mark.parametrize("method", ["delete", "put"])
def test_no_rule_is_deleted_or_replaced(maker: Client, method: str) -> None:
    rule = a_replay_rule()

    answer = send(maker, method, f"/{rule.pk}", **A_RULE)

    assert answer.status_code in (403, 405)
    assert ReplayRule.objects.get() == rule


def test_the_openapi_document_has_an_example_for_each_action(admin_client: Client) -> None:
    paths = admin_client.get("/api/schema/", HTTP_ACCEPT="application/json").json()["paths"]

    for method, path in (("post", ""), ("patch", "/{id}"), ("post", "/{id}/switch-off")):
        body = paths[f"{URL}{path}"][method]["requestBody"]["content"]["application/json"]
        assert "reason" in next(iter(body["examples"].values()))["value"]
