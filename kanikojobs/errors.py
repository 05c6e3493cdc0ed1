"""The errors of the domain, told apart by the one question that matters: would trying again help?

`InvalidEvent` is about what came in, `PermanentError` and `TransientError` about what could not be done with it,
`ClusterUnavailable` about nobody's event at all.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an event: where it is (JSON path or header) and what to write instead."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class InvalidEvent(Exception):
    """A message that cannot become a job start event. Carries every fault found, not only the first.

    `source` and `event_id` are the CloudEvents identity as far as it could be read (CloudEvents 1.0.2, section 3.1.1);
    they serve the search, not the uniqueness, because nothing else of the message can be trusted.
    """

    def __init__(self, faults: list[Fault], *, source: str = "", event_id: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        self.event_id = event_id
        super().__init__("; ".join(str(fault) for fault in faults))


class NotOurs(Exception):
    """A well-formed CloudEvent of another type or from another source: to be acknowledged and counted, not kept."""

    def __init__(self, *, type: str, source: str) -> None:
        self.type = type
        self.source = source
        super().__init__(f"CloudEvent of type {type!r} from {source!r} is not for this system")


class CreationError(Exception):
    """A Job could not be created. `reason` is CamelCase as in Kubernetes conditions, `message` a sentence."""

    def __init__(self, *, reason: str, message: str, http_status: int | None = None) -> None:
        self.reason = reason
        self.message = message
        self.http_status = http_status
        super().__init__(f"{reason}: {message}")


class PermanentError(CreationError):
    """Trying again cannot help: the request itself is refused."""


class TransientError(CreationError):
    """Trying again may help. `retry_after` is the wait in seconds that the server asked for, if it asked."""

    def __init__(
        self, *, reason: str, message: str, http_status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason=reason, message=message, http_status=http_status)
        self.retry_after = retry_after


class ClusterUnavailable(TransientError):
    """The API server cannot be reached or sheds load for everyone: nobody's retry is to be spent on it."""
