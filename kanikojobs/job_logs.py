"""The log of a Kaniko Job for somebody who reads it now: from the pod while there is one, from the rows afterwards.

Whatever is shown is redacted, line by line, as it comes.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from kanikojobs import kube_watch
from kanikojobs.errors import CreationError
from kanikojobs.models import ContainerLog, KanikoJob
from kanikojobs.observed import Pod, read_pod
from kanikojobs.redaction import LineRedactor
from kanikojobs.states import FINISHED
from kanikojobs.storable import printable

MAIN_CONTAINER = "kaniko"
LONGEST_FOLLOW = 900.0  # seconds; whoever wants more asks again
LONGEST_SILENCE = 300.0  # seconds without a line
# Each reader who follows keeps a thread of the web server: some must be left for everybody else.
MOST_FOLLOWERS = 2  # of the four threads that a web server's process has as deployed
_followers = threading.BoundedSemaphore(MOST_FOLLOWERS)


class TooManyFollowers(Exception):
    """As many logs as this process can follow are being followed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log comes from: a container of a pod that is there, or the row that was kept of it."""

    pod: str
    container: str
    kept: ContainerLog | None = None


def places(job: KanikoJob) -> list[Place]:
    """Each container's log that there is, in the order in which they ran. Raises nothing that the API can cause."""
    kept = {(log.pod, log.container): log for log in job.logs.order_by("id")}
    found = [Place(pod, container, log) for (pod, container), log in kept.items()]
    if job.state in FINISHED and kept:
        return found
    return found + [place for place in _in_the_cluster(job) if (place.pod, place.container) not in kept]


def _in_the_cluster(job: KanikoJob) -> list[Place]:
    try:
        pods = sorted(map(read_pod, kube_watch.pods_of(job.name)), key=_age)
    except CreationError:
        return []
    return [Place(pod.name, container.name) for pod in pods for container in pod.containers if container.started]


def _age(pod: Pod) -> tuple[str, str]:
    return str(pod.created_at or ""), pod.name


def chosen(job: KanikoJob, *, container: str) -> Place | None:
    """The log that is meant by a container's name, of the latest pod; without one, kaniko's or the last that ran."""
    there = [place for place in places(job) if not container or place.container == container]
    main = [place for place in there if place.container == MAIN_CONTAINER]
    return (main or there)[-1] if there else None


def lines(place: Place) -> Iterator[str]:
    """The lines of a log that there are now, each with its end.

    Raises the errors of `kanikojobs.errors` when the log cannot be read.
    """
    if place.kept is not None:
        return iter(place.kept.text.splitlines(keepends=True))
    tail = kube_watch.log_tail(pod=place.pod, container=place.container, lines=500, most_bytes=1_000_000)
    redactor = LineRedactor()
    return iter([redactor.redact(line) + "\n" for line in tail.text.splitlines()])


class Following:
    """The lines of a container's log as they are written, until it ends; raises nothing that the API can cause.

    Raises `TooManyFollowers` when it is made. Whoever has one closes it, though they may never have asked for a line:
    that gives the reader's place back.
    """

    def __init__(self, place: Place) -> None:
        self._holds = _followers.acquire(blocking=False)
        if not self._holds:
            raise TooManyFollowers
        self._lines = _follow(place)

    def __iter__(self) -> "Following":
        return self

    def __next__(self) -> str:
        return next(self._lines)

    def close(self) -> None:
        held, self._holds = self._holds, False
        if held:
            self._lines.close()
            _followers.release()


def _follow(place: Place) -> Generator[str, None, None]:
    redactor = LineRedactor()
    timer: threading.Timer | None = None
    began = heard = time.monotonic()

    def opened(hang_up: Callable[[], None]) -> None:
        nonlocal timer
        timer = threading.Timer(LONGEST_FOLLOW, hang_up)
        timer.daemon = True
        timer.start()

    try:
        for line in kube_watch.follow_log(
            pod=place.pod, container=place.container, quiet=LONGEST_SILENCE, opened=opened
        ):
            yield redactor.redact(printable(line)) + "\n"
            heard = time.monotonic()
        now = time.monotonic()
        if now - began >= LONGEST_FOLLOW or now - heard >= LONGEST_SILENCE:
            yield "(no more is followed here; ask again to go on)\n"
    except CreationError as error:
        yield f"(the log cannot be read: {error.reason})\n"
    finally:
        if timer is not None:
            timer.cancel()
