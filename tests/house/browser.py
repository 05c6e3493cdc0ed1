"""Chromium, driven by Playwright: one for all tests, started once, and only if it shows that it works."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, Playwright, StorageState, sync_playwright

from deploy.local.chromium import Chromium, NoChromium, find_chromium
from tests.house.server import USER, House

PATIENCE_MS = 60_000  # for anything that a browser waits for: a machine may be slow, and no wait is longer than it must
ARGUMENTS = [
    "--no-sandbox",  # as root Chromium has none, and it opens our own pages only
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A headless Chromium that has shown a page. Raises `NoChromium`."""
    found = find_chromium()
    try:
        playwright = sync_playwright().start()
    except (Error, OSError) as error:
        raise NoChromium(f"Playwright's driver does not start: {error}") from None
    try:
        browser = _launch(playwright, found)
        yield browser
        browser.close()
    finally:
        playwright.stop()


def _launch(playwright: Playwright, found: Chromium) -> Browser:
    try:
        browser = playwright.chromium.launch(
            executable_path=found.program,
            args=ARGUMENTS,
            env={**os.environ, **found.environment},
            timeout=PATIENCE_MS,
        )
        # One that starts and cannot render, for want of a library, of memory or of a font, shows that only now.
        page = browser.new_page()
        page.goto("data:text/html,<p>a line of text", timeout=PATIENCE_MS)
        height = page.locator("p").evaluate("line => line.offsetHeight")
        page.close()
    except Error as error:
        raise NoChromium(f"{found.program} does not work: {' '.join(error.message.split())[:300]}") from None
    if not height:
        raise NoChromium(f"{found.program} does not work: it shows no text, so it has found no font")
    return browser


def log_in(browser: Browser, house: House) -> StorageState:
    """Log in as a person does. Returns what a context needs to be that person."""
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{house.address}/admin/")
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill(house.password)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{house.address}/admin/")
        return context.storage_state()
