"""The log: one line per step with the ids that lead on, and no value of an event can forge another line."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from kanikojobs import intake, logs
from kanikojobs.messages import Message
from kanikojobs.models import JobStartEvent
from tests.factories import a_message
from tests.sample_events import sample_event

HOSTILE = [
    'x\n{"event": "admin-logged-in", "level": "info"}',
    "x\r2026-01-01T00:00:00Z [info] outage-over",
    "x\x1b[2K\x1b[1Gforged",
    "x\u2028forged\u2029forged\x85forged\x0bforged\x0cforged",
    "\u202eright to left\u2066",
    "x\x00\x07\x08\x7f\ud800",
]
Read = Callable[[], str]


@pytest.fixture(params=["json", "console"])
def written(request: pytest.FixtureRequest) -> Iterator[tuple[str, Read]]:
    """A logger's output as a process would write it, in either format."""
    format = str(request.param)
    settings = logs.logging_settings(format=format, level="INFO")
    formatter = settings["formatters"]["lines"]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter["()"](processors=formatter["processors"], foreign_pre_chain=logs.SHARED))
    logger = logging.getLogger("kanikojobs")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield format, stream.getvalue
    logger.removeHandler(handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]


def as_structlog(value: str) -> None:
    structlog.get_logger("kanikojobs.tests").info("a-step", event_id=value, kaniko_job=value)


def as_a_librarys_line(value: str) -> None:
    logging.getLogger("kanikojobs.tests").info("Not Found: %s", value)


def as_one_of_many(value: str) -> None:
    logs.steps("kanikojobs.tests", "a-step", [{"event_id": value}])


def as_an_error(value: str) -> None:
    try:
        raise ValueError(value)
    except ValueError:
        structlog.get_logger("kanikojobs.tests").exception("a-step")


@pytest.mark.parametrize("write", [as_structlog, as_a_librarys_line, as_one_of_many, as_an_error])
@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_no_value_forges_a_line(written: tuple[str, Read], write: Callable[[str], None], value: str) -> None:
    format, read = written

    write(value)

    text = read()
    lines = text.splitlines()
    assert text.endswith("\n")
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    if format == "json":
        (line,) = lines
        assert json.loads(line)["level"] in ("info", "error")
    else:
        # Behind the first line only the traceback's, each behind its bar.
        assert all(line.startswith("  | ") for line in lines[1:])
        assert len(lines) == 1 or write is as_an_error


def test_what_can_be_read_stays_as_it_is(written: tuple[str, Read]) -> None:
    format, read = written

    as_structlog("straße-☃")

    assert ("straße-☃" in read()) == (format == "console")
    assert format == "console" or json.loads(read())["event_id"] == "straße-☃"


@pytest.mark.django_db
def test_each_message_has_a_line_with_its_ids_and_nothing_that_it_carries(written: tuple[str, Read]) -> None:
    format, read = written
    event: dict[str, Any] = sample_event(1)
    event["data"]["parameters"]["environment"] = {"PASSWORD": "s3cret"}
    message = a_message(event, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    intake.record([message, message, Message(b'{"s3cret"')], origin=JobStartEvent.Origin.QUEUE)

    lines = [line for line in read().splitlines() if "message-settled" in line]
    assert len(lines) == 3
    assert "s3cret" not in read()
    if format == "json":
        told = [json.loads(line) for line in lines]
        assert [line["outcome"] for line in told] == ["recorded", "duplicate", "dead"]
        assert (
            told[0].items()
            >= {
                "event_id": event["id"],
                "correlation_id": event["data"]["correlation_id"],
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                "origin": "queue",
                "logger": "kanikojobs.intake",
            }.items()
        )


def test_a_level_above_info_costs_nothing_per_message(written: tuple[str, Read]) -> None:
    numbers = iter(range(3))
    logging.getLogger("kanikojobs").setLevel(logging.WARNING)

    logs.steps("kanikojobs.tests", "a-step", ({"event_id": str(number)} for number in numbers))

    assert list(numbers) == [0, 1, 2]
    assert written[1]() == ""
