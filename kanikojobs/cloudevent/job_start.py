"""What a job start event asks for: the fields of `data`, their rules and their defaults.

The names and the sample values are those of the document `job-start-events.md`; `…` stands for `parameters`.

| field of `data`   | rule                                     | if absent or null                   |
|-------------------|------------------------------------------|-------------------------------------|
| `third_party_id`  | 1 to 128 letters, digits, `.`, `_`, `-`  | fault                               |
| `parser_id`       | the same                                 | fault                               |
| `correlation_id`  | the same                                 | the event's id                      |
| `job_name`        | 1 to 256 characters, none a control      | `kaniko-job-<third party>-<parser>` |
| `priority`        | 1 (most urgent) to 10 (least)            | `parameters.priority`, else 5       |
| `parameters`      | object                                   | fault                               |
| `….priority`      | as `priority`, which wins                | `priority`                          |
| `….source_url`    | 1 to 2048 printable characters           | fault: nothing to build             |
| `….build_type`    | 1 to 63 letters, digits, `.`, `_`, `-`   | `container`                         |
| `….runtime`       | the same                                 | empty                               |
| `….build_timeout` | seconds, at least 1, cut to the maximum  | the configured default              |
| `….environment`   | at most 100 strings by environment names | empty                               |

Unknown fields are kept in `data`. What `source_url` may point to is decided before a Job is made.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from kanikojobs.cloudevent.hostile_text import kind, member, quoted, text_problem
from kanikojobs.errors import Fault

MAX_IDENTIFIER_LENGTH = 128
MAX_TOKEN_LENGTH = 63
MAX_JOB_NAME_LENGTH = 256
MAX_SOURCE_URL_LENGTH = 2048
MAX_ENVIRONMENT_VARIABLES = 100
MAX_ENVIRONMENT_NAME_LENGTH = 128
# One argument of a process holds 128 KiB on Linux, and a Kubernetes object about 1 MiB.
MAX_ENVIRONMENT_VALUE_LENGTH = 16 * 1024
MAX_ENVIRONMENT_LENGTH = 128 * 1024
MOST_URGENT, LEAST_URGENT = 1, 10
DEFAULT_PRIORITY = 5
DEFAULT_BUILD_TYPE = "container"

_IDENTIFIER = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_IDENTIFIER_LENGTH - 1}}}").fullmatch
_TOKEN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_TOKEN_LENGTH - 1}}}").fullmatch
_ENVIRONMENT_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_ENVIRONMENT_NAME_LENGTH - 1}}}").fullmatch


@dataclass(frozen=True, slots=True)
class Rules:
    """What the installation accepts. Sizes in bytes, times in seconds."""

    event_type: str = "network.notifi.lambda.job.start"
    event_source: str = "network.notifi.kaniko-jobs"
    max_body_bytes: int = 1024 * 1024
    max_batch_bytes: int = 16 * 1024 * 1024
    max_batch_events: int = 1000
    max_depth: int = 32
    default_build_timeout: int = 1800
    max_build_timeout: int = 7200


class JobStart(NamedTuple):
    """The typed fields of `data`. After a fault the values are placeholders."""

    third_party_id: str
    parser_id: str
    correlation_id: str
    job_name: str
    priority: int
    build_type: str
    runtime: str
    source_url: str
    build_timeout: int
    environment: dict[str, str]


def read(data: dict[str, Any], *, event_id: str, rules: Rules, faults: list[Fault]) -> JobStart:
    """The fields of `data`; whatever is wrong with them is appended to `faults`."""
    third_party_id = _identifier(data, "third_party_id", faults=faults)
    parser_id = _identifier(data, "parser_id", faults=faults)
    if data.get("correlation_id") is None:
        correlation_id = event_id
    else:
        correlation_id = _identifier(data, "correlation_id", faults=faults)

    job_name = data.get("job_name")
    if job_name is None:
        job_name = f"kaniko-job-{third_party_id}-{parser_id}"
    elif not isinstance(job_name, str):
        faults.append(Fault("data.job_name", f"{kind(job_name)}; must be a string"))
    elif problem := text_problem(job_name, max_length=MAX_JOB_NAME_LENGTH):
        faults.append(Fault("data.job_name", problem))

    parameters = data.get("parameters")
    if not isinstance(parameters, dict):
        faults.append(Fault("data.parameters", _wanted(parameters, "an object with a source_url")))
        parameters = {"source_url": "unknown"}
    inner_priority = _priority(parameters, "data.parameters.priority", default=DEFAULT_PRIORITY, faults=faults)
    return JobStart(
        third_party_id=third_party_id,
        parser_id=parser_id,
        correlation_id=correlation_id,
        job_name=job_name,
        priority=_priority(data, "data.priority", default=inner_priority, faults=faults),
        build_type=_token(parameters, "build_type", default=DEFAULT_BUILD_TYPE, faults=faults),
        runtime=_token(parameters, "runtime", default="", faults=faults),
        source_url=_source_url(parameters, faults=faults),
        build_timeout=_build_timeout(parameters, rules=rules, faults=faults),
        environment=_environment(parameters, faults=faults),
    )


def _wanted(value: object, wanted: str) -> str:
    """`missing; must be …` or `null; must be …`: the start of most faults."""
    return f"{'missing or null' if value is None else kind(value)}; must be {wanted}"


def _identifier(data: dict[str, Any], name: str, *, faults: list[Fault]) -> str:
    value = data.get(name)
    if isinstance(value, str) and _IDENTIFIER(value):
        return value
    wanted = f"1 to {MAX_IDENTIFIER_LENGTH} letters, digits, `.`, `_` or `-`, starting with a letter or digit"
    faults.append(Fault(f"data.{name}", _wanted(value, f"a string of {wanted}")))
    return ""


def _token(parameters: dict[str, Any], name: str, *, default: str, faults: list[Fault]) -> str:
    value = parameters.get(name)
    if value is None:
        return default
    if isinstance(value, str) and _TOKEN(value):
        return value
    wanted = f"1 to {MAX_TOKEN_LENGTH} letters, digits, `.`, `_` or `-`, starting with a letter or digit"
    faults.append(Fault(f"data.parameters.{name}", _wanted(value, f"a string of {wanted}")))
    return default


def _priority(fields: dict[str, Any], path: str, *, default: int, faults: list[Fault]) -> int:
    value = fields.get("priority")
    if value is None:
        return default
    # bool is an int to Python; type() is not fooled by it.
    if type(value) is int and MOST_URGENT <= value <= LEAST_URGENT:
        return value
    wanted = f"a whole number from {MOST_URGENT} (most urgent) to {LEAST_URGENT} (least), without quotes"
    faults.append(Fault(path, _wanted(value, wanted)))
    return default


def _source_url(parameters: dict[str, Any], *, faults: list[Fault]) -> str:
    value = parameters.get("source_url")
    path = "data.parameters.source_url"
    if not isinstance(value, str):
        faults.append(Fault(path, _wanted(value, "the URL of the repository to build")))
        return ""
    if problem := text_problem(value, max_length=MAX_SOURCE_URL_LENGTH):
        faults.append(Fault(path, problem))
    elif not value.isprintable():
        faults.append(Fault(path, f"{quoted(value)} has characters that cannot be seen; remove them"))
    return value


def _build_timeout(parameters: dict[str, Any], *, rules: Rules, faults: list[Fault]) -> int:
    value = parameters.get("build_timeout")
    if value is None:
        return min(rules.default_build_timeout, rules.max_build_timeout)
    if type(value) is int and value > 0:
        return min(value, rules.max_build_timeout)
    wanted = "a whole number of seconds, at least 1, without quotes"
    faults.append(Fault("data.parameters.build_timeout", _wanted(value, wanted)))
    return rules.default_build_timeout


def _environment(parameters: dict[str, Any], *, faults: list[Fault]) -> dict[str, str]:
    environment = parameters.get("environment")
    path = "data.parameters.environment"
    if environment is None:
        return {}
    if not isinstance(environment, dict):
        faults.append(Fault(path, f"{kind(environment)}; must be an object of names and strings"))
        return {}
    if len(environment) > MAX_ENVIRONMENT_VARIABLES:
        faults.append(Fault(path, f"{len(environment)} variables; at most {MAX_ENVIRONMENT_VARIABLES} are passed on"))
        return {}
    length = 0
    for name, value in environment.items():
        if not _ENVIRONMENT_NAME(name):
            rule = f"at most {MAX_ENVIRONMENT_NAME_LENGTH} letters, digits and _, not starting with a digit"
            faults.append(Fault(member(path, name), f"not an environment name ({rule})"))
        if not isinstance(value, str):
            hint = ', in quotes: "5", "true"' if isinstance(value, int | float) else ""
            faults.append(Fault(member(path, name), f"{kind(value)}; write it as a string{hint}"))
        elif len(value) > MAX_ENVIRONMENT_VALUE_LENGTH:
            limit = f"at most {MAX_ENVIRONMENT_VALUE_LENGTH} are passed on"
            faults.append(Fault(member(path, name), f"{len(value)} characters long; {limit}"))
        else:
            length += len(name) + len(value)
    if length > MAX_ENVIRONMENT_LENGTH:
        faults.append(Fault(path, f"{length} characters in all; at most {MAX_ENVIRONMENT_LENGTH} are passed on"))
    return environment
