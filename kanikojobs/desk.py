"""What a leader works with during one term, handed to each part of the watching. Made anew with each term."""

from collections import Counter
from dataclasses import dataclass, field

from kanikojobs.agenda import Agenda
from kanikojobs.feeds import Inbox
from kanikojobs.leader import Leadership
from kanikojobs.readers import Readers
from kanikojobs.states import State
from kanikojobs.tracking import Tracker

READERS = 4


def nothing() -> None:
    """What there is to do when a call has come to nothing."""


@dataclass(slots=True)
class Desk:
    """All but the readers' own threads belongs to the main thread, which alone uses the database.

    `urgent` makes the calls that a state waits for, `patient` those that only fill the record, `rescue` those that
    save the log of a pod before it goes, and `removal` deletes: none must stand in line behind another kind, for a
    kubelet that is gone lets each wait until it times out. `moved` counts the moves by state.
    """

    leadership: Leadership
    moved: Counter[State]
    tracker: Tracker = field(default_factory=Tracker)
    agenda: Agenda = field(default_factory=Agenda)
    inbox: Inbox = field(default_factory=Inbox)
    urgent: Readers = field(init=False)
    patient: Readers = field(init=False)
    rescue: Readers = field(init=False)
    removal: Readers = field(init=False)

    def __post_init__(self) -> None:
        self.urgent = Readers(count=READERS, inbox=self.inbox, name="reader")
        self.patient = Readers(count=READERS, inbox=self.inbox, name="archivist")
        self.rescue = Readers(count=READERS, inbox=self.inbox, name="rescuer")
        self.removal = Readers(count=READERS, inbox=self.inbox, name="remover")

    def close(self) -> None:
        for readers in (self.urgent, self.patient, self.rescue, self.removal):
            readers.close()
