"""Fingerprints: failures of one cause are one group, whatever differs in their ids, hosts, times and sizes."""

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanikojobs import cloudevent
from kanikojobs.errors import Fault, InvalidEvent
from kanikojobs.fingerprints import fingerprint, normalise, signature
from tests.sample_events import sample_event

Write = Callable[[random.Random], tuple[str, str]]


def _hex(chance: random.Random, length: int) -> str:
    return f"{chance.getrandbits(4 * length):0{length}x}"


def _host(chance: random.Random) -> str:
    return f"{chance.choice(['registry', 'mirror', 'r', 'docker-hub-cache'])}-{chance.randrange(40)}.example.com"


def _address(chance: random.Random) -> str:
    return ".".join(str(chance.randrange(256)) for _ in range(4)) + f":{chance.randrange(1, 65536)}"


def _pod(chance: random.Random) -> str:
    return f"kaniko-job-{_hex(chance, 8)}-{chance.randrange(1000)}-{chance.choice('bcdfg')}x{chance.randrange(10)}zq"


def _label_too_long(chance: random.Random) -> tuple[str, str]:
    name = f"kaniko-job-{'x' * chance.randrange(40, 90)}-{_hex(chance, 16)}"
    return (
        "creation-failed",
        f'Invalid: Job.batch "{name}" is invalid: spec.template.labels: Invalid value: "{name}": '
        f"must be no more than {chance.choice([63, 253])} bytes",
    )


def _over_quota(chance: random.Random) -> tuple[str, str]:
    return (
        "creation-failed",
        f'Forbidden: jobs.batch "{_pod(chance)}" is forbidden: exceeded quota: builds-{chance.randrange(9)}, '
        f"requested: requests.cpu={chance.randrange(1, 9) * 500}m,requests.memory={chance.randrange(1, 9)}Gi, used: "
        f"requests.cpu={chance.randrange(20)}, limited: requests.cpu={chance.randrange(20, 40)}",
    )


def _registry_away(chance: random.Random) -> tuple[str, str]:
    host = _host(chance)
    return (
        "build-failed",
        f"PushFailed: error pushing image: failed to push to destination {host}:5000/acme/p{chance.randrange(99)}:"
        f'{_hex(chance, 7)}: Get "https://{host}:5000/v2/": dial tcp {_address(chance)}: connect: connection refused',
    )


def _rate_limit(chance: random.Random) -> tuple[str, str]:
    stamp = f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:14:02Z"
    return (
        "build-failed",
        f"RegistryRateLimited: \x1b[36mINFO\x1b[0m[{chance.randrange(9999):04}] Retrieving image manifest "
        f"library/python@sha256:{_hex(chance, 64)}\nerror building image: GET https://index.docker.io/v2/library/"
        f"python/manifests/sha256:{_hex(chance, 64)}: TOOMANYREQUESTS: You have reached your pull rate limit. "
        f"{stamp}",
    )


def _out_of_memory(chance: random.Random) -> tuple[str, str]:
    return (
        "build-failed",
        f"OOMKilled: The container kaniko of pod {_pod(chance)} was killed on node ip-10-0-{chance.randrange(255)}-7."
        f"eu-west-1.compute.internal, it used more than {chance.choice(['512Mi', '1Gi', '2.5Gi'])} of memory "
        f"after {chance.randrange(60)}m{chance.randrange(60)}s (exit code 137).",
    )


def _step_failed(chance: random.Random) -> tuple[str, str]:
    return (
        "build-failed",
        f"BuildStepFailed: error building image: error building stage: failed to execute command: RUN pip install "
        f"'parser-{chance.randrange(99)}=={chance.randrange(9)}.{chance.randrange(30)}': waiting for process to exit: "
        f"exit status 1 in /kaniko/{chance.randrange(10**6)}/parsers/p{chance.randrange(99)}/Dockerfile",
    )


def _not_json(chance: random.Random) -> tuple[str, str]:
    return (
        "invalid",
        f"body: not JSON, Expecting ',' delimiter at line {chance.randrange(1, 90)} column {chance.randrange(1, 900)}",
    )


def _source_not_found(chance: random.Random) -> tuple[str, str]:
    repository = f"https://github.com/notifi/parsers-{chance.randrange(999)}.git"
    return (
        "build-failed",
        f"SourceNotFound: error resolving source context: fatal: repository '{repository}/' not found at commit "
        f"{_hex(chance, 40)} (attempt {chance.randrange(1, 5)})",
    )


CAUSES: tuple[Write, ...] = (
    _label_too_long,
    _over_quota,
    _registry_away,
    _rate_limit,
    _out_of_memory,
    _step_failed,
    _not_json,
    _source_not_found,
)


def _fingerprint(kind: str, reason: str) -> str:
    return fingerprint(kind=kind, signature=signature(reason=reason))


def test_a_hundred_failures_of_eight_causes_form_eight_groups() -> None:
    chance = random.Random(6)
    failures = [CAUSES[number % len(CAUSES)](chance) for number in range(100)]

    groups = {_fingerprint(kind, reason) for kind, reason in failures}

    assert len(set(failures)) == 100
    assert len(groups) == len(CAUSES)


@pytest.mark.parametrize("write", CAUSES, ids=lambda write: write.__name__.strip("_"))
def test_two_hundred_failures_of_one_cause_are_one_group(write: Write) -> None:
    chance = random.Random(7)

    left = {normalise(write(chance)[1]) for _ in range(200)}

    assert len(left) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exit status 1", "exit status 127"),
        ("GET https://a.example.com/v2/: status 404", "GET https://b.example.com/v2/: status 503"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "dial tcp 10.0.0.1:443: i/o timeout"),
        ("the secret regcred is missing", "the configmap regcred is missing"),
    ],
    ids=["exit status", "HTTP status", "network error", "kind of object"],
)
def test_what_tells_causes_apart_is_kept(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("pod kaniko-7d9f-x2 was evicted", "pod <name> was evicted"),
        ('Job "a" is invalid', "Job <value> is invalid"),
        ("it's the sender's fault", "it's the sender's fault"),
        ("id 550e8400-e29b-41d4-a716-446655440000", "id <id>"),
        ("commit 1234567 and commit 12ab567", "commit <n> and commit <n>"),
        ("at 2026-11-23T14:02:03.123456Z, 2026/11/23 14:02:03 and 14:02:03", "at <time> and <time>"),
        ("10485770 bytes; at most 1048576", "<n>; at most <n>"),
        ("from [fd00::1]:4431 to 192.168.1.1:53", "from <address> to <address>"),
        ("read tcp 10.0.0.1:2->10.0.0.2:443: i/o timeout", "read tcp <address>: i/o timeout"),
        ("open /kaniko/0/Dockerfile: no such file", "open <path>: no such file"),
        ("lookup db.example.com: no such host", "lookup <host>: no such host"),
        ("data.priority: must be a number", "data.priority: must be a number"),
    ],
)
def test_what_differs_is_masked_and_words_stay(message: str, left: str) -> None:
    assert normalise(message) == left


def faults_of(**data: object) -> tuple[Fault, ...]:
    event = sample_event(1)
    event["data"] |= data
    try:
        cloudevent.from_amqp(body=json.dumps(event).encode(), content_type=None, headers=None, rules=cloudevent.Rules())
    except InvalidEvent as invalid:
        return invalid.faults
    raise AssertionError("the event is valid")


def test_the_same_fields_with_other_wrong_values_are_one_group() -> None:
    one = faults_of(priority=11, parser_id="a b", job_name=["x"])
    other = faults_of(priority="high", parser_id="c/d/e", job_name=["y", "z"])

    signatures = {signature(reason="", faults=faults) for faults in (one, other)}

    assert len(one) == len(other) == 3
    # A number and a string in the place of a priority are different mistakes of the sender.
    assert len(signatures) == 2
    assert signature(reason="", faults=one) == signature(
        reason="", faults=faults_of(priority=99, parser_id="?", job_name=[])
    )


def test_the_order_and_the_number_of_faults_of_one_kind_do_not_matter() -> None:
    nine_x = Fault('data.parameters.environment["9X"]', "not an environment name")
    eight_y = Fault('data.parameters.environment["8Y"]', "not an environment name")
    priority = Fault("data.priority", "missing or null; must be a whole number")

    signatures = {
        signature(reason="", faults=faults)
        for faults in ((nine_x, priority), (priority, nine_x), (eight_y, nine_x, priority))
    }

    assert len(signatures) == 1


def test_the_kind_is_part_of_the_cause() -> None:
    assert _fingerprint("expired", "The same words.") != _fingerprint("maxlen", "The same words.")


@given(st.text())
def test_any_text_has_a_fingerprint_and_masking_it_again_changes_little(text: str) -> None:
    left = normalise(text)

    assert len(_fingerprint("invalid", text)) == 64
    assert "\n" not in left
    assert normalise(text) == left


@pytest.mark.parametrize("unit", ["a-", "a.", "/a", "1:", '"', "'", "[:", "a1-", "h1m", "ab:", "<n> ", "f", " "])
def test_hostile_repetition_ends_and_what_is_left_is_bounded(unit: str) -> None:
    left = normalise(unit * (1_000_000 // len(unit)))

    assert len(left) <= 4000
