"""The admin's pages: they answer whoever may view, change nothing for anybody, and show hostile text as text."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from kanikojobs.admin.rows import CappedPaginator, ReadOnlyAdmin
from kanikojobs.models import (
    BuildProfile,
    DeadLetter,
    Drift,
    JobAttempt,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    Outage,
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

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7|add:7 }}"


def a_hostile_event() -> JobStartEvent:
    return an_event(
        event_id=HOSTILE,
        source=HOSTILE,
        subject=HOSTILE,
        job_name=HOSTILE,
        correlation_id=HOSTILE,
        source_url=HOSTILE,
        extensions={HOSTILE: HOSTILE},
        data={HOSTILE: [HOSTILE]},
    )


def a_hostile_kaniko_job() -> KanikoJob:
    # Reasons and messages are what a cluster says of what an event asked for.
    job = a_kaniko_job(event=a_hostile_event(), state="failed", reason=HOSTILE[:64], message=HOSTILE)
    an_attempt(
        kaniko_job=job,
        outcome="refused",
        finished_at=datetime.now(UTC),
        http_status=422,
        reason=HOSTILE[:64],
        message=HOSTILE,
        duration=0.1,
    )
    return job


def a_hostile_dead_letter() -> DeadLetter:
    job = a_hostile_kaniko_job()
    return a_dead_letter(
        event=job.event,
        kaniko_job=job,
        reason=HOSTILE,
        faults=[{"path": HOSTILE, "problem": HOSTILE}],
        body=HOSTILE.encode() + b"\xff",
        content_type=HOSTILE,
        headers={HOSTILE: HOSTILE},
        properties={HOSTILE: HOSTILE},
        ce_id=HOSTILE,
        ce_source=HOSTILE,
    )


ROWS: dict[str, Callable[[], Model]] = {
    "jobstartevent": lambda: a_hostile_kaniko_job().event,
    "kanikojob": a_hostile_kaniko_job,
    "jobattempt": lambda: JobAttempt.objects.get(kaniko_job=a_hostile_kaniko_job()),
    "deadletter": a_hostile_dead_letter,
    "operatoraction": lambda: OperatorAction.objects.create(
        kind="discard",
        via="api",
        by=HOSTILE,
        reason=HOSTILE,
        target_type="deadletter",
        target_id=HOSTILE[:64],
        detail={HOSTILE: HOSTILE},
    ),
}
ROWS |= {
    "failuregroup": lambda: a_failure_group(
        signature=HOSTILE, sample=HOSTILE, note=HOSTILE, third_parties=[HOSTILE], open_letters=1
    ),
    "replayrun": lambda: a_replay_run(reason=HOSTILE, author_name=HOSTILE, note=HOSTILE, state="paused"),
    "replayitem": lambda: a_replay_item(letter=a_hostile_dead_letter(), detail=HOSTILE),
    "replayrule": lambda: a_replay_rule(name=HOSTILE, reason=HOSTILE, made_by=HOSTILE),
    "buildprofile": lambda: BuildProfile.objects.create(third_party_id=HOSTILE[:128], destination=HOSTILE[:512]),
    "drift": lambda: Drift.objects.create(kind="NoRow", namespace="builds", name=HOSTILE, message=HOSTILE),
    "prunerun": lambda: PruneRun.objects.create(kind=HOSTILE[:32], removed={HOSTILE: 1}),
    "outage": lambda: Outage.objects.create(reason=HOSTILE[:64], message=HOSTILE),
}
MODELS = list(ROWS)
EDITED = ("replayrule", "buildprofile")


@pytest.fixture
def viewer(client: Client) -> Client:
    """May view everything of ours, and nothing more."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="kanikojobs", codename__startswith="view_")
    )
    client.force_login(user)
    return client


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def page(name: str, model: str, *args: Any) -> str:
    return reverse(f"admin:kanikojobs_{model}_{name}", args=args)


def text_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return response.content.decode()


class Inline(HTMLParser):
    """Finds what a strict Content-Security-Policy forbids in a page, and what could only come from hostile text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        inert = given.get("type") == "application/json"
        if tag == "style" or (tag == "script" and "src" not in given and not inert):
            self.found.append(f"<{tag}>")
        self.found += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.found += [
            f"{tag} {name}={value}"
            for name, value in given.items()
            if name in ("src", "href", "action")
            and re.match(r"\s*(javascript:|data:text|[a-z]+://|//)", value or "", re.I)
        ]


def inline_in(html: str) -> list[str]:
    parser = Inline()
    parser.feed(html)
    return parser.found


def test_the_finder_finds_what_it_is_for() -> None:
    html = (
        "<style></style><p style='x' onclick=x><script>x</script><a href='javascript:x'></a><script src=//x></script>"
    )

    assert inline_in(html) == [
        "<style>",
        "p style",
        "p onclick",
        "<script>",
        "a href=javascript:x",
        "script src=//x",
    ]
    assert inline_in('<script src="/static/x.js"></script><a href="/x">x</a>') == []


def test_every_page_of_ours_is_tried_here() -> None:
    ours = {model._meta.model_name for model in admin.site._registry if model._meta.app_label == "kanikojobs"}

    assert ours == set(MODELS)


def test_nothing_of_django_q2_can_be_seen(root: Client) -> None:
    assert not [model for model in admin.site._registry if model._meta.app_label == "django_q"]
    assert root.get("/admin/django_q/").status_code == 404
    assert "django_q" not in text_of(root, "/admin/")


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_pages_answer_who_may_only_view(viewer: Client, model: str) -> None:
    row = ROWS[model]()

    listed, shown = text_of(viewer, page("changelist", model)), text_of(viewer, page("change", model, row.pk))

    assert page("change", model, row.pk) in listed
    assert 'name="_save"' not in shown
    assert "Delete" not in shown


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_list_is_a_list(viewer: Client, model: str) -> None:
    assert rows_shown(viewer, model) == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["changelist", "change"])
def test_hostile_text_is_shown_as_text(viewer: Client, model: str, name: str) -> None:
    row = ROWS[model]()

    html = text_of(viewer, page(name, model, *([] if name == "changelist" else [row.pk])))

    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "14" not in re.findall(r"onerror=alert\(1\)&gt;(\d+)", html)
    assert inline_in(html) == []
    assert "&lt;script&gt;alert(1)" in html or "\\u003Cscript" in html


@pytest.mark.parametrize("model", [model for model in MODELS if model not in EDITED])
def test_nothing_is_added_changed_or_deleted_even_by_a_superuser(root: Client, model: str) -> None:
    row = ROWS[model]()
    before = type(row)._default_manager.filter(pk=row.pk).values().get()

    answers = [
        root.get(page("add", model)),
        root.post(page("add", model), {}),
        root.post(page("change", model, row.pk), {"state": "queued", "reason": "changed", "event_id": "changed"}),
        root.get(page("delete", model, row.pk)),
        root.post(page("delete", model, row.pk), {"post": "yes"}),
    ]
    root.post(page("changelist", model), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})

    assert [answer.status_code for answer in answers] == [403] * 5
    assert type(row)._default_manager.filter(pk=row.pk).values().get() == before
    assert "delete_selected" not in text_of(root, page("changelist", model))


@pytest.mark.parametrize("model", MODELS)
def test_who_may_not_view_sees_nothing(client: Client, model: str) -> None:
    row = ROWS[model]()
    client.force_login(User.objects.create_user("staff", is_staff=True))

    answers = [client.get(page("changelist", model)), client.get(page("change", model, row.pk))]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize("model", MODELS)
def test_who_is_not_logged_in_is_asked_to(client: Client, model: str) -> None:
    response = client.get(page("changelist", model))

    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


def rows_shown(client: Client, model: str, **query: str) -> list[int]:
    response = client.get(page("changelist", model), query)
    assert response.status_code == 200, query
    return sorted(row.pk for row in response.context["cl"].result_list)


SEARCHES: list[tuple[str, Callable[[], tuple[Model, str]]]] = [
    ("jobstartevent", lambda: (row := an_event(), row.event_id)),
    ("jobstartevent", lambda: (row := an_event(), row.correlation_id)),
    ("jobstartevent", lambda: (row := an_event(), row.parser_id)),
    ("jobstartevent", lambda: (row := an_event(third_party_id="x"), row.third_party_id)),
    ("jobstartevent", lambda: (an_event(event_id="with spaces"), '"with spaces"')),
    ("kanikojob", lambda: (row := a_kaniko_job(), row.name)),
    ("kanikojob", lambda: (row := a_kaniko_job(), row.event.event_id)),
    ("kanikojob", lambda: (row := a_kaniko_job(), row.event.correlation_id)),
    ("kanikojob", lambda: (row := a_kaniko_job(state="created"), str(row.job_uid))),
    ("kanikojob", lambda: (row := a_kaniko_job(), row.parser_id)),
    ("jobattempt", lambda: (row := an_attempt(), row.kaniko_job.name)),
    ("jobattempt", lambda: (row := an_attempt(), row.kaniko_job.event.event_id)),
    ("deadletter", lambda: (row := a_dead_letter(ce_id="x"), row.ce_id)),
    ("deadletter", lambda: (row := a_dead_letter(fingerprint="f" * 64), row.fingerprint)),
]


@pytest.mark.parametrize(("model", "found"), SEARCHES)
def test_a_row_is_found_by_its_whole_id(viewer: Client, model: str, found: Callable[[], tuple[Model, str]]) -> None:
    ROWS[model]()
    row, query = found()

    assert rows_shown(viewer, model, q=query) == [row.pk]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("query", ["nothing", HOSTILE, "a\x00b", "'", '"', "%", "9" * 400, "\u202e"])
def test_any_search_is_answered(viewer: Client, model: str, query: str) -> None:
    an_attempt()
    a_dead_letter()

    response = viewer.get(page("changelist", model), {"q": query})

    assert response.status_code == 200
    assert inline_in(response.content.decode()) == []
    assert "<script>alert" not in response.content.decode()


FILTERS: list[tuple[str, str, str, Callable[[], Model]]] = [
    ("jobstartevent", "origin__exact", "direct", lambda: an_event(origin="direct")),
    ("jobstartevent", "priority", "1", lambda: an_event(priority=1)),
    ("kanikojob", "state__exact", "running", lambda: a_kaniko_job(state="running")),
    ("kanikojob", "priority", "1", lambda: a_kaniko_job(event=an_event(priority=1))),
    (
        "jobattempt",
        "outcome__exact",
        "lost",
        lambda: an_attempt(outcome="lost", finished_at=datetime.now(UTC)),
    ),
    ("deadletter", "cause__exact", "expired", lambda: a_dead_letter(cause="expired")),
    ("deadletter", "state__exact", "discarded", lambda: a_dead_letter(state="discarded")),
    ("deadletter", "origin__exact", "direct", lambda: a_dead_letter(origin="direct")),
]


@pytest.mark.parametrize(
    ("model", "name", "value", "make"), FILTERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_list_is_filtered(viewer: Client, model: str, name: str, value: str, make: Callable[[], Model]) -> None:
    ROWS[model]()
    row = make()

    assert rows_shown(viewer, model, **{name: value}) == [row.pk]
    assert len(rows_shown(viewer, model)) > 1


@pytest.mark.parametrize("model", MODELS)
def test_a_filter_that_makes_no_sense_filters_nothing_or_is_left_out(viewer: Client, model: str) -> None:
    ROWS[model]()

    for query in ({"priority": "many"}, {"nonsense": "1"}, {"state__exact": "paused"}, {"o": "99.-99"}, {"p": "9999"}):
        response = viewer.get(page("changelist", model), query)
        assert response.status_code in (200, 302), query


def test_the_page_of_a_dead_letter_shows_its_evidence(viewer: Client) -> None:
    letter = a_dead_letter(body=b'{"id": "caf\xc3\xa9"}\xff', headers={"x-death": "7"}, reason="first\nsecond")

    shown = text_of(viewer, page("change", "deadletter", letter.pk))

    assert "7b 22 69 64 22 3a 20 22 63 61 66 c3 a9 22 7d ff" in shown
    assert "x-death" in shown
    assert "second" in shown


def test_the_list_of_dead_letters_shows_a_reason_in_one_line(viewer: Client) -> None:
    a_dead_letter(reason="first\nsecond")
    a_dead_letter(reason="x" * 500)

    listed = text_of(viewer, page("changelist", "deadletter"))

    assert "first …" in listed
    assert "second" not in listed
    assert "x" * 120 + " …" in listed
    assert "x" * 121 not in listed


def test_an_event_leads_to_its_kaniko_jobs_and_they_to_their_attempts(viewer: Client) -> None:
    job = a_kaniko_job(state="failed")
    an_attempt(kaniko_job=job, outcome="refused", finished_at=datetime.now(UTC), reason="Invalid", http_status=422)

    event, own = (
        text_of(viewer, page("change", "jobstartevent", job.event.pk)),
        text_of(viewer, page("change", "kanikojob", job.pk)),
    )

    assert page("change", "kanikojob", job.pk) in event
    assert "Invalid" in own
    assert "422" in own


@pytest.mark.parametrize(
    ("model", "payload"), [("jobstartevent", '"data"'), ("deadletter", '"body"'), ("deadletter", '"headers"')]
)
def test_a_list_does_not_read_what_only_a_page_shows(
    viewer: Client, model: str, payload: str, django_assert_max_num_queries: Any
) -> None:
    ROWS[model]()

    with django_assert_max_num_queries(20) as listed:
        viewer.get(page("changelist", model))

    statements = [query["sql"] for query in listed.captured_queries]
    assert any(f'"kanikojobs_{model}"' in statement for statement in statements)
    assert not any(f'"kanikojobs_{model}".{payload}' in statement for statement in statements)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_costs_as_many_queries_for_many_rows_as_for_one(
    viewer: Client, model: str, django_assert_max_num_queries: Any
) -> None:
    def one_more() -> None:
        an_attempt()
        a_dead_letter()

    one_more()
    viewer.get(page("changelist", model))
    with django_assert_max_num_queries(20) as one:
        viewer.get(page("changelist", model))
    for _ in range(5):
        one_more()
    with django_assert_max_num_queries(20) as many:
        viewer.get(page("changelist", model))

    assert len(many) == len(one)


def test_rows_are_counted_up_to_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kanikojobs.admin.paging.MOST_COUNTED", 3)
    for _ in range(5):
        an_event()

    assert CappedPaginator(JobStartEvent.objects.order_by("-id"), 2).count == 3


def test_all_of_ours_only_read_but_for_what_people_make() -> None:
    ours = [model for model in admin.site._registry if model._meta.app_label == "kanikojobs"]

    written = [model for model in ours if not isinstance(admin.site._registry[model], ReadOnlyAdmin)]
    assert {model._meta.model_name for model in written} == set(EDITED)


PAGES = [
    "/admin/",
    "/admin/?part=overview",
    "/admin/kanikojobs/",
    "/admin/auth/user/",
    "/admin/auth/user/add/",
    "/admin/password_change/",
    *[f"/admin/kanikojobs/{model}/" for model in MODELS],
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_nothing_inline_and_nothing_from_elsewhere(root: Client, path: str) -> None:
    a_hostile_dead_letter()

    assert inline_in(text_of(root, path)) == []


def test_the_log_in_has_nothing_inline_and_nothing_from_elsewhere(client: Client) -> None:
    assert inline_in(text_of(client, "/admin/login/?next=" + HOSTILE)) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 302),
        ("/events", 405),
        ("/health", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/async-jobs/stats", 200),
        ("/async-jobs/jobs", 401),
        ("/api/docs/", 401),
        ("/admin/", 302),
        ("/admin/login/", 200),
        ("/nowhere", 404),
    ],
)
def test_every_answer_has_a_strict_policy(client: Client, path: str, status: int) -> None:
    response = client.get(path)

    policy = dict(part.strip().split(" ", 1) for part in response["Content-Security-Policy"].split(";"))
    assert response.status_code == status
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response["X-Frame-Options"] == "DENY"
    assert response["X-Content-Type-Options"] == "nosniff"


def test_a_refused_host_and_an_error_have_the_policy_too(settings: Any) -> None:
    client = Client(raise_request_exception=False)
    settings.KANIKOJOBS_MAX_EVENT_BYTES = None  # breaks the sink

    answers = [
        client.get("/health", headers={"host": "elsewhere.example"}),
        client.post("/", json.dumps({}), content_type="application/json"),
    ]

    assert [answer.status_code for answer in answers] == [400, 500]
    assert all("default-src 'none'" in answer["Content-Security-Policy"] for answer in answers)
