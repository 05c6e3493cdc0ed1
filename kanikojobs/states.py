"""The states of a Kaniko Job, who moves it into each, and the moves that are allowed.

    queued ──▶ creating ──▶ created ──▶ running ──▶ succeeded | failed | cancelled
       ▲           │
       └───────────┘  a try that failed and may be tried again, or a claim that was given back

    queued      intake, a retry, or a worker that gives a claim back
    creating    the queue, when a worker claims the row (it holds a lease from then on)
    created     the worker, when the API server has the Job
    running     the watcher, when a pod of the Job runs
    succeeded   the watcher, when the Job is complete
    failed      the worker, when creation is refused or its retries are spent; the watcher, when the Job failed
    cancelled   an operator, or a rule that an operator set

Jumps forward are allowed, because a watcher can miss a state: a Job may be finished by the time that anybody looks.
A finished Kaniko Job never moves again. What is tried again is a new one with the next number.
"""

from django.db import models


class State(models.TextChoices):
    QUEUED = "queued", "queued"
    CREATING = "creating", "creating"
    CREATED = "created", "created"
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


FINISHED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
UNFINISHED = (State.QUEUED, State.CREATING, State.CREATED, State.RUNNING)

# In the cluster, or perhaps already there: what a cap on active Jobs has to count.
ACTIVE = (State.CREATING, State.CREATED, State.RUNNING)

# The API server has said that the Job exists, so its uid is known.
HAS_A_UID = (State.CREATED, State.RUNNING, State.SUCCEEDED)

TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.QUEUED: (State.CREATING, State.CREATED, State.RUNNING, *FINISHED),
    State.CREATING: (State.QUEUED, State.CREATED, State.RUNNING, *FINISHED),
    State.CREATED: (State.RUNNING, *FINISHED),
    State.RUNNING: FINISHED,
    State.SUCCEEDED: (),
    State.FAILED: (),
    State.CANCELLED: (),
}
