"""Label and field selectors as the API server reads them (apimachinery `labels` and `fields` packages)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.local.kubernetes_simulator.answers import bad_request
from deploy.local.kubernetes_simulator.names import label_value_problems, qualified_name_problems
from deploy.local.kubernetes_simulator.resources import Resource

Labels = dict[str, str]

_SET = re.compile(r"^\s*(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_COMPARED = re.compile(r"^\s*(?P<key>[^\s!=<>(),]+)\s*(?P<operator>==|=|!=|>|<)\s*(?P<value>[^\s!=<>(),]*)\s*$")
_TERM = re.compile(r"^(?P<name>[^=!]+)(?P<operator>!=|==|=)(?P<value>.*)$")
_EXISTS = re.compile(r"^\s*(?P<negated>!)?\s*(?P<key>[^\s!=<>(),]+)\s*$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of a label selector."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        """A missing label satisfies `!=` and `notin` (labels.Requirement.Matches)."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
        if value is None or not value.lstrip("-").isdigit():
            return False
        bound = int(next(iter(self.values)))
        return int(value) > bound if self.operator == ">" else int(value) < bound


def _split(text: str) -> list[str]:
    """Splits at commas that are not inside a set's parentheses."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _requirement(part: str) -> Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], found["operator"], values)
    if found := _COMPARED.match(part):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(found["operator"], found["operator"])
        return Requirement(found["key"], operator, frozenset([found["value"]]))
    if found := _EXISTS.match(part):
        return Requirement(found["key"], "!" if found["negated"] else "exists")
    raise bad_request(f"unable to parse requirement: found '{part.strip()}', expected: identifier")


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of a labelSelector parameter; an empty one matches everything. Raises a 400."""
    if not text.strip():
        return ()
    requirements = tuple(_requirement(part) for part in _split(text))
    for requirement in requirements:
        problems = qualified_name_problems(requirement.key)
        if problems:
            raise bad_request(
                f'unable to parse requirement: <nil>: Invalid value: "{requirement.key}": {"; ".join(problems)}'
            )
        for value in requirement.values:
            if requirement.operator in (">", "<"):
                if not value.lstrip("-").isdigit():
                    raise bad_request(
                        f'unable to parse requirement: values[0][{requirement.key}]: Invalid value: "{value}": '
                        "for 'Gt', 'Lt' operators, the value must be an integer"
                    )
            elif problems := label_value_problems(value):
                raise bad_request(
                    f"unable to parse requirement: values[0][{requirement.key}]: "
                    f'Invalid value: "{value}": {"; ".join(problems)}'
                )
    return requirements


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One term of a field selector: the field's value equals, or does not equal, a text."""

    path: tuple[str, ...]
    value: str
    equal: bool

    def matches(self, obj: dict[str, Any]) -> bool:
        return (_field(obj, self.path) == self.value) == self.equal


def _field(obj: dict[str, Any], path: tuple[str, ...]) -> str:
    if path == ("status", "successful"):
        return str(obj.get("status", {}).get("succeeded", 0))
    if path == ("source",):
        return str(obj.get("source", {}).get("component", "")) or str(obj.get("reportingComponent", ""))
    found: Any = obj
    for key in path:
        found = found.get(key, "") if isinstance(found, dict) else ""
    return str(found)


def parse_fields(text: str, *, resource: Resource) -> tuple[FieldTerm, ...]:
    """The terms of a fieldSelector parameter. Raises a 400 for a field that the resource does not offer."""
    terms = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _TERM.match(part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        name = found["name"]
        if name not in resource.selectable:
            raise bad_request(resource.unsupported_field.format(name))
        terms.append(FieldTerm(tuple(name.split(".")), found["value"], found["operator"] != "!="))
    return tuple(terms)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource a list, a watch or a deletion is about."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.labels or self.fields)

    def exactly(self, *path: str) -> str:
        """The one value that a field must have, or an empty text: lets a list use an index."""
        return next((term.value for term in self.fields if term.path == path and term.equal), "")

    def matches(self, obj: dict[str, Any]) -> bool:
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        labels = metadata.get("labels") or {}
        return all(requirement.matches(labels) for requirement in self.labels) and all(
            term.matches(obj) for term in self.fields
        )


Matcher = Callable[[dict[str, Any]], bool]
