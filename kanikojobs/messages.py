"""What is handed over and what became of it: the words that RabbitMQ's and HTTP's edges share with intake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kanikojobs.errors import Fault


class Outcome(StrEnum):
    """What became of one message."""

    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    NOT_OURS = "not-ours"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was handed over, by RabbitMQ or by an HTTP caller."""

    body: bytes
    content_type: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """What became of a batch: one outcome per message in its order, and the faults of the dead ones by position.

    `letters` are the ids of the dead letters that messages from RabbitMQ's dead-letter queue became.
    """

    outcomes: tuple[Outcome, ...]
    faults: Mapping[int, tuple[Fault, ...]] = field(default_factory=dict)
    letters: tuple[int, ...] = ()

    @property
    def recorded(self) -> int:
        return self.outcomes.count(Outcome.RECORDED)

    @property
    def duplicates(self) -> int:
        return self.outcomes.count(Outcome.DUPLICATE)

    @property
    def dead(self) -> int:
        return self.outcomes.count(Outcome.DEAD)

    @property
    def not_ours(self) -> int:
        return self.outcomes.count(Outcome.NOT_OURS)
