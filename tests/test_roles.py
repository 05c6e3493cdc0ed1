"""Who may do what, by every way there is: routes come from the URL resolver, actions from the admin's registry.

So a route or an action that is added is tried here with every role, and fails until `NEEDS` says what opens it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from kanikojobs.models import BuildProfile, Drift, OperatorAction, Outage, PruneRun
from tests.factories import (
    a_dead_letter,
    a_failure_group,
    a_kaniko_job,
    a_message,
    a_replay_item,
    a_replay_rule,
    a_replay_run,
    an_attempt,
    an_event,
)
from tests.test_architecture import OPEN

pytestmark = pytest.mark.django_db

# No operator's ways: those that are open to senders, by a token of their own, and a person's own log-in.
NOBODYS = {*(f"/{address}" for address in OPEN), "/admin/logout/", "/admin/password_change/"}
# The permission that opens each acting way; several where one does not suffice.
NEEDS: dict[str, set[str]] = {
    "POST /async-jobs/consumer/pause": {"pause_consumer"},
    "POST /async-jobs/consumer/resume": {"pause_consumer"},
    "POST /async-jobs/jobs/{kanikojob}/retry": {"retry_kanikojob"},
    "POST /async-jobs/jobs/{kanikojob}/cancel": {"cancel_kanikojob"},
    "POST /async-jobs/dead-letters/discard": {"discard_deadletter"},
    "POST /async-jobs/dead-letters/restore": {"discard_deadletter"},
    "POST /async-jobs/dead-letters/{deadletter}/discard": {"discard_deadletter"},
    "POST /async-jobs/dead-letters/{deadletter}/restore": {"discard_deadletter"},
    "POST /async-jobs/dead-letters/{deadletter}/replay": {"replay_deadletter", "edit_deadletter"},
    "PATCH /async-jobs/failure-groups/{failuregroup}": {"change_failuregroup"},
    "POST /async-jobs/replays": {"replay_deadletter"},
    "POST /async-jobs/replays/{replayrun}/pause": {"replay_deadletter"},
    "POST /async-jobs/replays/{replayrun}/resume": {"replay_deadletter"},
    "POST /async-jobs/replays/{replayrun}/cancel": {"replay_deadletter"},
    "POST /async-jobs/replay-rules": {"add_replayrule"},
    "PATCH /async-jobs/replay-rules/{replayrule}": {"change_replayrule"},
    "POST /async-jobs/replay-rules/{replayrule}/switch-off": {"change_replayrule"},
    "POST /admin/kanikojobs/operatoraction/consumer/": {"pause_consumer"},
    "POST /admin/kanikojobs/kanikojob/{kanikojob}/retry/": {"retry_kanikojob"},
    "POST /admin/kanikojobs/kanikojob/{kanikojob}/cancel/": {"cancel_kanikojob"},
    "action kanikojob.retry_selected": {"retry_kanikojob"},
    "action kanikojob.cancel_selected": {"cancel_kanikojob"},
    "POST /admin/kanikojobs/deadletter/{deadletter}/retry/": {"replay_deadletter"},
    "POST /admin/kanikojobs/deadletter/{deadletter}/mend/": {
        "replay_deadletter",
        "edit_deadletter",
        "view_secrets_deadletter",
    },
    "POST /admin/kanikojobs/deadletter/{deadletter}/discard/": {"discard_deadletter"},
    "POST /admin/kanikojobs/deadletter/{deadletter}/restore/": {"discard_deadletter"},
    "action deadletter.replay_selected": {"replay_deadletter"},
    "action deadletter.discard_selected": {"discard_deadletter"},
    "action deadletter.restore_selected": {"discard_deadletter"},
    "POST /admin/kanikojobs/failuregroup/{failuregroup}/note/": {"change_failuregroup"},
    "POST /admin/kanikojobs/failuregroup/{failuregroup}/discard/": {"discard_deadletter"},
    "POST /admin/kanikojobs/replayrun/start/": {"replay_deadletter"},
    "POST /admin/kanikojobs/replayrun/{replayrun}/pause/": {"replay_deadletter"},
    "POST /admin/kanikojobs/replayrun/{replayrun}/resume/": {"replay_deadletter"},
    "POST /admin/kanikojobs/replayrun/{replayrun}/cancel/": {"replay_deadletter"},
    "POST /admin/kanikojobs/replayrule/add/": {"add_replayrule"},
    "POST /admin/kanikojobs/replayrule/{replayrule}/change/": {"change_replayrule"},
    "POST /admin/kanikojobs/buildprofile/add/": {"add_buildprofile"},
    "POST /admin/kanikojobs/buildprofile/{buildprofile}/change/": {"change_buildprofile"},
    "POST /admin/kanikojobs/buildprofile/{buildprofile}/delete/": {"delete_buildprofile"},
    "action buildprofile.delete_selected": {"delete_buildprofile"},
}
# Answer to a POST, and change nothing: a plan, and what a body would come to.
PURE = {"POST /async-jobs/dead-letters/plan", "POST /async-jobs/dead-letters/{deadletter}/check"}
OURS = "kanikojobs"
OWN_APPS = ("kanikojobs", "auth", "authtoken", "admin")
REASON = "Because."


Rows = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do something: a route with a method, or an action of a list, and the requests that try it."""

    name: str
    requests: tuple[tuple[str, str], ...]
    fields: dict[str, Any] = field(default_factory=dict)


def routes(resolver: URLResolver | None = None, prefix: str = "/") -> Iterator[str]:
    for entry in (resolver or get_resolver()).url_patterns:
        route = prefix + str(entry.pattern).removeprefix("^")
        if isinstance(entry, URLResolver):
            yield from routes(entry, route)
        elif isinstance(entry, URLPattern):
            yield route.removesuffix("$").removesuffix(r"\Z").replace(r"\.", ".")


COLLECTIONS = {
    "events": "jobstartevent",
    "jobs": "kanikojob",
    "dead-letters": "deadletter",
    "failure-groups": "failuregroup",
    "replays": "replayrun",
    "replay-rules": "replayrule",
}
_PARAMETER = re.compile(r"<(?:\w+:)?\w+>|\(\?P<\w+>[^()]*\)")


def ways(rows: Rows) -> Iterator[Way]:
    """Every route with every method that may act, tried with each of the rows that its address can name."""
    for route in routes():
        part = route.split("/")[-2] if route.endswith("/") and "<" not in route else ""
        model = next((name for name in rows if f"/{name}/" in route), part)
        model = next((name for start, name in COLLECTIONS.items() if f"/async-jobs/{start}/" in route), model)
        addresses = (
            [_PARAMETER.sub(id, route) for id in rows.get(model, ["1"])] if _PARAMETER.search(route) else [route]
        )
        for method in ("POST", "PATCH", "PUT", "DELETE") if "/async-jobs/" in route else ("POST",):
            name = _PARAMETER.sub(f"{{{model}}}", route)
            yield Way(f"{method} {name}", tuple((method, address) for address in addresses))
    for registered, model_admin in admin.site._registry.items():
        name, label = registered._meta.model_name or "", registered._meta.app_label
        for action in model_admin.get_actions(a_request()):
            fields = {"action": action, "_selected_action": rows.get(name, ["1"]), "post": "yes"}
            yield Way(f"action {name}.{action}", (("POST", f"/admin/{label}/{name}/"),), fields)


def a_request() -> Any:
    request = RequestFactory().get("/admin/")
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    return request


@pytest.fixture
def rows() -> Rows:
    """Rows of everything, in each state that some action wants, by the name of their model."""
    failed = a_kaniko_job(event=an_event(source_url="https://github.com/notifi/parsers/p"), state="failed")
    group = a_failure_group(open_letters=1)
    letter = a_dead_letter(
        body=b"{", content_type="application/cloudevents+json", fingerprint=group.fingerprint, kaniko_job=None
    )
    action = OperatorAction.objects.create(kind="discard", by="somebody", via="admin", reason="Before.")
    made: dict[str, list[Any]] = {
        "jobstartevent": [failed.event],
        "kanikojob": [failed, a_kaniko_job()],
        "jobattempt": [an_attempt(kaniko_job=failed)],
        "deadletter": [a_dead_letter(state="discarded"), letter],
        "failuregroup": [group],
        "replayrun": [a_replay_run(state="paused"), a_replay_run()],
        "replayitem": [a_replay_item(letter=a_dead_letter(state="replayed"))],
        "replayrule": [a_replay_rule(enabled=True)],
        "operatoraction": [action],
        "buildprofile": [BuildProfile.objects.create(third_party_id="one")],
        "drift": [Drift.objects.create(kind="NoRow", namespace="builds", name="x", message="x")],
        "outage": [Outage.objects.create(reason="x", message="x")],
        "prunerun": [PruneRun.objects.create()],
        "user": [User.objects.create_user("somebody")],
    }
    assert made.keys() >= {model._meta.model_name for model in admin.site._registry if model._meta.app_label == OURS}
    found = {name: [str(row.pk) for row in rows] for name, rows in made.items()}
    found["failuregroup"].append(group.fingerprint)
    return found


def payload() -> dict[str, Any]:
    """What any of them could want."""
    return {
        "reason": REASON,
        "note": "Known.",
        "body": a_message().body.decode(),
        "name": "a new name",
        "transient_class": "evicted",
        "delay": 60,
        "rate": 2,
        "probe": 0,
        "max_failure_rate": 20,
        "most_times": 4,
        "cut_off": "2100-01-01T00:00:00Z",
        "third_party_id": "another",
        "max_active_jobs": 3,
    }


def client_with(*permissions: str) -> Client:
    user = User.objects.create_user(f"user-{User.objects.count()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(HTTP_ACCEPT="application/json, text/html")
    client.force_login(user)
    return client


def view_permissions() -> tuple[str, ...]:
    ours = Permission.objects.filter(content_type__app_label="kanikojobs", codename__startswith="view_")
    return tuple(ours.exclude(codename="view_secrets_deadletter").values_list("codename", flat=True))


def everything() -> tuple[Any, ...]:
    """A digest of every table, in one query."""
    tables = [model._meta.db_table for app in OWN_APPS for model in apps.get_app_config(app).get_models()]
    digests = ", ".join(f"(SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t)" for table in tables)  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {digests}")
        return tuple(cursor.fetchone())


def acts(client: Client, way: Way) -> bool:
    """Whether trying it changes anything. It is undone."""
    return any(
        changes(client, [way], paused=paused) for paused in ((False, True) if "consumer" in way.name else (False,))
    )


def changes(client: Client, tried: Iterable[Way], *, paused: bool = False) -> bool:
    """Whether trying all of these changes anything. It is undone."""
    with transaction.atomic():
        if paused:
            OperatorAction.objects.create(kind="pause-consumer", by="x", via="admin", reason="x")
        before = everything()
        for way in tried:
            send(client, way)
        changed = everything() != before
        transaction.set_rollback(True)
    return changed


def send(client: Client, way: Way) -> None:
    cache.clear()  # the rate limits
    for method, address in way.requests:
        if "/async-jobs/" in address:
            client.generic(method, address, json.dumps(payload() | {"filter": {}}), content_type="application/json")
        else:
            client.post(address, payload() | {"post": "yes"} | way.fields)


def acting(client: Client, tried: Sequence[Way]) -> set[str]:
    """The names of those that change something. None, as it should be, takes one look at the tables."""
    return {way.name for way in tried if acts(client, way)} if changes(client, tried) else set()


def a_superuser() -> Client:
    root = Client(HTTP_ACCEPT="application/json, text/html")
    root.force_login(User.objects.create_superuser("root"))
    return root


def test_what_may_be_sent_over_rest_is_known(rows: Rows) -> None:
    root = a_superuser()

    taken = set()
    for way in ways(rows):
        method, address = way.requests[-1]
        if "/async-jobs/" in address:
            cache.clear()
            # Without a body it does nothing, and is refused as a wrong request and not as a wrong method.
            status = root.generic(method, address, "{}", content_type="application/json").status_code
            taken |= {way.name} if status not in (403, 405) else set()

    assert taken == {name for name in {*NEEDS, *PURE} if "/async-jobs/" in name}


def test_what_is_not_known_to_act_does_not_act_even_for_a_superuser(rows: Rows) -> None:
    others = [way for way in ways(rows) if way.name not in NEEDS and f"/{OURS}/" in "".join(map(str, way.requests))]

    assert acting(a_superuser(), others) == set()


@pytest.mark.parametrize("needed", sorted({tuple(sorted(needed)) for needed in NEEDS.values()}), ids="+".join)
def test_what_a_way_needs_opens_it(needed: tuple[str, ...], rows: Rows) -> None:
    client = client_with(*view_permissions(), *needed)
    meant = [way for way in ways(rows) if NEEDS.get(way.name) == set(needed)]

    closed = {way.name for way in meant if not acts(client, way)}

    assert meant
    assert closed == set()


@pytest.mark.parametrize("missing", sorted({name for needed in NEEDS.values() for name in needed}))
def test_without_any_one_of_what_it_needs_a_way_is_closed(missing: str, rows: Rows) -> None:
    others = {name for needed in NEEDS.values() for name in needed} - {missing}
    client = client_with(*view_permissions(), *others)

    assert acting(client, [way for way in ways(rows) if missing in NEEDS.get(way.name, ())]) == set()


ROLES: dict[str, tuple[str, ...]] = {
    "without any permission": (),
    "who may view all, and secrets": ("view", "view_secrets_deadletter"),
}


@pytest.mark.parametrize("role", ROLES)
def test_who_may_not_act_changes_nothing_by_any_way(role: str, rows: Rows) -> None:
    client = client_with(*(name for part in ROLES[role] for name in (view_permissions() if part == "view" else [part])))

    assert acting(client, operators(rows)) == set()


def test_who_is_not_logged_in_changes_nothing_by_any_way(rows: Rows) -> None:
    assert acting(Client(), operators(rows)) == set()


def operators(rows: Rows) -> list[Way]:
    """All ways but those that are not for operators."""
    return [way for way in ways(rows) if way.name.split()[-1] not in NOBODYS]


# Their GET is for those who may view.
PAGES_THAT_ACT = {
    "/async-jobs/replays",
    "/async-jobs/replay-rules",
    "/async-jobs/replay-rules/{replayrule}",
    "/async-jobs/failure-groups/{failuregroup}",
    "/admin/kanikojobs/replayrule/{replayrule}/change/",
    "/admin/kanikojobs/buildprofile/{buildprofile}/change/",
}


def test_who_may_only_view_sees_every_page(rows: Rows) -> None:
    client = client_with(*view_permissions())
    closed = {name.split()[-1] for name in {*NEEDS, *PURE}} - PAGES_THAT_ACT
    pages = [
        way
        for way in ways(rows)
        if way.name.startswith("POST ")
        and (f"/{OURS}/" in way.name or "/async-jobs/" in way.name)
        and not way.name.endswith(("/add/", "/delete/", "/check/"))
        and way.name.split()[-1] not in closed
    ]

    statuses: dict[str, set[int]] = {}
    for way in pages:
        cache.clear()
        statuses[way.name] = {client.get(address).status_code for _, address in way.requests}

    assert len(pages) > 60
    # Not every address names a row that is there: a group has two, by its id and by its fingerprint.
    assert {way for way, answers in statuses.items() if not answers & {200, 302}} == {LOGS}
    assert {status for answers in statuses.values() for status in answers} == {200, 302, 404}


LOGS = "POST /async-jobs/jobs/{kanikojob}/logs"  # that there are none yet is a 404


def test_every_action_leaves_its_row_with_who_and_why(rows: Rows) -> None:
    root = a_superuser()

    silent = set()
    for way in ways(rows):
        if way.name not in NEEDS or "buildprofile" in way.name:
            continue  # the profiles of third parties have Django's own history
        with transaction.atomic():
            if "consumer" in way.name and not way.name.endswith("/pause"):
                OperatorAction.objects.create(kind="pause-consumer", by="x", via="admin", reason="x")
            send(root, way)
            if not OperatorAction.objects.filter(by="root", user__username="root", reason=REASON).exists():
                silent.add(way.name)
            transaction.set_rollback(True)

    assert silent == set()
