"""Reading the environment: each value is typed, each secret can be a file, every fault is told at once.

A value that cannot be read stops the start with a line that says what to write instead. `NAME_FILE` names a file
that holds the value of `NAME`, as mounted Kubernetes and Docker secrets do.
"""

import json
import os
import re
from collections.abc import Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

LONGEST_DAYS = 3650
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class Environment:
    """Typed access to the environment's variables. Collects faults; `check()` raises them all at once."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def check(self) -> None:
        """Raise `ImproperlyConfigured` with one line per fault, if there is any."""
        if self.faults:
            raise ImproperlyConfigured("\n".join(self.faults))

    def text(self, name: str, default: str = "") -> str:
        """The value of NAME, or the content of the file that NAME_FILE names (without its last newline)."""
        path = self._variables.get(f"{name}_FILE", "")
        value = self._variables.get(name, "")
        if path and value:
            self.fault(f"{name} and {name}_FILE are both set. Keep one of them.")
        elif path:
            try:
                value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                self.fault(f"{name}_FILE names {path}, which cannot be read: {error}.")
                return default
            if not value:
                self.fault(f"{name}_FILE names {path}, which is empty.")
        return value or default

    def required(self, name: str, *, write: str) -> str:
        """The value of NAME; without it a fault that says what to `write`."""
        faults = len(self.faults)
        value = self.text(name)
        if not value and len(self.faults) == faults:
            self.fault(f"{name} is not set. {write}")
        return value

    def url(self, name: str, *, example: str) -> str:
        """A URL with the scheme of the example, or that with TLS. A fault does not repeat it: it has a password."""
        value = self.text(name)
        scheme = example.partition(":")[0]
        try:
            parts = urlsplit(value)
            good = parts.scheme in (scheme, f"{scheme}s") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if value and not good:
            self.fault(f"{name} cannot be read. Write for example {example}, with special characters percent-encoded.")
            return ""
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name).lower()
        if value and value not in FLAGS:
            self.fault(f'{name}="{value}" is neither yes nor no. Write 1 or 0.')
        return FLAGS.get(value, default)

    def integer(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        value = self.text(name)
        if not value:
            return default
        allowed = f"from {least} to {most}" if most is not None else f"of at least {least}"
        # int() also takes "1_000" and other scripts' digits, which nobody means here.
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            self.fault(f'{name}="{value}" is not a whole number. Write one {allowed}.')
            return default
        number = int(value)
        if number < least or (most is not None and number > most):
            self.fault(f"{name}={number} is out of range. Write a whole number {allowed}.")
            return default
        return number

    def duration(self, name: str, default: str, *, least: str = "0s") -> timedelta:
        """A duration such as `100ms`, `2s`, `1m`, `24h` or `7d`. A number without a unit is a fault."""
        value = self.text(name, default)
        seconds = _seconds(value)
        if seconds is None:
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                self.fault(f'{name}="{value}" has no unit. Write {value}ms, 2s or 1m.')
            else:
                self.fault(f'{name}="{value}" is not a duration. Write for example 100ms, 2s or 1m.')
            seconds = _seconds(default) or 0.0
        elif seconds < (_seconds(least) or 0.0):
            self.fault(f"{name}={value} is too short. Write at least {least}.")
        elif seconds > UNITS["d"] * LONGEST_DAYS:
            self.fault(f"{name}={value} is too long. Write at most {LONGEST_DAYS}d.")
            seconds = _seconds(default) or 0.0
        return timedelta(seconds=seconds)

    def clock(self, name: str, default: str) -> time | None:
        """A time of the day in UTC, such as `03:30`, or None for `never`."""
        value = self.text(name, default)
        if value == "never":
            return None
        if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
            self.fault(f'{name}="{value}" is not a time of the day. Write for example 03:30, or never.')
            value = default
        return time.fromisoformat(value)

    def rate(self, name: str, default: str) -> str:
        """How often a caller may call, as Django REST framework writes it: `600/min`."""
        value = self.text(name, default)
        if not re.fullmatch(r"[1-9][0-9]{0,8}/(s|sec|second|m|min|minute|h|hour|d|day)", value):
            self.fault(f'{name}="{value}" is not a rate. Write for example 10/s, 600/min or 5000/hour.')
            return default
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            self.fault(f'{name}="{value}" is not known. Write one of: {", ".join(choices)}.')
            return default
        return value

    def items(self, name: str, default: str = "") -> list[str]:
        """A list, written with commas between its items; or as JSON, where an item has a comma."""
        text = self.text(name, default).strip()
        if text.startswith('["'):
            return self._json(name, text, list, of=str, example='["a", "b,c"]')
        return _parts(text)

    def mapping(self, name: str, default: str = "") -> dict[str, str]:
        """A mapping, written `key=value,key=value`; or as JSON, where a value has a comma."""
        text = self.text(name, default).strip()
        if text.startswith("{"):
            return self._json(name, text, dict, of=str, example='{"a": "1", "b": "2,3"}')
        pairs = {}
        for item in _parts(text):
            key, equals, value = item.partition("=")
            if not equals or not key.strip():
                self.fault(
                    f'{name} has "{item}", which is not key=value. Write for example a=1,b=2. '
                    'Where a value has a comma, write {"a": "1", "b": "2,3"}.'
                )
                continue
            pairs[key.strip()] = value.strip()
        return pairs

    def json_list(self, name: str) -> list[dict[str, Any]]:
        """A JSON list of objects, for what has no shorter form."""
        text = self.text(name)
        return self._json(name, text, list, of=dict, example='[{"key": "value"}]') if text else []

    def _json(self, name: str, text: str, shape: type, *, of: type, example: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError as error:
            self.fault(f"{name} is not JSON: {error}.")
            return shape()
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, shape) and all(isinstance(part, of) for part in parts):
            return value
        whole, part = "an object" if shape is dict else "a list", "objects" if of is dict else "strings"
        self.fault(f"{name} is not {whole} of {part}. Write for example {example}.")
        return shape()


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    return float(match[1]) * UNITS[match[2]] if match else None
