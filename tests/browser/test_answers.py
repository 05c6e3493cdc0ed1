"""The twenty questions of the README, on what the demo has sent and what became of it: each answered in two clicks."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from deploy.local.demo_events import NO_ROOM, NOISY, NOT_JSON, PARSER_BUSY, STILL_BUILDING
from deploy.local.demo_operator import WHY, WHY_ALL
from deploy.local.stack import CHECKOUT
from tests.browser.visitor import Visitor
from tests.house import browser as chromium
from tests.house.server import USER, House
from tests.house.story import pods

README = (CHECKOUT / "README.md").read_text()
SECTION = README.partition("## Twenty questions")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.*?) \| (.+?) \| (\d) \|$", SECTION, re.MULTILINE)
ERROR = "npm error 404 'left-padd@^1.3.0' is not in this registry."
SENTENCE = r"(Failing \d+ of \d+ attempts failed in the last five minutes|Behind {queued} Kaniko Jobs wait, the oldest)"
# Regular expressions, found on the page in this order. Numbers are those of what was sent.
ANSWERS: dict[str, tuple[str, ...]] = {
    "Is it healthy, and if not, what is wrong?": (SENTENCE,),
    "Is the consumer alive? The workers, the watcher?": (
        r"Consumer well 1 running \d+ s ago",
        r"Workers well 1 cluster, 5 workers \d+ s ago",
        r"Watcher well 1 running \d+ s ago",
    ),
    "Are we behind, and how old is the oldest?": (r"queued {queued}", r"oldest waits \d+ (s|min)"),
    "How much waits in RabbitMQ?": (r"in RabbitMQ 0",),
    "What does that which waits wait for?": (r"Unschedulable {no_room}", r"ForTheOneBefore {queued}"),
    "What fails now, by cause?": (
        r"not JSON.* NEW {not_json}",
        r"AdmissionDenied.* NEW {denied}",
        r"BuildStepFailed.* NEW {build_step}",
    ),
    "What is new since an hour ago?": (r"BuildStepFailed", r"OOMKilled", r"AdmissionDenied", r"SourceNotAllowed"),
    "How long does creating a Job take, this week?": (r"p50 p95 p99 up to \d\.\d{{3}} s",),
    "Which third party is noisy, and with what?": (
        r"queued .*{noisy}",
        r"running .*{noisy}",
        r"{noisy_jobs} Kaniko Jobs",
    ),
    "What runs, and for how long?": (r"(kaniko-job-\S+ {noisy} \w+ \d+ (s|min)( \d+ s)?\s*){{{running}}}",),
    "Why was this event not built?": (r"Kaniko Job 1 failed BuildStepFailed: RUN npm ci",),
    "Which event does this pod belong to?": (r"{event_id}",),
    "Which build made this image?": (r"Kaniko Job 2 pushed its image {digest}",),
    "Which event is this Job UID, or this trace, of?": (r"Its trace", r"Kaniko Job 2 created UID {uid}"),
    "What exactly was sent?": (r'"source_url": "{source_url}"', r"{trace_id}"),
    "Was it delivered more than once?": (r"Received from RabbitMQ", r"Seen again, 1 time"),
    "Who retried it, and why?": (r"{user} retried a Kaniko Job by API: {why}",),
    "Where is the log of a pod that is gone?": (re.escape(ERROR),),
    "What can be done about this failure?": (r"mend the source, and retry",),
    "What did operators do lately, and why?": (r"{user} started a replay .*{why_all}", r"{user} retried .*{why}"),
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
        take(page, step, house=visitor.house)

    assert len(steps) == int(clicks) <= 2
    there = where(page, re.findall(r'"(.+?)"', place)[0])
    for answer in ANSWERS[question]:
        # The home keeps itself up to date, and the depth of a queue comes with the consumer's second sign of life.
        known = re.compile(re.sub(r"\\? ", r"\\s+", answer.format(**facts(visitor.house))), re.DOTALL)
        expect(there).to_have_text(known, use_inner_text=True, timeout=chromium.PATIENCE_MS)


def test_the_pod_whose_log_is_shown_is_gone_from_the_cluster(house: House) -> None:
    simulator = house.system.stack.simulator
    assert simulator is not None

    there = {pod["metadata"]["name"] for pod in pods(simulator, event_id=house.story.event_id)}

    assert len(there) == 1
    assert house.story.pod not in there


def facts(house: House) -> dict[str, str]:
    """What the answers must say: numbers of what was sent, and names that the cluster gave."""
    sent, told = house.sent.sent, house.story
    found = {
        "queued": sent[PARSER_BUSY],
        "running": sent[STILL_BUILDING],
        "no_room": sent[NO_ROOM],
        "not_json": sent[NOT_JSON],
        "denied": sum(rule["do"] == "webhook" for rule in house.sent.faults),
        "build_step": sum(rule["outcome"] == "build-error" for rule in house.sent.outcomes),
        "noisy": NOISY,
        "noisy_jobs": sent[PARSER_BUSY] + sent[STILL_BUILDING] + sent[NO_ROOM],
        "event_id": told.event_id,
        "digest": told.digest,
        "uid": told.job_uid,
        "trace_id": told.trace_id,
        "source_url": told.source_url,
        "user": USER,
        "why": WHY,
        "why_all": WHY_ALL,
    }
    return {name: re.escape(str(value)) for name, value in found.items()}


def take(page: Page, step: str, *, house: House) -> None:
    """One click, as the table says it: `find …` in the box at the top, or the link of that name."""
    # What the table calls by a general name.
    called = {
        "the event's ID": house.story.event_id,
        "the pod's name": house.story.pod,
        "the image with its digest": f"{house.story.image}@{house.story.digest}",
        "the UID or the trace ID": house.story.trace_id,
        "its name": NOISY,
    }
    with page.expect_navigation():
        if step.startswith("find "):
            page.get_by_role("searchbox", name="Find").fill(called[step.removeprefix("find ")])
            page.keyboard.press("Enter")
        else:
            name = re.findall(r'"(.+?)"', step)[0]
            page.get_by_role("link", name=called.get(name, name)).first.click()


def where(page: Page, name: str) -> Locator:
    """The part of the page under this heading or name."""
    heading = page.get_by_role("heading", name=name)
    parts = page.get_by_role("region", name=name, exact=True).or_(page.locator("section, fieldset").filter(has=heading))
    return (parts if parts.count() else page.locator("#content").filter(has=heading)).first
