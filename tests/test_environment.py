"""Reading the environment: each kind of value, files in place of values, and every fault at once."""

from collections.abc import Callable
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from project.environment import Environment

Read = Callable[[Environment], Any]


def environment(value: str | None) -> Environment:
    return Environment({} if value is None else {"NAME": value})


GOOD: list[tuple[Read, str | None, Any]] = [
    (lambda env: env.text("NAME"), None, ""),
    (lambda env: env.text("NAME", "x"), None, "x"),
    (lambda env: env.text("NAME", "x"), "", "x"),
    (lambda env: env.text("NAME", "x"), " y ", " y "),
    (lambda env: env.required("NAME", write="Write y."), "y", "y"),
    (lambda env: env.flag("NAME", False), None, False),
    (lambda env: env.flag("NAME", True), None, True),
    *[(lambda env: env.flag("NAME", False), word, True) for word in ("1", "true", "True", "YES", "on")],
    *[(lambda env: env.flag("NAME", True), word, False) for word in ("0", "false", "No", "OFF")],
    (lambda env: env.integer("NAME", 7), None, 7),
    (lambda env: env.integer("NAME", 7), "", 7),
    (lambda env: env.integer("NAME", 7), "0", 0),
    (lambda env: env.integer("NAME", 7, least=1, most=9), "9", 9),
    (lambda env: env.integer("NAME", 7, least=-5), "-5", -5),
    (lambda env: env.duration("NAME", "100ms"), None, timedelta(milliseconds=100)),
    (lambda env: env.duration("NAME", "1s"), "250ms", timedelta(milliseconds=250)),
    (lambda env: env.duration("NAME", "1s"), "1.5s", timedelta(seconds=1.5)),
    (lambda env: env.duration("NAME", "1s"), "2m", timedelta(minutes=2)),
    (lambda env: env.duration("NAME", "1s"), "24h", timedelta(days=1)),
    (lambda env: env.duration("NAME", "1s"), "7d", timedelta(days=7)),
    (lambda env: env.duration("NAME", "1s", least="1s"), "1000ms", timedelta(seconds=1)),
    (lambda env: env.clock("NAME", "03:30"), None, time(3, 30)),
    (lambda env: env.clock("NAME", "03:30"), "23:59", time(23, 59)),
    (lambda env: env.clock("NAME", "03:30"), "never", None),
    (lambda env: env.rate("NAME", "60/min"), None, "60/min"),
    *[(lambda env: env.rate("NAME", "60/min"), rate, rate) for rate in ("1/s", "600/minute", "5000/hour", "9/day")],
    (lambda env: env.url("NAME", example="amqp://host/"), None, ""),
    *[
        (lambda env: env.url("NAME", example="amqp://host/"), url, url)
        for url in ("amqp://u:p%23@host", "amqps://host:5671/%2F?heartbeat=5", "amqp://[::1]:5672/")
    ],
    (lambda env: env.choice("NAME", "a", ("a", "b")), None, "a"),
    (lambda env: env.choice("NAME", "a", ("a", "b")), "b", "b"),
    (lambda env: env.items("NAME"), None, []),
    (lambda env: env.items("NAME", "a,b"), None, ["a", "b"]),
    (lambda env: env.items("NAME"), " a , ,b,", ["a", "b"]),
    (lambda env: env.items("NAME"), ' ["--secret=id=npm,env=TOKEN", "b"]', ["--secret=id=npm,env=TOKEN", "b"]),
    (lambda env: env.items("NAME"), "[::1]:8080,b", ["[::1]:8080", "b"]),
    (lambda env: env.mapping("NAME"), None, {}),
    (lambda env: env.mapping("NAME"), '{"NO_PROXY": "a,.b"}', {"NO_PROXY": "a,.b"}),
    (lambda env: env.mapping("NAME"), "a=1, b = 2 ,c=", {"a": "1", "b": "2", "c": ""}),
    (lambda env: env.mapping("NAME"), "url=https://a/?b=c", {"url": "https://a/?b=c"}),
    (lambda env: env.json_list("NAME"), None, []),
    (lambda env: env.json_list("NAME"), '[{"key": "a"}, {}]', [{"key": "a"}, {}]),
]


@pytest.mark.parametrize(("read", "value", "expected"), GOOD)
def test_a_value_is_read(read: Read, value: str | None, expected: Any) -> None:
    env = environment(value)

    found = read(env)

    assert found == expected
    assert type(found) is type(expected)
    assert env.faults == []


BAD: list[tuple[Read, str | None, Any, str]] = [
    (lambda env: env.required("NAME", write="Write y."), None, "", "NAME is not set. Write y."),
    (lambda env: env.required("NAME", write="Write y."), "", "", "NAME is not set. Write y."),
    (lambda env: env.flag("NAME", True), "maybe", True, 'NAME="maybe" is neither yes nor no. Write 1 or 0.'),
    (lambda env: env.flag("NAME", False), " 1", False, 'NAME=" 1" is neither yes nor no. Write 1 or 0.'),
    *[
        (
            lambda env: env.integer("NAME", 7),
            value,
            7,
            f'NAME="{value}" is not a whole number. Write one of at least 0.',
        )
        for value in ("many", "1.5", "1e3", "1_000", "٣", "+1", " 1", "0x10", "9" * 19)
    ],
    (
        lambda env: env.integer("NAME", 7, least=1, most=9),
        "x",
        7,
        'NAME="x" is not a whole number. Write one from 1 to 9.',
    ),
    (
        lambda env: env.integer("NAME", 7, least=1, most=9),
        "10",
        7,
        "NAME=10 is out of range. Write a whole number from 1 to 9.",
    ),
    (lambda env: env.integer("NAME", 7), "-1", 7, "NAME=-1 is out of range. Write a whole number of at least 0."),
    (
        lambda env: env.duration("NAME", "1s"),
        "100",
        timedelta(seconds=1),
        'NAME="100" has no unit. Write 100ms, 2s or 1m.',
    ),
    *[
        (
            lambda env: env.duration("NAME", "1s"),
            value,
            timedelta(seconds=1),
            f'NAME="{value}" is not a duration. Write for example 100ms, 2s or 1m.',
        )
        for value in ("soon", "-1s", "1 s", "1w", "s", "1s2m", "٣s")
    ],
    (
        lambda env: env.duration("NAME", "1s", least="1s"),
        "999ms",
        timedelta(milliseconds=999),
        "NAME=999ms is too short. Write at least 1s.",
    ),
    *[
        (
            lambda env: env.clock("NAME", "03:30"),
            value,
            time(3, 30),
            f'NAME="{value}" is not a time of the day. Write for example 03:30, or never.',
        )
        for value in ("24:00", "3:30", "03:30:00", "03:60", "Never", "٠٣:٣٠")
    ],
    *[
        (
            lambda env: env.duration("NAME", "1s"),
            value,
            timedelta(seconds=1),
            f"NAME={value} is too long. Write at most 3650d.",
        )
        for value in ("3651d", "999999999999999d", "9" * 400 + "h")
    ],
    *[
        (
            lambda env: env.rate("NAME", "60/min"),
            value,
            "60/min",
            f'NAME="{value}" is not a rate. Write for example 10/s, 600/min or 5000/hour.',
        )
        for value in ("fast", "60", "60/", "0/min", "-1/s", "60/month", "6O/min")
    ],
    *[
        (
            lambda env: env.url("NAME", example="amqp://host/"),
            value,
            "",
            "NAME cannot be read. Write for example amqp://host/, with special characters percent-encoded.",
        )
        for value in ("host:5672", "http://host", "amqp://", "amqp://u:s3c#ret@host/", "amqp://h:port/", "amqp://[::1/")
    ],
    (lambda env: env.choice("NAME", "a", ("a", "b")), "c", "a", 'NAME="c" is not known. Write one of: a, b.'),
    (lambda env: env.choice("NAME", "a", ("a", "b")), "A", "a", 'NAME="A" is not known. Write one of: a, b.'),
    (lambda env: env.mapping("NAME"), "a=1,b", {"a": "1"}, 'NAME has "b", which is not key=value.'),
    (lambda env: env.mapping("NAME"), "=1", {}, 'NAME has "=1", which is not key=value. Write for example a=1,b=2.'),
    (lambda env: env.mapping("NAME"), '{"a": 1}', {}, 'NAME is not an object of strings. Write for example {"a": "1"'),
    (lambda env: env.mapping("NAME"), "{a: 1}", {}, "NAME is not JSON: "),
    (lambda env: env.items("NAME"), '["a", 1]', [], 'NAME is not a list of strings. Write for example ["a", "b,c"].'),
    (lambda env: env.json_list("NAME"), "1", [], "NAME is not a list of objects."),
    (lambda env: env.json_list("NAME"), "[{]", [], "NAME is not JSON: "),
    (
        lambda env: env.json_list("NAME"),
        "{}",
        [],
        'NAME is not a list of objects. Write for example [{"key": "value"}]',
    ),
    (lambda env: env.json_list("NAME"), '["a"]', [], "NAME is not a list of objects."),
]


@pytest.mark.parametrize(("read", "value", "fallback", "fault"), BAD)
def test_a_bad_value_is_a_fault_that_says_what_to_write(
    read: Read, value: str | None, fallback: Any, fault: str
) -> None:
    env = environment(value)

    found = read(env)

    assert found == fallback
    assert [text[: len(fault)] for text in env.faults] == [fault]


@pytest.mark.parametrize(("content", "value"), [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), (" a\r\n", " a")])
def test_a_secret_can_be_in_a_file(tmp_path: Path, content: str, value: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    env = Environment({"NAME_FILE": str(file)})

    assert env.text("NAME", "default") == value
    assert env.required("NAME", write="Write y.") == value
    assert env.faults == []


def test_any_kind_of_value_can_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("42\n")

    assert Environment({"NAME_FILE": str(file)}).integer("NAME", 7) == 42


def test_a_value_and_a_file_together_are_a_fault_because_one_of_them_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret")
    env = Environment({"NAME": "other", "NAME_FILE": str(file)})

    env.text("NAME")

    assert env.faults == ["NAME and NAME_FILE are both set. Keep one of them."]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "which cannot be read: "), (b"\xff", "which cannot be read: "), (b"", "which is empty."), (b"\n", "empty")],
)
def test_a_file_that_gives_no_value_is_one_fault(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    env = Environment({"NAME_FILE": str(file)})

    env.required("NAME", write="Write y.")

    (fault,) = env.faults
    assert fault.startswith(f"NAME_FILE names {file}")
    assert problem in fault


def test_what_is_in_a_file_is_not_repeated_in_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"s3cret\xff")
    env = Environment({"NAME_FILE": str(file)})

    env.text("NAME")

    assert "s3cret" not in env.faults[0]


def test_all_faults_are_told_at_once_each_on_a_line_of_its_own() -> None:
    env = Environment({"A": "x", "B": "y"})
    env.integer("A", 1)
    env.flag("B", True)
    env.required("C", write="Write z.")

    with pytest.raises(ImproperlyConfigured) as told:
        env.check()

    assert str(told.value).splitlines() == env.faults
    assert len(env.faults) == 3


def test_without_faults_there_is_nothing_to_tell() -> None:
    env = Environment({"A": "1"})
    env.integer("A", 1)

    env.check()

    assert env.faults == []


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANIKOJOBS_QUEUE", "from-the-process")

    assert Environment().text("KANIKOJOBS_QUEUE") == "from-the-process"
