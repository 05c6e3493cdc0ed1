"""The REST API: what anybody may read, what needs a permission, and that its description is what it does."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from rest_framework.authtoken.models import Token

from kanikojobs import tallies
from kanikojobs.models import DeadLetter
from tests.factories import a_dead_letter, a_kaniko_job, an_attempt, an_event

pytestmark = pytest.mark.django_db

FLAT = {"worker_count", "queue_size", "max_queue_size", "total_queued", "results_count", "is_shutdown"}
LISTS = ["/async-jobs/events", "/async-jobs/jobs", "/async-jobs/dead-letters"]
HOSTILE = "<script>alert('\"')</script>"


@pytest.fixture(autouse=True)
def _nobody_has_called_yet() -> Iterator[None]:
    """The rate limits count in the cache, which outlives a test."""
    cache.clear()
    yield
    cache.clear()


def a_user(*permissions: str) -> User:
    user = User.objects.create_user(f"user-{User.objects.count()}")
    for permission in permissions:
        user.user_permissions.add(Permission.objects.get(codename=permission))
    return user


def caller(user: User) -> Client:
    """With a token, as programs call."""
    return Client(headers={"authorization": f"Token {Token.objects.create(user=user).key}"})


@pytest.fixture
def viewer() -> Client:
    return caller(a_user("view_jobstartevent", "view_kanikojob", "view_deadletter"))


def ids(response: Any) -> list[int]:
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def test_anybody_reads_the_six_flat_numbers_and_nothing_else(client: Client) -> None:
    tallies.add(tallies.counts({"intake/queue/recorded": 7}))

    response = client.get("/async-jobs/stats")

    assert response.status_code == 200
    assert response.json().keys() == FLAT
    assert response.json()["total_queued"] == 7


def test_a_user_without_the_permission_reads_no_more_than_anybody() -> None:
    assert caller(a_user("view_deadletter")).get("/async-jobs/stats").json().keys() == FLAT


def test_who_may_view_kaniko_jobs_reads_everything(viewer: Client) -> None:
    found = viewer.get("/async-jobs/stats").json()

    assert found.keys() > FLAT
    assert {"kaniko_jobs", "intake", "attempts", "dead_letters"} <= found.keys()


def test_a_wrong_token_is_told_so() -> None:
    response = Client(headers={"authorization": "Token nonsense"}).get("/async-jobs/stats")

    assert response.status_code == 401


@pytest.mark.parametrize("path", [*LISTS, *(f"{path}/1" for path in LISTS), "/api/schema/", "/api/docs/"])
def test_anybody_reads_nothing_else(client: Client, path: str) -> None:
    a_dead_letter()

    response = client.get(path)

    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Token")


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("/async-jobs/events", "view_jobstartevent"),
        ("/async-jobs/jobs", "view_kanikojob"),
        ("/async-jobs/dead-letters", "view_deadletter"),
        ("/api/schema/", "view_kanikojob"),
        ("/api/docs/", "view_kanikojob"),
    ],
)
def test_each_model_needs_its_own_permission(path: str, permission: str) -> None:
    others = {"view_jobstartevent", "view_kanikojob", "view_deadletter", "change_kanikojob"} - {permission}

    without, with_it = caller(a_user(*others)).get(path), caller(a_user(permission)).get(path)

    assert (without.status_code, with_it.status_code) == (403, 200)


def test_a_session_of_the_admin_reads_too(client: Client) -> None:
    client.force_login(a_user("view_kanikojob"))

    assert client.get("/async-jobs/jobs").status_code == 200


def test_who_was_deactivated_reads_nothing() -> None:
    user = a_user("view_kanikojob")
    program = caller(user)
    user.is_active = False
    user.save()

    assert program.get("/async-jobs/jobs").status_code == 401


@pytest.mark.parametrize("path", [*LISTS, *(f"{path}/1" for path in LISTS), "/async-jobs/stats"])
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_is_written_over_rest_even_by_a_superuser(path: str, method: str) -> None:
    program = caller(User.objects.create_superuser("root"))

    response = getattr(program, method)(path, {}, content_type="application/json")

    assert response.status_code in (403, 405)


def test_events_are_listed_newest_first_and_shown_with_all_that_was_sent(viewer: Client) -> None:
    first, second = an_event(extensions={"a": 1}, data={"note": HOSTILE}), an_event()
    jobs = [a_kaniko_job(event=first, number=number, state="failed") for number in (2, 1)]

    listed, item = viewer.get("/async-jobs/events"), viewer.get(f"/async-jobs/events/{first.pk}").json()

    assert ids(listed) == [second.pk, first.pk]
    assert "data" not in listed.json()["results"][0]
    assert (item["data"], item["extensions"]) == ({"note": HOSTILE}, {"a": 1})
    assert [job["id"] for job in item["kaniko_jobs"]] == [jobs[1].pk, jobs[0].pk]


def test_kaniko_jobs_are_listed_and_shown_with_their_attempts(viewer: Client) -> None:
    job = a_kaniko_job(state="failed", reason="CreateRejected")
    for number in (2, 1):
        an_attempt(kaniko_job=job, number=number, outcome="retry", finished_at=datetime.now(UTC), http_status=500)

    listed, item = viewer.get("/async-jobs/jobs"), viewer.get(f"/async-jobs/jobs/{job.pk}").json()

    assert ids(listed) == [job.pk]
    assert (item["state"], item["reason"], item["event"]) == ("failed", "CreateRejected", job.event.pk)
    assert [(attempt["number"], attempt["http_status"]) for attempt in item["attempts"]] == [(1, 500), (2, 500)]


def test_dead_letters_are_listed_and_shown_with_their_evidence(viewer: Client) -> None:
    letter = a_dead_letter(body=b"\xff<script>\x00", headers={"h": HOSTILE}, faults=[{"path": "id", "problem": "x"}])

    listed, item = viewer.get("/async-jobs/dead-letters"), viewer.get(f"/async-jobs/dead-letters/{letter.pk}").json()

    assert ids(listed) == [letter.pk]
    assert "body" not in listed.json()["results"][0]
    assert item["body"] == "\\xff<script>\x00"
    assert (item["headers"], item["faults"]) == ({"h": HOSTILE}, [{"path": "id", "problem": "x"}])


def test_answers_are_json_and_nothing_that_a_browser_would_run(viewer: Client) -> None:
    letter = a_dead_letter(reason=HOSTILE)

    response = viewer.get(f"/async-jobs/dead-letters/{letter.pk}", headers={"accept": "text/html"})

    assert response.status_code == 406
    assert viewer.get(f"/async-jobs/dead-letters/{letter.pk}")["Content-Type"] == "application/json"
    assert viewer.get(f"/async-jobs/dead-letters/{letter.pk}")["X-Content-Type-Options"] == "nosniff"


YESTERDAY = datetime.now(UTC) - timedelta(days=1)
FILTERS = [
    ("events", lambda: an_event(event_id="x"), lambda: an_event(), "event_id=x"),
    ("events", lambda: an_event(third_party_id="x"), lambda: an_event(), "third_party_id=x"),
    ("events", lambda: an_event(parser_id="x"), lambda: an_event(), "parser_id=x"),
    ("events", lambda: an_event(correlation_id="x"), lambda: an_event(), "correlation_id=x"),
    ("events", lambda: an_event(origin="direct"), lambda: an_event(), "origin=direct"),
    ("events", lambda: an_event(priority=1), lambda: an_event(), "priority=1"),
    ("events", lambda: an_event(priority=1), lambda: an_event(), "priority__lte=4"),
    ("events", lambda: an_event(priority=9), lambda: an_event(), "priority__gte=6"),
    ("events", lambda: an_event(), lambda: an_event(received_at=YESTERDAY), f"received_at__gte={datetime.now(UTC):%F}"),
    ("events", lambda: an_event(received_at=YESTERDAY), lambda: an_event(), f"received_at__lt={datetime.now(UTC):%F}"),
    ("jobs", lambda: a_kaniko_job(state="failed"), lambda: a_kaniko_job(), "state=failed"),
    ("jobs", lambda: a_kaniko_job(state="failed"), lambda: a_kaniko_job(), "state__in=failed,succeeded"),
    ("jobs", lambda: a_kaniko_job(reason="OOMKilled"), lambda: a_kaniko_job(), "reason=OOMKilled"),
    ("jobs", lambda: a_kaniko_job(name="x"), lambda: a_kaniko_job(), "name=x"),
    ("jobs", lambda: a_kaniko_job(third_party_id="x"), lambda: a_kaniko_job(), "third_party_id=x"),
    ("jobs", lambda: a_kaniko_job(parser_id="x"), lambda: a_kaniko_job(), "parser_id=x"),
    ("dead-letters", lambda: a_dead_letter(cause="expired"), lambda: a_dead_letter(), "cause=expired"),
    ("dead-letters", lambda: a_dead_letter(cause="expired"), lambda: a_dead_letter(), "cause__in=expired,maxlen"),
    ("dead-letters", lambda: a_dead_letter(state="replayed"), lambda: a_dead_letter(), "state=replayed"),
    ("dead-letters", lambda: a_dead_letter(fingerprint="x"), lambda: a_dead_letter(), "fingerprint=x"),
    ("dead-letters", lambda: a_dead_letter(ce_id=HOSTILE), lambda: a_dead_letter(), f"ce_id={quote(HOSTILE)}"),
]


@pytest.mark.parametrize(("list_", "wanted", "other", "query"), FILTERS, ids=[f"{row[0]}: {row[3]}" for row in FILTERS])
def test_a_list_is_filtered(viewer: Client, list_: str, wanted: Any, other: Any, query: str) -> None:
    other()
    row = wanted()
    other()

    assert ids(viewer.get(f"/async-jobs/{list_}?{query}")) == [row.pk]


def test_kaniko_jobs_are_found_by_their_event(viewer: Client) -> None:
    a_kaniko_job()
    job = a_kaniko_job()

    assert ids(viewer.get(f"/async-jobs/jobs?event={job.event.pk}")) == [job.pk]


@pytest.mark.parametrize(
    "path",
    [
        "/async-jobs/jobs?state=paused",
        "/async-jobs/jobs?event=x",
        "/async-jobs/jobs?event=99999999999999999999",
        "/async-jobs/jobs?name=%00",
        "/async-jobs/events?priority=many",
        "/async-jobs/events?event_id=a%00b",
        "/async-jobs/events?received_at__gte=yesterday",
        "/async-jobs/dead-letters?cause=boredom",
    ],
)
def test_a_filter_that_makes_no_sense_is_told_so(viewer: Client, path: str) -> None:
    response = viewer.get(path)

    assert response.status_code == 400
    assert response.json().keys() <= {"state", "event", "name", "priority", "event_id", "received_at__gte", "cause"}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("id", ["0", "999", "99999999999999999999", "x", "%00", "-1"])
def test_an_item_that_is_not_there_is_not_found(viewer: Client, path: str, id: str) -> None:
    assert viewer.get(f"{path}/{id}").status_code == 404


def test_pages_follow_each_other_without_gaps_whatever_comes_in_between(viewer: Client) -> None:
    rows = [an_event().pk for _ in range(5)]

    first = viewer.get("/async-jobs/events?page_size=2")
    an_event()
    second = viewer.get(first.json()["next"])
    third = viewer.get(second.json()["next"])
    back = viewer.get(second.json()["previous"])

    assert ids(first) + ids(second) + ids(third) == rows[::-1]
    assert third.json()["next"] is None
    assert ids(back) == ids(first)


@pytest.mark.parametrize("cursor", [b"o=x", b"p=x", b"p=-1", b"p=1;--", b"p=%00", b"p=\xd9\xa3x", b"\xff"])
def test_a_cursor_that_was_made_up_is_not_found(viewer: Client, cursor: bytes) -> None:
    assert viewer.get(f"/async-jobs/events?cursor={b64encode(cursor).decode()}").status_code == 404


def test_a_cursor_beyond_all_rows_is_one_like_any_other(viewer: Client) -> None:
    event = an_event()

    before, behind = (
        viewer.get("/async-jobs/events", {"cursor": b64encode(position).decode()})
        for position in (b"p=0", b"p=" + b"9" * 30)
    )

    assert ids(before) == []
    assert ids(behind) == [event.pk]


def test_a_page_is_no_larger_than_its_limit(viewer: Client) -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter(cause="invalid", origin="queue", reason="x", fingerprint="x", body=b"", message_hash=b"%d" % number)
        for number in range(501)
    )

    assert len(ids(viewer.get("/async-jobs/dead-letters"))) == 50
    assert len(ids(viewer.get("/async-jobs/dead-letters?page_size=100000"))) == 500


@pytest.mark.parametrize("list_", LISTS)
def test_a_list_costs_as_many_queries_for_many_rows_as_for_one(
    viewer: Client, list_: str, django_assert_max_num_queries: Any
) -> None:
    def one_more() -> None:
        job = a_kaniko_job(state="failed")
        an_attempt(kaniko_job=job)
        a_dead_letter(event=job.event, kaniko_job=job)

    one_more()
    with django_assert_max_num_queries(10) as one:
        viewer.get(list_)
    for _ in range(5):
        one_more()
    with django_assert_max_num_queries(10) as many:
        viewer.get(list_)

    assert len(many) == len(one)


@pytest.mark.parametrize(
    ("list_", "payload"),
    [
        ("/async-jobs/events", '"data"'),
        ("/async-jobs/dead-letters", '"body"'),
        ("/async-jobs/dead-letters", '"headers"'),
    ],
)
def test_a_list_does_not_read_what_it_does_not_show(
    viewer: Client, list_: str, payload: str, django_assert_max_num_queries: Any
) -> None:
    an_event()
    a_dead_letter()

    with django_assert_max_num_queries(10) as asked:
        viewer.get(list_)

    assert len(asked) > 0
    assert not [query["sql"] for query in asked.captured_queries if payload in query["sql"]]


def test_who_calls_too_often_is_asked_to_wait(client: Client) -> None:
    answers = [client.get("/async-jobs/stats").status_code for _ in range(61)]

    assert answers == [200] * 60 + [429]


def test_the_description_is_valid_and_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "schema.yml"

    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))

    text = file.read_text()
    for path in (*LISTS, "/async-jobs/stats"):
        assert f"{path}:" in text


def test_the_description_is_served(viewer: Client) -> None:
    response = viewer.get("/api/schema/", headers={"accept": "application/vnd.oai.openapi+json"})

    assert response.json()["paths"].keys() >= {"/async-jobs/events", "/async-jobs/events/{id}", "/async-jobs/stats"}


def test_the_page_of_the_description_needs_nothing_from_elsewhere_and_nothing_inline(viewer: Client) -> None:
    page = viewer.get("/api/docs/")
    script = viewer.get("/api/docs/?script=")

    html = page.content.decode()
    assert page.status_code == 200
    assert '<div id="swagger-ui">' in html
    assert "<style" not in html
    assert "style=" not in html
    assert "<script>" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert script["Content-Type"].startswith("application/javascript")
    assert "/api/schema/" in script.content.decode()
