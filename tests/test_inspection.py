"""A dead letter as a person looks at it: bytes, faults at their places, no secrets, a command that sends it again."""

import json
import subprocess
from typing import Any

import pytest

from kanikojobs import intake
from kanikojobs.inspection import MOST_NESTED, MOST_SHOWN, Inspection, hex_dump, inspect, masked_text
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent
from tests.factories import a_dead_letter
from tests.sample_events import sample_event

pytestmark = pytest.mark.django_db


def a_letter(body: bytes, *, content_type: str = "application/cloudevents+json", **headers: Any) -> DeadLetter:
    intake.record([Message(body, content_type, headers)], origin=JobStartEvent.Origin.QUEUE)
    return DeadLetter.objects.latest("id")


def marked(inspection: Inspection) -> dict[str, list[str]]:
    """The lines with faults, and the paths of these."""
    return {line.text: [fault.path for fault in line.faults] for line in inspection.lines if line.faults}


def test_every_fault_is_marked_at_its_place() -> None:
    event = sample_event(1)
    event["data"]["priority"] = 11
    event["data"]["parameters"]["environment"] = {"9X": "a", "GOOD": 5}
    del event["data"]["parameters"]["source_url"]
    del event["id"]

    inspection = inspect(a_letter(json.dumps(event).encode()), secrets=False)

    assert marked(inspection) == {
        "{": ["id"],
        '"priority": 11': ["data.priority"],
        '"parameters": {': ["data.parameters.source_url"],
        '"9X": "a"': ['data.parameters.environment["9X"]'],
        '"GOOD": 5': ["data.parameters.environment.GOOD"],
    }
    assert inspection.elsewhere == ()


def test_a_fault_does_not_repeat_a_secret() -> None:
    event = sample_event(1)
    event["data"]["parameters"]["environment"] = {"NPM_TOKEN": 4711, "NODE_ENV": 5}
    event["data"]["parser_id"] = "https://somebody:s3cr3t@example.com"
    letter = a_letter(json.dumps(event).encode())

    told = [str(fault) for line in inspect(letter, secrets=False).lines for fault in line.faults]
    permitted = [str(fault) for line in inspect(letter, secrets=True).lines for fault in line.faults]

    assert not [fault for fault in told if "4711" in fault or "s3cr3t" in fault]
    assert any("the number 5" in fault for fault in told)
    assert any("the number 4711" in fault for fault in permitted)
    assert "4711" in letter.reason
    assert "4711" not in masked_text(letter.reason)


@pytest.mark.parametrize("depth", [100, 900, 990, 5000])
def test_hostile_nesting_is_shown_as_far_as_it_makes_sense(depth: int) -> None:
    letter = a_letter(b'{"data": ' + b"[" * depth + b"]" * depth + b"}")

    inspection = inspect(letter, secrets=False)

    assert inspection.is_text
    assert len(inspection.lines) <= 2 * MOST_NESTED + 3


def test_a_very_large_body_is_shown_in_part_and_sent_again_as_the_file_that_was_downloaded() -> None:
    letter = a_dead_letter(body=b'{"password": "s3cr3t", "x": "' + b"\xc3\xa4" * 1024 * 1024 + b'"}')

    inspection = inspect(letter, secrets=False)

    assert (inspection.size, inspection.is_cut, inspection.is_text) == (len(letter.body), True, True)
    assert len(inspection.text.encode()) <= 4 * MOST_SHOWN
    assert "s3cr3t" not in inspection.text
    assert inspection.command.endswith(f"--data-binary @dead-letter-{letter.pk}.bin")
    assert len(inspection.command) < 1000


def test_a_line_is_no_longer_than_a_person_reads() -> None:
    inspection = inspect(a_letter(json.dumps({"data": "x" * 100_000}).encode()), secrets=False)

    assert max(len(line.text) for line in inspection.lines) < 5000


def test_in_binary_mode_the_attributes_are_lines_too() -> None:
    event = sample_event(1)
    event["data"]["priority"] = 0
    headers = {f"ce-{name}": event[name] for name in ("id", "source", "type")} | {"ce-specversion": "0.3"}

    inspection = inspect(
        a_letter(json.dumps(event["data"]).encode(), content_type="application/json", **headers), secrets=False
    )

    assert marked(inspection) == {
        "ce-specversion: 0.3": ["ce-specversion"],
        '"priority": 0': ["data.priority"],
    }


@pytest.mark.parametrize("body", [b"{ broken", b"[1, 2]", b"\xff\xfe\x00", b"", b'"text"'])
def test_the_faults_of_what_is_no_event_are_told_beside_it(body: bytes) -> None:
    inspection = inspect(a_letter(body), secrets=False)

    assert inspection.lines == ()
    assert inspection.elsewhere


def test_a_body_that_is_no_text_is_shown_in_hex() -> None:
    inspection = inspect(a_letter(b"\xff\x00{secret"), secrets=True)

    assert (inspection.is_text, inspection.text) == (False, "")
    assert inspection.hex == "00000000  ff 00 7b 73 65 63 72 65 74" + " " * 21 + "  |..{secret|"


def test_hex_has_rows_of_sixteen() -> None:
    assert [len(row) for row in hex_dump(bytes(range(40))).splitlines()] == [77, 77, 69]


SECRETS = {
    "a long value": {"MY_TOKEN": "s3cr3t" * 200},
    "a quote within": {"DB_PASSWORD": 'before"s3cr3t'},
    "a known form": {"ANYTHING": "ghp_s3cr3t" + "A1b2" * 9},
    "credentials in a URL": {"URL": "https://user:s3cr3t@example.com/x"},
}


@pytest.mark.parametrize("environment", SECRETS.values(), ids=SECRETS)
def test_secrets_are_struck_out_everywhere_unless_permitted(environment: dict[str, str]) -> None:
    event = sample_event(1)
    event["data"]["parameters"]["environment"] = environment
    event["data"]["priority"] = 11
    headers: Any = {"x-api-key": "s3cr3t", "x-death": [{"reason": "expired"}]}
    letter = a_letter(json.dumps(event).encode(), **headers)

    hidden, open_ = inspect(letter, secrets=False), inspect(letter, secrets=True)

    assert "s3cr3t" not in str(hidden)
    assert "s3cr3t" in open_.text
    assert open_.headers["x-api-key"] == "s3cr3t"
    assert hidden.deaths == ({"reason": "expired"},)
    assert marked(hidden) == {'"priority": 11': ["data.priority"]}


def test_secrets_in_bytes_that_are_no_text_are_struck_out_too() -> None:
    hidden = inspect(a_letter(b'\xff{"password": "s3cr3t"}'), secrets=False)

    assert "s3cr3t" not in hidden.hex
    assert b"s3cr3t".hex(" ") not in hidden.hex


HOSTILE = b"'; touch /tmp/kanikojobs-was-here; $(id) `id` \\ \" \n\x00\xff"


def test_the_command_sends_the_very_bytes_whatever_is_in_them() -> None:
    letter = a_letter(HOSTILE, content_type="text/plain'; exit 7", **{"ce-id": "$(exit 7)\nX: y", "ce-a'b": "1"})
    sent = inspect(letter, secrets=True).command.replace("curl --fail-with-body", "stand_in")

    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'stand_in() {{ printf "%s\\n" "$@" >&2; cat; }}\n{sent}'],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "KANIKOJOBS_SINK_TOKEN": "t"},
        check=True,
    )

    arguments = shell.stderr.decode().splitlines()
    assert shell.stdout == HOSTILE
    assert arguments[0] == "http://localhost:8000/events"
    assert "Content-Type: text/plain'; exit 7" in arguments
    assert "ce-id: $(exit 7) X: y" in arguments


def test_a_huge_body_is_cut_on_the_page() -> None:
    letter = a_dead_letter(body=b'{"a": "' + b"x" * 600_000 + b'"}')

    inspection = inspect(letter, secrets=True)

    assert inspection.is_cut
    assert inspection.size > 600_000
    assert len(inspection.text) < 300_000
