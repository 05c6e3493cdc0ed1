"""The same things seen of a Job and its pods come to the same end, in whatever order the two streams bring them.

Each course of a Job is told as the API server tells it: one stream of Jobs, one of pods. All ways to merge the two are
tried, with a look after each piece of news, after any one of them, and only at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from kanikojobs.evidence import Captured
from kanikojobs.judging import Judgement, Row, judge
from kanikojobs.kube_watch import LogTail
from kanikojobs.observed import Container, Job, Pod
from kanikojobs.states import FINISHED, State
from kanikojobs.tracking import Tracker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UID = "00000000-0000-0000-0000-000000000001"
DIGEST = "sha256:" + "a" * 64
IMAGE = "registry:5000/third-party/parser:abc"

JOB = Job(name="j", uid=UID, image=IMAGE, created_at=NOW)
COMPLETE = replace(JOB, end="Complete")
TOO_LATE = replace(JOB, end="Failed", reason="DeadlineExceeded", message="Job was active too long", failed=1)
FAILING = replace(JOB, ending="DeadlineExceeded")
FAILED = replace(JOB, end="Failed", reason="BackoffLimitExceeded", message="Job has reached its limit", failed=1)
GOING = replace(JOB, terminating=True)


def kaniko(state: Any, **fields: Any) -> Container:
    return Container(**{"name": "kaniko", "init": False, "state": state} | fields)


PULLS = kaniko("waiting", reason="ImagePullBackOff", message="Back-off pulling image")
LOST = kaniko("terminated", reason="ContainerStatusUnknown", exit_code=137)
RUNS = kaniko("running", started_at=NOW)
PUSHED = kaniko("terminated", reason="Completed", exit_code=0, message=DIGEST, started_at=NOW)
KILLED = kaniko("terminated", reason="Error", exit_code=137, started_at=NOW)
BROKEN = kaniko(
    "terminated",
    reason="Error",
    exit_code=1,
    message="error building image: error building stage: failed to execute command: exit status 1",
    started_at=NOW,
)

POD = Pod(name="j-b", uid="pod-b", job_name="j", phase="Pending", created_at=NOW)
SUCCEEDED = replace(POD, phase="Succeeded", containers=(PUSHED,))
RUNNING = replace(POD, phase="Running", containers=(RUNS,))
WAITING = replace(POD, containers=(PULLS,))
# Made in the same second as the pod that replaces it, with a name that sorts behind that.
PUT_OUT = Pod(
    name="j-z",
    uid="pod-z",
    job_name="j",
    phase="Failed",
    reason="Evicted",
    message="The node was low on resource: memory.",
    disruption=("TerminationByKubelet", ""),
    created_at=NOW,
    containers=(KILLED,),
)


@dataclass(frozen=True, slots=True)
class Gone:
    """The last word about an object, as its DELETED event has it."""

    last: Any


def going(pod: Pod, **fields: Any) -> Pod:
    return replace(pod, terminating=True, **fields)


@dataclass(frozen=True, slots=True)
class Course:
    """What the two streams tell, what can be asked for when the Job has ended, and the end that all of it has."""

    jobs: tuple[Any, ...]
    pods: tuple[Any, ...]
    end: tuple[State, str]
    there: tuple[Pod, ...] = ()
    captured: Captured = field(default_factory=Captured)
    cancelled: bool = False
    digest: str = ""


def log_of(text: str) -> Captured:
    return Captured(logs={("j-b", "kaniko"): LogTail(text, cut=False)})


QUOTA = {"reason": "FailedCreate", "message": 'pods "j-x" is forbidden: exceeded quota: builds, requested: pods=1'}
STEP_FAILED = "INFO[0004] RUN npm ci\nerror building image: failed to execute command: exit status 1\n"

COURSES = {
    "it succeeds": Course(
        (JOB, COMPLETE), (POD, RUNNING, SUCCEEDED), (State.SUCCEEDED, ""), there=(SUCCEEDED,), digest=DIGEST
    ),
    "it succeeds and goes at once": Course(
        (JOB, COMPLETE, replace(COMPLETE, terminating=True), Gone(COMPLETE)),
        (POD, SUCCEEDED, Gone(going(SUCCEEDED))),
        (State.SUCCEEDED, ""),
        there=(SUCCEEDED,),
        digest=DIGEST,
    ),
    "a step fails": Course(
        (JOB, FAILED),
        (POD, RUNNING, replace(POD, phase="Failed", containers=(BROKEN,))),
        (State.FAILED, "BuildStepFailed"),
        there=(replace(POD, phase="Failed", containers=(BROKEN,)),),
    ),
    "a step fails, which only the log tells": Course(
        (JOB, FAILED),
        (POD, RUNNING, replace(POD, phase="Failed", containers=(replace(BROKEN, message=""),))),
        (State.FAILED, "BuildStepFailed"),
        there=(replace(POD, phase="Failed", containers=(replace(BROKEN, message=""),)),),
        captured=log_of(STEP_FAILED),
    ),
    "it runs out of memory": Course(
        (JOB, FAILED),
        (POD, RUNNING, replace(POD, phase="Failed", containers=(replace(KILLED, reason="OOMKilled"),))),
        (State.FAILED, "OOMKilled"),
        there=(replace(POD, phase="Failed", containers=(replace(KILLED, reason="OOMKilled"),)),),
    ),
    "the source container fails": Course(
        (JOB, FAILED),
        (
            POD,
            replace(
                POD,
                phase="Failed",
                containers=(
                    replace(BROKEN, name="source", init=True, message="remote: Repository not found."),
                    kaniko("waiting", reason="PodInitializing"),
                ),
            ),
        ),
        (State.FAILED, "SourceNotFound"),
        there=(
            replace(
                POD,
                phase="Failed",
                containers=(replace(BROKEN, name="source", init=True, message="remote: Repository not found."),),
            ),
        ),
    ),
    "its image cannot be pulled until the deadline": Course(
        (JOB, FAILING, TOO_LATE),
        (POD, WAITING, going(WAITING), Gone(going(WAITING))),
        (State.FAILED, "ImagePullBackOff"),
        # For the order in which its pod has come and gone before the Job was heard of.
        captured=Captured(events=[{"reason": "Failed", "message": 'Failed to pull image "x": not found'}]),
    ),
    "its image cannot be pulled, and the kubelet knows nothing of containers": Course(
        (JOB, FAILING, TOO_LATE),
        (POD, WAITING, going(WAITING), going(POD, phase="Failed", containers=(LOST,))),
        (State.FAILED, "ImagePullBackOff"),
        there=(going(POD, phase="Failed", containers=(LOST,)),),
    ),
    "it waits for a node and then runs until the deadline": Course(
        (JOB, FAILING, TOO_LATE),
        (
            replace(POD, unschedulable="0/3 nodes are available"),
            RUNNING,
            going(RUNNING),
            Gone(going(RUNNING, phase="Failed", containers=(KILLED,))),
        ),
        (State.FAILED, "DeadlineExceeded"),
    ),
    "it pushes while its deadline ends it": Course(
        (JOB, FAILING, TOO_LATE),
        (POD, RUNNING, going(RUNNING), going(SUCCEEDED)),
        (State.SUCCEEDED, ""),
        there=(going(SUCCEEDED),),
        digest=DIGEST,
    ),
    "it is killed after it has pushed": Course(
        (JOB, FAILING, TOO_LATE),
        (POD, RUNNING, going(RUNNING, phase="Failed", containers=(replace(KILLED, message=DIGEST),))),
        (State.SUCCEEDED, ""),
        there=(going(RUNNING, phase="Failed", containers=(replace(KILLED, message=DIGEST),)),),
        captured=log_of(f"INFO[0014] Pushed registry:5000/third-party/parser@{DIGEST}\n"),
        digest=DIGEST,
    ),
    "its pod is put out and the next one succeeds": Course(
        (JOB, COMPLETE),
        (replace(PUT_OUT, phase="Running", disruption=("", ""), containers=(RUNS,)), PUT_OUT, POD, RUNNING, SUCCEEDED),
        (State.SUCCEEDED, ""),
        there=(PUT_OUT, SUCCEEDED),
        digest=DIGEST,
    ),
    "its pod is put out and the next one fails": Course(
        (JOB, FAILED),
        (PUT_OUT, POD, replace(POD, phase="Failed", containers=(BROKEN,))),
        (State.FAILED, "BuildStepFailed"),
        there=(PUT_OUT, replace(POD, phase="Failed", containers=(BROKEN,))),
    ),
    "its pod is put out, which the Job counts": Course(
        (JOB, FAILED),
        (RUNNING, replace(RUNNING, phase="Failed", reason="Evicted")),
        (State.FAILED, "Evicted"),
        there=(replace(RUNNING, phase="Failed", reason="Evicted"),),
    ),
    "its node does not let it in": Course(
        (JOB, FAILED),
        (POD, replace(POD, phase="Failed", reason="OutOfmemory", message="Node didn't have enough resource: memory")),
        (State.FAILED, "NodeRefused"),
        there=(replace(POD, phase="Failed", reason="OutOfmemory"),),
    ),
    "it never gets a pod": Course(
        (JOB, FAILING, TOO_LATE), (), (State.FAILED, "QuotaExceeded"), captured=Captured(events=[QUOTA])
    ),
    "it is deleted by hand": Course(
        (JOB, GOING, Gone(GOING)),
        (POD, RUNNING, going(RUNNING), Gone(going(RUNNING, phase="Failed", containers=(KILLED,)))),
        (State.FAILED, "JobVanished"),
    ),
    "it is deleted by hand, its pod left behind": Course(
        (JOB, Gone(JOB)), (POD, RUNNING), (State.FAILED, "JobVanished"), there=(RUNNING,)
    ),
    "it is deleted by hand after it has pushed": Course(
        (JOB, Gone(JOB)),
        (POD, RUNNING, Gone(going(SUCCEEDED))),
        (State.SUCCEEDED, ""),
        there=(SUCCEEDED,),
        digest=DIGEST,
    ),
    "it is cancelled": Course(
        (JOB, GOING, Gone(GOING)),
        (POD, RUNNING, going(RUNNING), Gone(going(RUNNING))),
        (State.CANCELLED, "CancelledByOperator"),
        cancelled=True,
    ),
    "it is cancelled after it has pushed": Course(
        (JOB, GOING, Gone(GOING)),
        (POD, RUNNING, going(SUCCEEDED), Gone(going(SUCCEEDED))),
        (State.SUCCEEDED, ""),
        there=(SUCCEEDED,),
        cancelled=True,
        digest=DIGEST,
    ),
}


class Follower:
    """A row and what is known of its Job: the part of a watcher that decides, without database and API server."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.tracker = Tracker()
        self.digest = ""
        self.row = Row(
            id=1,
            name="j",
            state=State.CREATED,
            reason="Cancelling" if course.cancelled else "",
            message="",
            job_uid=None,
            cancel_requested_at=NOW if course.cancelled else None,
            number=1,
            event_id="e",
            correlation_id="c",
            trace_id="",
        )

    def see(self, news: Any) -> None:
        kind = "job" if isinstance(getattr(news, "last", news), Job) else "pod"
        if isinstance(news, Gone):
            getattr(self.tracker, f"{kind}_gone")(news.last)
        else:
            getattr(self.tracker, f"{kind}_seen")(news)

    def look(self) -> None:
        while self.tracker.take_changed(9) and self.row.state not in FINISHED:
            tracked = self.tracker.jobs.get("j")
            if tracked is not None and tracked.job is not None:
                self._act(judge(self.row, tracked))

    def _act(self, judgement: Judgement) -> None:
        tracked = self.tracker.jobs["j"]
        if judgement.ask_pods:
            # Answered by `catch_up`, for the other stream is given a moment first.
            tracked.asking = True
        if judgement.read:
            tracked.captured = self.course.captured
            self.tracker.mark("j")
        if judgement.explain is not None:
            self.row = replace(self.row, reason=judgement.explain[0], message=judgement.explain[1])
        if judgement.move is not None:
            self.row = replace(self.row, state=judgement.move.to, reason=judgement.move.reason)
            self.digest = judgement.found.digest

    def catch_up(self) -> None:
        self.look()
        tracked = self.tracker.jobs.get("j")
        if tracked is not None and tracked.asking:
            for pod in self.course.there:
                self.tracker.pod_seen(pod)
            tracked.asked = True
            self.tracker.mark("j")
        self.look()


def merges(course: Course) -> Iterator[list[Any]]:
    """Every way in which two streams can come, each in its own order, and later states with later versions."""
    pods = [_with_version(pod, number) for number, pod in enumerate(course.pods, start=1)]
    total = len(course.jobs) + len(pods)
    for places in combinations(range(total), len(course.jobs)):
        jobs, rest = iter(course.jobs), iter(pods)
        yield [next(jobs) if place in places else next(rest) for place in range(total)]


def _with_version(news: Any, version: int) -> Any:
    if isinstance(news, Gone):
        return Gone(replace(news.last, version=version))
    return replace(news, version=version)


@pytest.mark.parametrize("name", COURSES)
def test_it_comes_to_the_same_end_in_every_order(name: str) -> None:
    course = COURSES[name]
    course = replace(course, there=tuple(replace(pod, version=99) for pod in course.there))
    ends: dict[tuple[State, str, str], list[Any]] = {}

    for order in merges(course):
        everywhere = range(len(order))
        for looks in (everywhere, (), *((place,) for place in everywhere)):
            follower = Follower(course)
            for place, news in enumerate(order):
                follower.see(news)
                if place in looks:
                    follower.look()
            follower.catch_up()
            ends.setdefault((follower.row.state, follower.row.reason, follower.digest), order)

    assert set(ends) == {(*course.end, course.digest)}, ends


def test_what_is_older_than_what_is_known_is_not_taken_for_news() -> None:
    tracker = Tracker()
    tracker.pod_seen(replace(SUCCEEDED, version=7))

    tracker.pod_seen(replace(RUNNING, version=6))

    assert tracker.jobs["j"].pods == {"pod-b": SUCCEEDED}


def test_a_wait_that_is_over_before_its_job_is_known_is_forgotten() -> None:
    """A Job that stood in the quota's way, got its pod, and then ran out of time before that had a node."""
    follower = Follower(COURSES["it never gets a pod"])
    follower.row = replace(follower.row, reason="QuotaExceeded", message="exceeded quota")
    late = replace(POD, created_at=NOW + timedelta(minutes=1))

    for news in (JOB, late, going(late), TOO_LATE):
        follower.see(news)
        follower.look()
    follower.tracker.jobs["j"].captured = Captured()
    follower.catch_up()

    assert (follower.row.state, follower.row.reason) == (State.FAILED, "DeadlineExceeded")


def test_a_row_that_its_worker_has_not_written_yet_is_looked_at_again() -> None:
    follower = Follower(COURSES["it succeeds"])
    follower.row = replace(follower.row, state=State.CREATING)
    follower.see(JOB)
    follower.see(WAITING)

    judgement = judge(follower.row, follower.tracker.jobs["j"])

    assert judgement == Judgement(again=True)


@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING])
def test_that_a_job_is_ending_is_told_of_what_ran_and_hides_no_wait(state: State) -> None:
    follower = Follower(COURSES["it succeeds"])
    follower.row = replace(follower.row, state=state)
    for news in (FAILING, going(RUNNING)):
        follower.see(news)

    explained = judge(follower.row, follower.tracker.jobs["j"]).explain

    assert (explained is None, explained and explained[0]) == ((True, None), (False, "Ending"))[state == State.RUNNING]
