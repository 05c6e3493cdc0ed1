"""The admin in a real browser: twenty questions in two clicks each, on any screen, by keyboard, without a complaint.

Where no Chromium is to be had, or the one that there is does not work, these tests are skipped, with the reason.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, ViewportSize, expect

from deploy.local.chromium import NoChromium
from deploy.local.stack import CHECKOUT, LocalStack
from tests.house import browser as chromium
from tests.house import looking, story
from tests.house.rows import HOSTILE
from tests.house.server import House, a_house

README = (CHECKOUT / "README.md").read_text()
DESK: ViewportSize = {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium.a_browser() as browser:
            yield browser
    except NoChromium as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def house(browser: Browser, local_stack: LocalStack, postgres: object) -> Iterator[House]:
    """Furnished once for all tests here, which only look."""
    with a_house(local_stack) as house:
        yield house


@dataclass
class Visitor:
    """Somebody who is logged in and goes from page to page in one tab; what the browser complains of is kept."""

    house: House
    page: Page
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.house.address + path)
        return self.page

    def be_at_home(self) -> Page:
        """On the home, which is asked for again only by who has left it."""
        return self.page if self.page.url == f"{self.house.address}/admin/" else self.go("/admin/")

    def watch(self) -> None:
        """A violation of the Content-Security-Policy is an error of the console."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._see)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(f"{said.text} ({said.location.get('url')})")

    def _see(self, asked: Request) -> None:
        if not asked.url.startswith("data:") and urlsplit(asked.url).netloc != urlsplit(self.house.address).netloc:
            self.complaints.append(f"asked elsewhere: {asked.url}")


@pytest.fixture(scope="module")
def context(browser: Browser, house: House) -> Iterator[BrowserContext]:
    with browser.new_context(viewport=DESK, storage_state=chromium.log_in(browser, house)) as context:
        context.set_default_timeout(chromium.PATIENCE_MS)
        yield context


@pytest.fixture(scope="module")
def tab(context: BrowserContext, house: House) -> Visitor:
    visitor = Visitor(house, context.new_page())
    visitor.watch()
    return visitor


@pytest.fixture
def visitor(tab: Visitor) -> Iterator[Visitor]:
    """Whatever the browser complains of, or asks elsewhere, fails the test."""
    tab.complaints.clear()
    yield tab
    assert "\n".join(tab.complaints) == ""


# --- The twenty questions -------------------------------------------------------------------------------------------

SECTION = README.partition("## Twenty questions")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.*?) \| (.+?) \| (\d) \|$", SECTION, re.MULTILINE)
# What the table calls by a general name, here in the house.
FOUND = {
    "the event's ID": story.EVENT_ID,
    "the pod's name": story.POD,
    "the image with its digest": f"registry:5000/third-party-9/parser-9@{story.DIGEST}",
    "the UID or the trace ID": str(story.UID),
}
NAMED = {"its name": "third-party-3"}
ANSWERS: dict[str, tuple[str, ...]] = {
    "Is it healthy, and if not, what is wrong?": ("Behind", "Kaniko Jobs wait"),
    "Is the consumer alive? The workers, the watcher?": ("Consumer", "1 cluster, 5 workers", "Watcher"),
    "Are we behind, and how old is the oldest?": ("oldest waits", "queued"),
    "How much waits in RabbitMQ?": ("in RabbitMQ", "412"),
    "What does that which waits wait for?": ("ForAWorker", "Unschedulable"),
    "What fails now, by cause?": ("OOMKilled: The container was killed", "AGAIN"),
    "What is new since an hour ago?": ("OOMKilled", "BuildStepFailed"),
    "How long does creating a Job take, this week?": ("p50", "p99"),
    "Which third party is noisy, and with what?": ("third-party-3", "running"),
    "What runs, and for how long?": ("kaniko-job-", "min"),
    "Why was this event not built?": ("Attempt 1 of Kaniko Job 1", "No matching distribution"),
    "Which event does this pod belong to?": (story.EVENT_ID,),
    "Which build made this image?": ("Kaniko Job 2 pushed its image", story.DIGEST),
    "Which event is this Job UID, or this trace, of?": ("Its trace", str(story.UID)),
    "What exactly was sent?": ('"source_url":', '"environment":'),
    "Was it delivered more than once?": ("Seen again, 1 time",),
    "Who retried it, and why?": ("night-shift retried", story.WHY),
    "Where is the log of a pod that is gone?": (story.LOG.splitlines()[2],),
    "What can be done about this failure?": ("mend the source",),
    "What did operators do lately, and why?": ("night-shift", story.WHY),
}


def test_the_table_has_twenty_questions_and_here_is_the_answer_of_each() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 21))
    assert [question for _, question, *_ in ROWS] == list(ANSWERS)


@pytest.mark.parametrize(
    ("question", "way", "place", "clicks"),
    [row[1:] for row in ROWS],
    ids=[f"{number} {question}" for number, question, *_ in ROWS],
)
def test_a_question_is_answered_within_two_clicks(
    visitor: Visitor, question: str, way: str, place: str, clicks: str
) -> None:
    page = visitor.be_at_home()
    steps = [step for step in way.split(", then ") if step]

    for step in steps:
        take(page, step)

    assert len(steps) == int(clicks) <= 2
    there = where(page, re.findall(r'"(.+?)"', place)[0])
    expect(there).to_be_visible()
    text = there.inner_text()
    for words in ANSWERS[question]:
        assert words in text


def take(page: Page, step: str) -> None:
    """One click, as the table says it: `find …` in the box at the top, or the link of that name."""
    with page.expect_navigation():
        if step.startswith("find "):
            page.get_by_role("searchbox", name="Find").fill(FOUND[step.removeprefix("find ")])
            page.keyboard.press("Enter")
        else:
            name = re.findall(r'"(.+?)"', step)[0]
            page.get_by_role("link", name=NAMED.get(name, name)).first.click()


def where(page: Page, name: str) -> Locator:
    """The part of the page under this heading or name."""
    heading = page.get_by_role("heading", name=name)
    parts = page.get_by_role("region", name=name, exact=True).or_(page.locator("section, fieldset").filter(has=heading))
    return (parts if parts.count() else page.locator("#content").filter(has=heading)).first


# --- On any screen, for anybody -------------------------------------------------------------------------------------

ADMIN = "/admin/kanikojobs/"
LISTS = {
    "home": "/admin/",
    "list of events": f"{ADMIN}jobstartevent/?priority=1",
    "list of failed Kaniko Jobs": f"{ADMIN}kanikojob/?state__exact=failed&reason=OOMKilled",
    "list of attempts": f"{ADMIN}jobattempt/",
    "list of dead letters": f"{ADMIN}deadletter/?cause=invalid",
    "list of failure groups": f"{ADMIN}failuregroup/",
    "list of replays": f"{ADMIN}replayrun/",
    "list of what replays did": f"{ADMIN}replayitem/",
    "list of replay rules": f"{ADMIN}replayrule/",
    "new replay rule": f"{ADMIN}replayrule/add/",
    "operator actions": f"{ADMIN}operatoraction/",
    "drift": f"{ADMIN}drift/",
    "outages": f"{ADMIN}outage/",
    "build profiles": f"{ADMIN}buildprofile/",
    "what was pruned": f"{ADMIN}prunerun/",
    "direct and queue": "/admin/flows/",
    "a list without rows": f"{ADMIN}jobstartevent/?q=nothing",
    "search": "/admin/find/",
    "search with several finds": "/admin/find/?q=third-party-1",
    "search without a find": "/admin/find/?q=nothing",
    "people": "/admin/auth/user/",
    "new password": "/admin/password_change/",
}
ROWS_PAGES = (
    "event",
    "failed Kaniko Job",
    "running Kaniko Job",
    "attempt",
    "dead letter",
    "mending a dead letter",
    "failure group",
    "plan of a replay",
    "replay",
    "operator action",
    "outage",
    "build profile",
)
# What is around the content is the same everywhere, and looked at on these.
WHOLE = ("home", "list of events")
# The others have the same templates and colours as one of these; each costs half a second of CPU.
OF_THEIR_OWN = (
    *WHOLE,
    "list of failed Kaniko Jobs",
    "list of failure groups",
    "operator actions",
    "new replay rule",
    "search with several finds",
    "event",
    "failed Kaniko Job",
    "running Kaniko Job",
    "dead letter",
    "mending a dead letter",
    "failure group",
    "plan of a replay",
    "replay",
)


@dataclass(frozen=True, slots=True)
class Opened:
    name: str
    page: Page

    @property
    def part(self) -> str:
        return "body" if self.name in WHOLE else "#content"


@pytest.fixture(scope="module", params=[*LISTS, *ROWS_PAGES])
def opened(request: pytest.FixtureRequest, tab: Visitor) -> Opened:
    """Each page in turn, opened once for all tests that look at it."""
    tab.complaints.clear()
    tab.page.set_viewport_size(DESK)
    page = tab.go(LISTS.get(request.param) or tab.house.pages[request.param])
    if (live := page.locator("#live-switch")).count():
        live.uncheck()  # what is looked at stays as it is
    return Opened(request.param, page)


def test_a_page_has_no_serious_fault_of_accessibility(opened: Opened) -> None:
    colours = opened.name in OF_THEIR_OWN

    assert looking.faults_of_accessibility(opened.page, part=opened.part, colours=colours) == []


@pytest.mark.parametrize("opened", OF_THEIR_OWN, indirect=True, scope="module")
def test_a_page_can_be_read_in_the_dark(opened: Opened) -> None:
    assert looking.faults_of_the_dark(opened.page, part=opened.part) == []


@pytest.mark.parametrize("opened", OF_THEIR_OWN, indirect=True, scope="module")
def test_the_keyboard_reaches_everything_on_a_page_and_shows_where_it_is(opened: Opened) -> None:
    reach = looking.reach(opened.page, part=opened.part)

    assert (reach.missed, reach.unseen) == ([], [])


def test_a_page_fits_a_desk_and_a_phone(opened: Opened) -> None:
    assert [what for width in (1440, 390) for what in looking.hidden(opened.page, width=width)] == []


def test_the_browser_has_nothing_to_complain_of(opened: Opened, tab: Visitor) -> None:
    """The last of a page's tests: what it asks for late has been asked for."""
    assert "\n".join(tab.complaints) == ""
    assert opened.page.locator("h1").count() == 1


@pytest.fixture(scope="module")
def stranger(browser: Browser, house: House) -> Iterator[Visitor]:
    with browser.new_context(viewport=DESK) as context:
        context.set_default_timeout(chromium.PATIENCE_MS)
        stranger = Visitor(house, context.new_page())
        stranger.watch()
        yield stranger


@pytest.mark.parametrize(("path", "title"), [("/admin/", "Log in"), ("/nowhere", "Not found")])
def test_the_pages_for_strangers_are_no_worse(stranger: Visitor, path: str, title: str) -> None:
    stranger.complaints.clear()
    page = stranger.go(path)

    assert page.title().startswith(title)
    assert looking.faults_of_accessibility(page, part="body") + looking.faults_of_the_dark(page, part="body") == []
    assert looking.reach(page, part="body").missed == []
    assert [what for width in (1440, 390) for what in looking.hidden(page, width=width)] == []
    # That a page is not there is an error of the console too.
    assert [said for said in stranger.complaints if page.url not in said] == []


# --- What only a browser shows --------------------------------------------------------------------------------------


def test_the_page_of_the_rest_api_works_without_anything_from_elsewhere(visitor: Visitor) -> None:
    page = visitor.go("/api/docs/")

    expect(page.get_by_text("/async-jobs/search").first).to_be_visible(timeout=chromium.PATIENCE_MS)


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


def test_hostile_text_is_shown_and_not_run(visitor: Visitor) -> None:
    page = visitor.go(f"{ADMIN}kanikojob/?reason=SourceNotFound")

    page.locator("#result_list th a").first.click()

    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert "forged" not in page.title()
