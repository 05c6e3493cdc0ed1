"""Every page is right: it fits a desk and a phone, can be read in the light and the dark, and used by the keyboard.

axe finds no serious fault on it, and the browser has nothing to complain of: no error, nothing that the
Content-Security-Policy forbids, no request to another host.
"""

from collections.abc import Mapping

import pytest
from django.template.loader import render_to_string
from playwright.sync_api import Route, expect

from deploy.local.stack import CHECKOUT
from tests.browser.visitor import Visitor
from tests.house import browser as chromium
from tests.house import looking
from tests.house.looking import DESK, PHONE, Eyes
from tests.house.pages import NO_PAGES, PAGES, Page, routes_for_people
from tests.house.rows import STRANGER

# What is around the content is the same everywhere, and looked at on these.
WHOLE = ("home", "list: job start event")
# Its markup is Swagger UI's own, and has faults that only they can mend.
OF_OTHERS = ("page of the REST API",)
ERRORS = sorted((CHECKOUT / "templates").glob("[0-9]*.html"))


@pytest.fixture(scope="package")
def eyes() -> Eyes:
    """They know what they have seen on other pages."""
    return Eyes()


def test_every_route_is_a_page_that_is_looked_at_or_shows_none() -> None:
    routes = set(routes_for_people())
    redirects = {route for route in routes if route.endswith("<path:object_id>/")} | {"admin/(?P<url>.*)$"}
    of_models = {route for route in routes if route.endswith(("_add", "_delete", "_history"))}

    assert routes - redirects - of_models - {page.route for page in PAGES} == set(NO_PAGES)
    assert {page.route for page in PAGES} <= routes


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_a_page_is_right(visitor: Visitor, eyes: Eyes, rows: Mapping[str, int], page: Page) -> None:
    shown = visitor.go(page.path(rows))
    if page.route == "docs":
        expect(shown.get_by_text("/async-jobs/search").first).to_be_visible(timeout=chromium.PATIENCE_MS)
    elif (live := shown.locator("#live-switch")).count():
        live.uncheck()  # what is looked at stays as it is

    if page.name in OF_OTHERS:
        assert [what for size in (DESK, PHONE) for what in looking.hidden(shown, size=size)] == []
        return
    assert shown.locator("h1").count() == 1
    assert eyes.faults(shown, part="body" if page.name in WHOLE else "#content") == []


def test_the_page_that_asks_before_several_rows_are_deleted_is_right(
    visitor: Visitor, eyes: Eyes, rows: Mapping[str, int]
) -> None:
    page = visitor.go("/admin/auth/user/")
    page.get_by_role("row", name=STRANGER).get_by_role("checkbox").check()
    page.locator("select[name=action]").select_option("delete_selected")
    with page.expect_navigation():
        page.get_by_role("button", name="Go").click()

    assert page.locator("h1").inner_text() == "Delete multiple objects"
    assert eyes.faults(page, part="#content") == []


def test_the_pages_for_strangers_are_right(stranger: Visitor, eyes: Eyes, rows: Mapping[str, int]) -> None:
    page = stranger.go("/admin/")
    assert eyes.faults(page) == []

    page = stranger.go("/admin/")
    stranger.log_in(user=STRANGER, password="wrong")
    assert "correct username and password" in page.locator(".errornote").inner_text()
    assert eyes.faults(page) == []

    page = stranger.go("/admin/")
    stranger.log_in(user=STRANGER, password=stranger.house.password)
    assert "no permission" in page.locator("#content").inner_text()
    assert eyes.faults(page) == []

    page = stranger.go("/admin/")
    with page.expect_navigation():
        page.get_by_role("button", name="Log out").click()
    assert page.locator("h1").inner_text() == "Logged out"
    assert eyes.faults(page) == []
    assert stranger.complaints == []


def test_each_error_has_a_page_that_is_right(stranger: Visitor, eyes: Eyes) -> None:
    def answer(route: Route) -> None:
        template = route.request.url.rpartition("/")[2]
        route.fulfill(status=int(template[:3]), content_type="text/html", body=render_to_string(template))

    stranger.page.route("**/[0-9]*.html", answer)

    for template in ERRORS:
        page = stranger.go(f"/{template.name}")
        assert page.locator("h1").count() == 1
        assert eyes.faults(page) == [], template.name
    # That it is no success is an error of the console too.
    assert [said for said in stranger.complaints if ".html" not in said] == []


def test_a_page_that_is_not_there_is_said_to_be_missing(stranger: Visitor) -> None:
    page = stranger.go("/nowhere")

    assert page.title().startswith("Not found")
    assert [said for said in stranger.complaints if page.url not in said] == []
