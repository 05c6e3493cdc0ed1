"""Scripted faults: what the server does to a request before, or after, it has carried it out."""

import random
import re
from dataclasses import dataclass, field
from typing import Any

from deploy.local.kubernetes_simulator.answers import ApiError, bad_request, forbidden, internal_error
from deploy.local.kubernetes_simulator.resources import Resource
from deploy.local.kubernetes_simulator.scripts import BadRule, Match

Json = dict[str, Any]

ACTIONS = (
    "status",
    "timeout-before",
    "timeout-after",
    "drop",
    "drop-after",
    "latency",
    "garbage",
    "forbidden",
    "quota",
    "webhook",
)
_AFTER = ("timeout-after", "drop-after")
_BUSY = "Too many requests, please try again later.\n"


@dataclass(slots=True)
class Rule:
    """One scripted fault. `left` counts down where only the first N requests are meant, `skip` lets some through."""

    do: str
    verbs: tuple[str, ...]
    path: re.Pattern[str] | None
    match: Match
    probability: float
    left: int | None
    skip: int
    status: int
    seconds: float
    retry_after: int | None
    reason: str
    message: str
    plain: bool | None
    dice: random.Random = field(repr=False)
    hits: int = 0

    @property
    def after(self) -> bool:
        """Whether the request is carried out before the fault."""
        return self.do in _AFTER

    def describe(self) -> Json:
        return {
            "do": self.do,
            "verb": ",".join(self.verbs),
            "status": self.status,
            "hits": self.hits,
            "left": self.left,
        }


def parse_rule(raw: Json, *, seed: int) -> Rule:
    """Reads a rule of `POST /simulator/faults`. Raises `BadRule`."""
    do = raw.get("do", "status")
    if do not in ACTIONS:
        raise BadRule(f"do: {do!r} is no fault; write one of {', '.join(ACTIONS)}")
    if do == "status" and not 300 <= int(raw.get("status", 0)) <= 599:
        raise BadRule("status: write an HTTP status from 300 to 599")
    try:
        path = re.compile(raw["path"]) if raw.get("path") else None
    except re.error as problem:
        raise BadRule(f"path: not a regular expression: {problem}") from None
    verbs = raw.get("verb", "")
    return Rule(
        do=do,
        verbs=tuple(verbs.split(",")) if isinstance(verbs, str) and verbs else tuple(verbs),
        path=path,
        match=Match.parse(raw),
        probability=float(raw.get("probability", 1.0)),
        left=raw.get("count"),
        skip=int(raw.get("skip", 0)),
        status=int(raw.get("status", 0)),
        seconds=float(raw.get("seconds", 60.0 if do.startswith("timeout") else 0.0)),
        retry_after=raw.get("retry_after"),
        reason=raw.get("reason", ""),
        message=raw.get("message", ""),
        plain=raw.get("plain"),
        dice=random.Random(raw.get("seed", seed)),
    )


class Faults:
    """The rules in force. The first that fits a request decides."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add(self, raw: list[Json]) -> None:
        """Adds rules behind those in force. Raises `BadRule`, and then adds none."""
        start = len(self.rules)
        self.rules += [parse_rule(rule, seed=start + index) for index, rule in enumerate(raw)]

    def clear(self) -> None:
        self.rules.clear()

    def hit(self, *, verb: str, path: str, metadata: Json) -> Rule | None:
        """The fault that this request meets, if any."""
        for rule in self.rules:
            if rule.left == 0 or (rule.verbs and verb not in rule.verbs):
                continue
            if rule.path is not None and not rule.path.search(path):
                continue
            if not rule.match.empty and not rule.match.fits(metadata):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.probability < 1.0 and rule.dice.random() >= rule.probability:
                continue
            if rule.left is not None:
                rule.left -= 1
            rule.hits += 1
            return rule
        return None


def refusal(rule: Rule, *, resource: Resource | None, name: str, namespace: str, verb: str, user: str) -> ApiError:
    """The answer of a fault that refuses, in the form that a real server, or what stands before it, would give."""
    if resource is not None and rule.do == "forbidden":
        why = rule.message or (
            f'User "{user}" cannot {verb} resource "{resource.plural}" in API group "{resource.group}" '
            f'in the namespace "{namespace}"'
        )
        return forbidden(resource=resource, name="" if verb in ("create", "list", "watch") else name, why=why)
    if resource is not None and rule.do == "quota":
        counted = f"count/{resource.qualified}"
        why = rule.message or (
            f"exceeded quota: builds, requested: {counted}=1, used: {counted}=50, limited: {counted}=50"
        )
        return forbidden(resource=resource, name=name, why=why)
    if rule.do == "webhook":
        told = rule.message or "the image must be signed"
        return ApiError(
            code=rule.status or 400,
            reason=rule.reason,
            message=f'admission webhook "policy.example.com" denied the request: {told}',
        )
    return _status_answer(rule)


def _status_answer(rule: Rule) -> ApiError:
    headers = {"Retry-After": str(rule.retry_after)} if rule.retry_after is not None else {}
    match rule.status:
        case 429:
            # Priority and Fairness answers with text, only storage and eviction with a Status.
            headers.setdefault("Retry-After", "1")
            answer = ApiError(
                code=429,
                reason=rule.reason or "TooManyRequests",
                message=rule.message or _BUSY,
                plain=rule.plain is not False,
            )
        case 500:
            answer = internal_error(rule.message or "etcdserver: leader changed")
        case 503:
            answer = ApiError(
                code=503,
                reason=rule.reason or "ServiceUnavailable",
                message=rule.message or "apiserver is shutting down",
            )
        case 504:
            answer = ApiError(
                code=504,
                reason=rule.reason or "Timeout",
                message=rule.message or "Timeout: request did not complete within the allotted timeout",
                details={},
            )
        case 400:
            answer = bad_request(rule.message or "the server refused the request")
        case status:
            answer = ApiError(code=status, reason=rule.reason, message=rule.message or f"scripted answer {status}")
    answer.reason = rule.reason or answer.reason
    answer.plain = answer.plain if rule.plain is None else rule.plain
    answer.headers |= headers
    if rule.retry_after is not None and not answer.plain:
        answer.details = {**(answer.details or {}), "retryAfterSeconds": rule.retry_after}
    return answer
