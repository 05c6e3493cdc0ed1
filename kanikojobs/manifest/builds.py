"""What an event asks to be built, as one value; what the operator decides about it is in `build_options`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kanikojobs.naming import kubernetes_name, short_hash

_OF_THE_EVENT = (
    "source",
    "event_id",
    "third_party_id",
    "parser_id",
    "correlation_id",
    "job_name",
    "priority",
    "build_type",
    "runtime",
    "source_url",
    "build_timeout",
    "traceparent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What is built: the event's fields and the number of the Kaniko Job. `build_timeout` is in seconds.

    The last four are a retry's own wishes: quantities, a destination template, a path in the source.
    """

    source: str
    event_id: str
    number: int
    third_party_id: str
    parser_id: str
    job_name: str
    source_url: str
    correlation_id: str = ""
    priority: int = 5
    build_type: str = "container"
    runtime: str = ""
    build_timeout: int = 1800
    environment: Mapping[str, str] = field(default_factory=dict)
    traceparent: str = ""
    memory: str = ""
    cpu: str = ""
    destination: str = ""
    dockerfile: str = ""

    @classmethod
    def of(cls, event: Any, *, number: int, environment: Mapping[str, str]) -> "Build":
        """What an event, as it was read or as its row has it, asks to be built as its `number`-th Kaniko Job."""
        return cls(number=number, environment=environment, **{name: getattr(event, name) for name in _OF_THE_EVENT})

    @property
    def kubernetes_name(self) -> str:
        return kubernetes_name(source=self.source, event_id=self.event_id, number=self.number, job_name=self.job_name)

    def edited(self, overrides: Mapping[str, Any] | None) -> "Build":
        """This build with what a retry has changed of it: values by the names of the fields."""
        return replace(self, **overrides) if overrides else self

    def placeholders(self) -> dict[str, str]:
        """What the templates of image names may use; see `kanikojobs.manifest.destination.PLACEHOLDERS`."""
        return {
            "third_party_id": self.third_party_id,
            "parser_id": self.parser_id,
            "correlation_id": self.correlation_id,
            "event_id": self.event_id,
            "number": str(self.number),
            "runtime": self.runtime,
            "job_name": self.job_name,
            "short_hash": short_hash(self.source, self.event_id, self.number),
        }
