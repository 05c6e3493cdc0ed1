"""Which outcome a Job's pods get: its annotation, else the first matching rule of the control API, else the default."""

import re
from dataclasses import dataclass
from typing import Any

from deploy.local.kubernetes_simulator.outcomes import OUTCOMES, is_script

Json = dict[str, Any]

OUTCOME_ANNOTATION = "simulator.kanikojobs/outcome"
SECONDS_ANNOTATION = "simulator.kanikojobs/run-seconds"
LABEL_PREFIX = "kanikojobs.notifi.network/"


class BadRule(ValueError):
    """A rule of the control API that cannot be understood; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which objects a rule is about. Everything that is given has to fit; regular expressions are searched for."""

    name: re.Pattern[str] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    event_id: str = ""

    @classmethod
    def parse(cls, rule: Json) -> "Match":
        try:
            name = re.compile(rule["name"]) if rule.get("name") else None
        except re.error as problem:
            raise BadRule(f"name: not a regular expression: {problem}") from None
        return cls(
            name=name,
            labels=tuple(rule.get("labels", {}).items()),
            annotations=tuple(rule.get("annotations", {}).items()),
            event_id=rule.get("event_id", ""),
        )

    @property
    def empty(self) -> bool:
        return not (self.name or self.labels or self.annotations or self.event_id)

    def fits(self, metadata: Json) -> bool:
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        return (
            (self.name is None or bool(self.name.search(metadata.get("name", ""))))
            and all(labels.get(key) == value for key, value in self.labels)
            and all(annotations.get(key) == value for key, value in self.annotations)
            and (not self.event_id or annotations.get(LABEL_PREFIX + "event-id") == self.event_id)
        )


class Scripts:
    """The scripted outcomes."""

    def __init__(self, *, default: str) -> None:
        self.default = _checked(default)
        self._rules: list[tuple[Match, str, float | None]] = []

    def set_default(self, script: str) -> None:
        self.default = _checked(script)

    def set_rules(self, rules: list[Json]) -> None:
        """Replaces the rules. Raises `BadRule`, and then changes nothing."""
        self._rules = [
            (Match.parse(rule), _checked(rule.get("outcome", self.default)), rule.get("run_seconds")) for rule in rules
        ]

    def script_for(self, job: Json) -> str:
        metadata = job["metadata"]
        own = (metadata.get("annotations") or {}).get(OUTCOME_ANNOTATION, "")
        if is_script(own):
            return str(own)
        return next((script for match, script, _ in self._rules if match.fits(metadata)), self.default)

    def seconds_for(self, job: Json) -> float | None:
        """How long the build runs, in seconds, where something says so."""
        metadata = job["metadata"]
        own = (metadata.get("annotations") or {}).get(SECONDS_ANNOTATION, "")
        if re.fullmatch(r"\d+(\.\d+)?", own):
            return float(own)
        return next((seconds for match, _, seconds in self._rules if match.fits(metadata)), None)


def _checked(script: str) -> str:
    if not is_script(script):
        raise BadRule(f"outcome: {script!r} is none; write one or more of {', '.join(OUTCOMES)}, joined by commas")
    return script
