"""What only a browser shows: pages that keep themselves up to date, charts with values, text that stays text."""

import re
from collections.abc import Mapping

from playwright.sync_api import expect

from tests.browser.visitor import Visitor
from tests.house import browser as chromium
from tests.house.rows import HOSTILE


def test_the_home_keeps_itself_up_to_date_and_stays_quiet_while_somebody_reads(visitor: Visitor) -> None:
    page = visitor.go("/admin/")
    verdict = page.locator(".verdict h2")
    verdict.evaluate("element => { element.textContent = 'stale' }")
    expect(verdict).not_to_have_text("stale", timeout=chromium.PATIENCE_MS)

    page.get_by_text("As a table").first.click()
    verdict.evaluate("element => { element.textContent = 'read' }")
    page.evaluate("refresh()")

    expect(verdict).to_have_text("read")
    assert page.locator("details[open]").count() == 1


def test_a_chart_tells_its_values_and_has_them_in_a_table(visitor: Visitor) -> None:
    page = visitor.go("/admin/")

    title = page.locator(".chart .column title").first.text_content() or ""
    page.get_by_text("As a table").first.click()

    assert re.fullmatch(r"\d\d \w+ \d\d:\d\d: \d+ created, \d+ failed", title)
    assert page.locator("details[open] tbody tr").count() == 60


def test_hostile_text_is_shown_and_not_run(visitor: Visitor, rows: Mapping[str, int]) -> None:
    page = visitor.go("/admin/kanikojobs/kanikojob/?reason=SourceNotFound")

    page.locator("#result_list th a").first.click()

    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert "forged" not in page.title()
