"""One browser and one running demo for all tests here. The demo's processes end with the last of them."""

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Browser, BrowserContext

from deploy.local.chromium import NoChromium
from deploy.local.simulator import Simulator
from deploy.local.stack import LocalStack
from tests.browser.visitor import Visitor
from tests.house import browser as chromium
from tests.house.looking import DESK
from tests.house.server import House, a_house


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        with chromium.a_browser() as browser:
            yield browser
    except NoChromium as error:
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def house(
    browser: Browser, local_stack: LocalStack, postgres: object, rabbitmq: object, simulator_process: Simulator
) -> Iterator[House]:
    """The demo, after all that it sends has come to its end and its operator has done."""
    with a_house(local_stack) as house:
        yield house


@pytest.fixture(scope="package")
def rows(house: House) -> Mapping[str, int]:
    """What the demo has not is added; these rows are worth looking at."""
    return house.furnish()


@pytest.fixture(scope="package")
def context(browser: Browser, house: House) -> Iterator[BrowserContext]:
    with browser.new_context(viewport=DESK, storage_state=chromium.log_in(browser, house)) as context:
        context.set_default_timeout(chromium.PATIENCE_MS)
        yield context


@pytest.fixture(scope="package")
def tab(context: BrowserContext, house: House) -> Visitor:
    visitor = Visitor(house, context.new_page())
    visitor.watch()
    return visitor


@pytest.fixture
def visitor(tab: Visitor) -> Iterator[Visitor]:
    """Whatever the browser complains of, or asks elsewhere, fails the test."""
    tab.complaints.clear()
    tab.page.set_viewport_size(DESK)
    yield tab
    assert "\n".join(tab.complaints) == ""


@pytest.fixture
def stranger(browser: Browser, house: House) -> Iterator[Visitor]:
    """Nobody that is known, in a browser of their own; what it complains of is for the test to judge."""
    with browser.new_context(viewport=DESK) as context:
        context.set_default_timeout(chromium.PATIENCE_MS)
        stranger = Visitor(house, context.new_page())
        stranger.watch()
        yield stranger
