"""Settings in the form of the document about job start events: its two YAML blocks as defaults for our environment.

Someone who has that file names it in KANIKOJOBS_SETTINGS_FILE and need not rewrite it. What the environment sets
itself wins. A key that the document does not know is a fault, because a misspelt one would otherwise change nothing.
Whether a value is in range is checked where all values are, in `project.environment`.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

FILE = "KANIKOJOBS_SETTINGS_FILE"


class _Wrong(ValueError):
    """A value that cannot be meant. Its text completes the sentence that begins with the key."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Wrong("is not a text. Write it in quotes.")
    return value


def _number(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong("is not a whole number. Write it without quotes, unit or point.")
    return str(value)


def _duration(value: object) -> str:
    # A bare number is left to the environment's reader, which says which unit is missing.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Wrong("is not a duration. Write for example 100ms, 2s or 1m.")
    return str(value)


def _always(only: bool) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value is not only:
            raise _Wrong(f"cannot be changed: the queue is a quorum queue. Write {str(only).lower()}.")
        return ""

    return read


# Each key of the document: what reads its value, and the variable it is for. Those without one are for the deploy
# files, or can have one value only.
_KEYS: dict[str, tuple[Callable[[object], str], str]] = {
    "rabbitmq.clusterName": (_text, ""),
    "rabbitmq.namespace": (_text, ""),
    "rabbitmq.connectionSecretName": (_text, ""),
    "rabbitmq.queues.kanikoJobs.name": (_text, "KANIKOJOBS_QUEUE"),
    "rabbitmq.queues.kanikoJobs.durable": (_always(True), ""),
    "rabbitmq.queues.kanikoJobs.autoDelete": (_always(False), ""),
    "rabbitmq.queues.kanikoJobs.messageTtl": (_number, "KANIKOJOBS_MESSAGE_TTL_MS"),
    "rabbitmq.queues.kanikoJobs.maxLength": (_number, "KANIKOJOBS_MAX_LENGTH"),
    "rabbitmq.queues.kanikoJobs.overflow": (_text, "KANIKOJOBS_OVERFLOW"),
    "asyncJobCreator.workerCount": (_number, "KANIKOJOBS_WORKER_COUNT"),
    "asyncJobCreator.maxRetries": (_number, "KANIKOJOBS_MAX_RETRIES"),
    "asyncJobCreator.retryDelay": (_duration, "KANIKOJOBS_RETRY_DELAY"),
    "asyncJobCreator.maxQueueSize": (_number, "KANIKOJOBS_MAX_QUEUE_SIZE"),
}
_BLOCKS = {key.rsplit(".", depth)[0] for key in _KEYS for depth in range(1, key.count(".") + 1)}


def with_document_settings(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment, completed by the file that it names in KANIKOJOBS_SETTINGS_FILE, and the faults of that file.

    A variable that the environment sets, itself or as NAME_FILE, stays as it is.
    """
    path = environ.get(FILE, "")
    if not path:
        return dict(environ), []
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        return dict(environ), [f"{FILE} names {path}, which cannot be read as YAML: {what}."]
    defaults, faults = variables(document)
    missing = {
        name: value for name, value in defaults.items() if not environ.get(name) and not environ.get(f"{name}_FILE")
    }
    return {**environ, **missing}, [f"{path}: {fault}" for fault in faults]


def variables(document: Any) -> tuple[dict[str, str], list[str]]:
    """The variables that a document's settings stand for, and its faults. Any key may be missing. Pure."""
    found: dict[str, str] = {}
    faults: list[str] = []
    _read(document, path="", found=found, faults=faults)
    return found, faults


def _read(block: Any, *, path: str, found: dict[str, str], faults: list[str]) -> None:
    if block is None:
        return
    if not isinstance(block, Mapping):
        known = ", ".join(_names_below(path))
        faults.append(f"{path or 'the file'} is not a block of keys. Write below it: {known}.")
        return
    for name, value in block.items():
        key = f"{path}.{name}" if path else str(name)
        if key in _BLOCKS:
            _read(value, path=key, found=found, faults=faults)
        elif key not in _KEYS:
            faults.append(f"{key} is not known. {_advice(str(name), path=path)}")
        else:
            read, variable = _KEYS[key]
            try:
                text = read(value)
            except _Wrong as wrong:
                faults.append(f"{key} ({value!r}) {wrong}")
                continue
            if variable:
                found[variable] = text


def _advice(name: str, *, path: str) -> str:
    known = _names_below(path)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Write one of: {', '.join(known)}."


def _names_below(path: str) -> list[str]:
    """The names that may stand directly below a block."""
    prefix = f"{path}." if path else ""
    return list(dict.fromkeys(key.removeprefix(prefix).split(".")[0] for key in _KEYS if key.startswith(prefix)))
