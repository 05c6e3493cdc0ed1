"""One box finds an event by any id, by an index each, and goes straight to it if it is the only one."""

from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from kanikojobs import finding
from kanikojobs.models import JobEvidence, JobStartEvent
from tests.factories import a_dead_letter, a_kaniko_job, an_event

pytestmark = pytest.mark.django_db

DIGEST = "sha256:" + "ab" * 32
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UID = UUID("5f2b6c1e-8d4a-4f3b-9a67-0c1d2e3f4a5b")


@pytest.fixture
def event() -> JobStartEvent:
    """With every id that there is, beside another that shares none."""
    other = a_kaniko_job(event=an_event(third_party_id="other"), state="succeeded")
    JobEvidence.objects.create(kaniko_job=other, image_digest="sha256:" + "cd" * 32)
    event = an_event(
        event_id="Event-1",
        correlation_id="correlation 1",
        third_party_id="third",
        parser_id="parser",
        job_name="as-asked-for",
        trace_id=TRACE,
    )
    job = a_kaniko_job(event=event, state="succeeded", name="kaniko-job-slug", job_uid=UID)
    JobEvidence.objects.create(kaniko_job=job, image_digest=DIGEST)
    return event


IDS = [
    ("Event-1", "event ID"),
    ("correlation 1", "correlation ID"),
    ("third", "third party ID"),
    ("parser", "parser ID"),
    ("as-asked-for", "job name"),
    ("kaniko-job-slug", "Kubernetes name"),
    ("job.batch/kaniko-job-slug", "Kubernetes name"),
    ("kaniko-job-slug-x7k2p", "Kubernetes name"),
    ("pod/kaniko-job-slug-x7k2p", "Kubernetes name"),
    (str(UID).upper(), "Job UID"),
    (DIGEST, "image digest"),
    (DIGEST.removeprefix("sha256:"), "image digest"),
    (f"registry:5000/third/parser@{DIGEST}", "image digest"),
    (TRACE, "trace ID"),
    (f"00-{TRACE}-00f067aa0ba902b7-01", "trace ID"),
    ("  'Event-1' ", "event ID"),
]


@pytest.mark.parametrize(("text", "found_as"), IDS, ids=[text for text, _ in IDS])
def test_an_event_is_found_by_any_of_its_ids(event: JobStartEvent, text: str, found_as: str) -> None:
    found = finding.find(text)

    assert [(hit.id, hit.found_as, hit.states) for hit in found.hits] == [(event.pk, (found_as,), ("succeeded",))]


@pytest.mark.parametrize(
    "text", ["", "  ", "Event", "event-1", "%", "a\0b", "x" * 600, "sha256:", "' OR true --", "0" * 32, "☃"]
)
@pytest.mark.usefixtures("event")
def test_what_is_no_whole_id_finds_nothing(text: str) -> None:
    assert finding.find(text).hits == []


def test_a_dead_letter_that_became_no_event_is_found_too() -> None:
    letter = a_dead_letter(ce_id="lost", third_party_id="third")
    a_dead_letter(ce_id="kept", event=an_event(event_id="kept"))

    lost, kept = finding.find("lost"), finding.find("kept")

    assert [(hit.kind, hit.id, hit.third_party_id) for hit in lost.hits] == [("dead-letter", letter.pk, "third")]
    assert [hit.kind for hit in kept.hits] == ["event"]


def test_of_many_the_newest_are_told_and_that_there_are_more() -> None:
    events = [an_event(third_party_id="many") for _ in range(4)]

    found = finding.find("many", most=3)

    assert [hit.id for hit in found.hits] == [event.pk for event in events[:0:-1]]
    assert found.more


def test_one_hit_is_gone_to_and_several_are_shown(event: JobStartEvent, admin_client: Client) -> None:
    an_event(parser_id="parser", third_party_id="<b>bold</b>")

    one = admin_client.get(reverse("admin:find"), {"q": "Event-1"})
    several = admin_client.get(reverse("admin:find"), {"q": "parser"}).content.decode()
    none = admin_client.get(reverse("admin:find"), {"q": "<script>"}).content.decode()

    page = reverse("admin:kanikojobs_jobstartevent_change", args=[event.pk])
    assert one["Location"] == page
    assert f'href="{page}"' in several
    assert "&lt;b&gt;bold" in several
    assert "Nothing has the id <strong>&lt;script&gt;</strong>" in none


def a_reader(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def test_what_one_may_not_view_is_not_found(event: JobStartEvent, client: Client) -> None:
    a_dead_letter(ce_id="lost")
    a_reader(client, "view_deadletter")

    by_event = client.get("/async-jobs/search", {"q": event.event_id}).json()
    by_letter = client.get("/async-jobs/search", {"q": "lost"}).json()
    page = client.get(reverse("admin:find"), {"q": event.event_id})

    assert by_event["hits"] == []
    assert [hit["kind"] for hit in by_letter["hits"]] == ["dead-letter"]
    assert b"Nothing has the id" in page.content


def test_who_may_view_neither_is_refused(client: Client) -> None:
    assert a_reader(client).get("/async-jobs/search", {"q": "x"}).status_code == 403


def test_rest_finds_the_same(event: JobStartEvent, client: Client) -> None:
    a_reader(client, "view_jobstartevent", "view_kanikojob")

    answer: dict[str, Any] = client.get("/async-jobs/search", {"q": "pod/kaniko-job-slug-x7k2p"}).json()

    assert (answer["text"], answer["more"]) == ("kaniko-job-slug-x7k2p", False)
    assert [(hit["id"], hit["title"], hit["found_as"]) for hit in answer["hits"]] == [
        (event.pk, "Event-1", ["Kubernetes name"])
    ]


def test_every_lookup_has_an_index(event: JobStartEvent) -> None:
    """With whole-table scans forbidden as far as the planner can: what has no index would still show one."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for found_as, lookup in finding._LOOKUPS.items():
            values: dict[str, Any] = {"text": "x", "trace_id": TRACE, "names": ["x"], "uid": UID, "digest": DIGEST}
            cursor.execute(f"EXPLAIN {lookup}", values)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan" not in plan, f"{found_as}\n{plan}"
            assert "Index" in plan, found_as


@pytest.mark.parametrize("model", ["jobstartevent", "kanikojob", "jobattempt"])
def test_the_lists_find_by_the_same_ids(event: JobStartEvent, admin_client: Client, model: str) -> None:
    page = admin_client.get(reverse(f"admin:kanikojobs_{model}_changelist"), {"q": DIGEST})

    assert page.status_code == 200
    assert page.context["cl"].result_count == (0 if model == "jobattempt" else 1)
