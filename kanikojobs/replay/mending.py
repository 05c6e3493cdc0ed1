"""A dead letter whose body a person has edited: checked as intake checks, the original kept."""

from dataclasses import dataclass

from kanikojobs.audit import Author
from kanikojobs.errors import Fault
from kanikojobs.models import DeadLetter, ReplayItem, ReplayRun
from kanikojobs.replay import forecast, runs
from kanikojobs.replay.forecast import Ahead, Outcome

WILL_DO = (Outcome.QUEUED, Outcome.DUPLICATE, Outcome.ALREADY_BUILT, Outcome.ACTIVE)


@dataclass(frozen=True, slots=True)
class Check:
    """What a replay would make of an edited body, and what is wrong with it."""

    outcome: ReplayItem.Outcome
    faults: tuple[Fault, ...]

    @property
    def is_good(self) -> bool:
        return self.outcome in WILL_DO


class StillInvalid(Exception):
    """An edited body that would only die again."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(map(str, faults)))


def check(*, letter: DeadLetter, body: bytes) -> Check:
    """What would come of this body in the place of the letter's. A pure read."""
    (candidate,) = forecast.candidates([letter.pk], mended={letter.pk: body})
    (verdict,) = forecast.foresee([candidate], ahead=Ahead())
    return Check(verdict.outcome, verdict.faults)


def replay(*, letter: DeadLetter, body: bytes, author: Author, reason: str) -> ReplayRun:
    """Replay a letter with another body. Raises `StillInvalid`, `runs.NothingToReplay`, `audit.ReasonMissing`."""
    checked = check(letter=letter, body=body)
    if not checked.is_good:
        raise StillInvalid(checked.faults)
    return runs.start_mended(letter=letter, body=body, author=author, reason=reason)
