"""The rows: what was asked for, what is built for it, each try to create it, and what could not be used.

The database guards the truth. Every rule that must hold is a constraint here, so that no code path, shell or other
version of this software can write a row that cannot be; `tests/test_constraints.py` tries each past the ORM.
Defaults live in the database too (`db_default`), because the hot paths write with SQL of their own.
"""

from kanikojobs.models.cluster import Outage, Turn
from kanikojobs.models.dead_letters import DeadLetter
from kanikojobs.models.events import HIGHEST_PRIORITY, LOWEST_PRIORITY, JobStartEvent
from kanikojobs.models.evidence import ContainerLog, Drift, JobEvidence
from kanikojobs.models.failure_groups import FailureGroup, FailureGroupHour
from kanikojobs.models.jobs import JobAttempt, KanikoJob
from kanikojobs.models.moves import KanikoJobQuerySet, Move
from kanikojobs.models.operators import BuildProfile, OperatorAction
from kanikojobs.models.outbox import OutcomeEvent
from kanikojobs.models.replays import ReplayItem, ReplayRule, ReplayRun
from kanikojobs.models.retention import PruneRun
from kanikojobs.models.signs import Heartbeat, Tally

__all__ = [
    "HIGHEST_PRIORITY",
    "LOWEST_PRIORITY",
    "BuildProfile",
    "ContainerLog",
    "DeadLetter",
    "Drift",
    "FailureGroup",
    "FailureGroupHour",
    "Heartbeat",
    "JobAttempt",
    "JobEvidence",
    "JobStartEvent",
    "KanikoJob",
    "KanikoJobQuerySet",
    "Move",
    "OperatorAction",
    "Outage",
    "OutcomeEvent",
    "PruneRun",
    "ReplayItem",
    "ReplayRule",
    "ReplayRun",
    "Tally",
    "Turn",
]
