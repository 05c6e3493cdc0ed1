"""What an operator does in the demo once everything has come in, so that whoever opens it sees that too.

A build has failed and its Job has been deleted; the operator retries it over REST, says why, and it is built. Builds
that met a registry's rate limit are replayed together. Like anybody, the operator logs in with a password.
"""

import http.cookiejar
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from deploy.local.demo_events import BUILD_FAILS, Message, Traffic
from deploy.local.demo_following import PATIENCE_SECONDS, POLL_SECONDS
from deploy.local.demo_system import System
from deploy.local.processes import StackError
from deploy.local.simulator import NAMESPACE
from tests.sample_events import EVENT_SOURCE

WHY = "The package is back in the registry; try again."
WHY_ALL = "The rate limit has passed."

_JOB = """
    SELECT job.id, job.name, job.state, EXISTS (SELECT FROM kanikojobs_containerlog WHERE kaniko_job_id = job.id)
    FROM kanikojobs_kanikojob job JOIN kanikojobs_jobstartevent event ON event.id = job.event_id
    WHERE event.source = %s AND event.event_id = %s AND job.number = %s
"""


def broken(sent: Traffic) -> Message | None:
    """The message whose build fails and is retried, where builds are scripted."""
    return next((message for message in sent.messages if message.kind is BUILD_FAILS), None)


def act(sent: Traffic, *, system: System) -> None:
    """Delete, retry and replay, each once it can be. StackError says what did not come about."""
    message = broken(sent)
    if message is None or system.stack.simulator is None:
        return
    operator = Operator(system)
    with psycopg.connect(system.database_url, autocommit=True) as database:
        job = _await(database, message, number=1, what="to have its log kept", condition=lambda job: job.log_kept)
        _delete(job.name, url=system.stack.simulator.url)
        operator.post(f"/async-jobs/jobs/{job.id}/retry", {"reason": WHY})
        operator.post("/async-jobs/replays", {"filter": {"reason": "RegistryRateLimited"}, "reason": WHY_ALL})
        _await(database, message, number=2, what="to be built", condition=lambda job: job.state == "succeeded")


class Job(NamedTuple):
    """A Kaniko Job's row, and whether a log of it is kept."""

    id: int
    name: str
    state: str
    log_kept: bool


def _await(
    database: psycopg.Connection, message: Message, *, number: int, what: str, condition: Callable[[Job], bool]
) -> Job:
    """The message's Kaniko Job of this number, once the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        row = database.execute(_JOB, [EVENT_SOURCE, message.event_id, number]).fetchone()
        if row is not None and condition(job := Job(*row)):
            return job
        time.sleep(POLL_SECONDS)
    raise StackError(f"Kaniko Job {number} of event {message.event_id} was not seen {what}.")


def _delete(name: str, *, url: str) -> None:
    """Delete a Job with its pods, as its time to live does an hour after its end."""
    path = f"{url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}?propagationPolicy=Background"
    with urllib.request.urlopen(urllib.request.Request(path, method="DELETE"), timeout=30):  # noqa: S310
        pass


class Operator:
    """Somebody who is logged in, as a browser is."""

    def __init__(self, system: System) -> None:
        self._url = system.url
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        self._open("/admin/login/")
        account = {"username": system.user, "password": system.password, "next": "/async-jobs/stats"}
        self._open("/admin/login/", form={**account, "csrfmiddlewaretoken": self._token})

    def post(self, path: str, body: Any) -> Any:
        """The answer to a call of the REST API. StackError says why it was refused."""
        return json.loads(self._open(path, body=body))

    @property
    def _token(self) -> str:
        return next((cookie.value or "" for cookie in self._cookies if cookie.name == "csrftoken"), "")

    def _open(self, path: str, *, form: dict[str, str] | None = None, body: Any = None) -> bytes:
        request = urllib.request.Request(self._url + path)  # noqa: S310 - the address is ours
        if form is not None:
            request.data = urllib.parse.urlencode(form).encode()
        elif body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
            request.add_header("X-CSRFToken", self._token)
        try:
            with self._opener.open(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:300]
            raise StackError(f"{path} answered the operator {error.code}: {told}") from error
