"""The admin's lists: pages by the last row seen, without gaps, with counts that cost no more than the page."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from kanikojobs.admin import paging, rows
from tests.factories import a_kaniko_job, an_event

pytestmark = pytest.mark.django_db

EVENTS = "admin:kanikojobs_jobstartevent_changelist"


@pytest.fixture(autouse=True)
def _two_rows_per_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.ReadOnlyAdmin, "list_per_page", 2)


def page(client: Client, query: str = "?") -> tuple[list[int], str | None, str | None]:
    """The rows of a page, and the addresses of the newer and the older one."""
    response = client.get(reverse(EVENTS) + query)
    assert response.status_code == 200
    changes = response.context["cl"]
    return [row.pk for row in changes.result_list], changes.newer, changes.older


def test_pages_follow_each_other_without_gaps_whatever_comes_in_between(admin_client: Client) -> None:
    events = [an_event().pk for _ in range(5)]

    first, newer_than_first, older = page(admin_client)
    an_event()
    second, _, oldest = page(admin_client, older or "")
    third, newer, older_than_third = page(admin_client, oldest or "")
    back, _, _ = page(admin_client, newer or "")

    assert [*first, *second, *third] == events[::-1]
    assert (newer_than_first, older_than_third) == (None, None)
    assert back == second


def test_a_filter_begins_at_the_newest_and_is_kept_from_page_to_page(admin_client: Client) -> None:
    for priority in (1, 2, 1, 2, 1):
        an_event(priority=priority)

    response = admin_client.get(reverse(EVENTS), {"priority": "1", "before": "999999999"})
    changes = response.context["cl"]

    assert changes.get_query_string({}) == "?priority=1"
    assert changes.older == f"?priority=1&before={changes.result_list[-1].pk}"
    assert {row.priority for row in changes.result_list} == {1}


@pytest.mark.parametrize("position", ["x", "-1", "9" * 30, "%00", "1;--", "٣"])
def test_a_position_that_was_made_up_is_the_beginning(admin_client: Client, position: str) -> None:
    event = an_event()

    assert page(admin_client, f"?before={position}")[0] == [event.pk]


def test_beyond_the_last_row_there_is_a_way_back(admin_client: Client) -> None:
    event = an_event()

    found, newer, older = page(admin_client, "?before=0")

    assert (found, newer, older) == ([], "?", None)
    assert page(admin_client, str(newer))[0] == [event.pk]


def test_no_page_skips_rows_and_none_counts_them_all(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MOST_COUNTED", 3)
    events = [an_event().pk for _ in range(6)]

    with CaptureQueriesContext(
        connection,
    ) as asked:
        response = admin_client.get(reverse(EVENTS), {"before": events[3]})

    sql = [query["sql"] for query in asked.captured_queries if "kanikojobs_jobstartevent" in query["sql"]]
    assert sql
    assert not any("OFFSET" in query for query in sql)
    assert all("LIMIT" in query for query in sql)
    assert "3 or more job start events" in response.content.decode()


def test_a_short_list_is_counted_by_looking_at_it(admin_client: Client) -> None:
    an_event()

    with CaptureQueriesContext(connection) as asked:
        response = admin_client.get(reverse(EVENTS))

    assert "1 job start event" in response.content.decode()
    assert not any("COUNT" in query["sql"] for query in asked.captured_queries)


def test_nothing_can_be_sorted_by_what_has_no_index(admin_client: Client) -> None:
    first, second = an_event(event_id="a"), an_event(event_id="b")

    assert page(admin_client, "?o=1")[0] == [second.pk, first.pk]


def test_filters_are_kept_after_an_action(client: Client) -> None:
    client.force_login(User.objects.create_superuser("operator"))
    job = a_kaniko_job(state="failed", priority=3)
    address = reverse("admin:kanikojobs_kanikojob_changelist") + "?state__exact=failed&priority=3"

    response = client.post(address, {"action": "retry_selected", "_selected_action": [job.pk], "reason": "again"})

    assert response.status_code == 302
    assert response["Location"] == address
