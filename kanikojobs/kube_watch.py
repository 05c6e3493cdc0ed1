"""The calls to the Kubernetes API of those who follow Jobs: list, watch, delete, logs and Events.

They build on `kanikojobs.kube`, which alone imports the kubernetes package. All are limited to the builds' namespace
and, where many objects are meant, to our label.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3
from django.conf import settings

from kanikojobs import kube
from kanikojobs.colours import uncoloured
from kanikojobs.errors import CreationError, TransientError
from kanikojobs.kube_answers import Answer, error_of
from kanikojobs.storable import printable

SELECTOR = "app.kubernetes.io/managed-by=kanikojobs"
PAGE_SIZE = 250

Json = dict[str, Any]


class Expired(Exception):
    """The API server no longer knows the resource version (410): only a fresh list helps."""


class Broken(Exception):
    """A stream ended in the middle of something."""


def jobs_path(name: str = "") -> str:
    return f"/apis/batch/v1/namespaces/{settings.KANIKOJOBS_NAMESPACE}/jobs" + (f"/{name}" if name else "")


def pods_path(name: str = "") -> str:
    return f"/api/v1/namespaces/{settings.KANIKOJOBS_NAMESPACE}/pods" + (f"/{name}" if name else "")


def list_pages(path: str) -> Iterator[tuple[list[Json], str]]:
    """Our objects in pages, each with the resource version of the whole list, which a watch goes on from.

    Raises `Expired` when the list took longer than the server remembers, and the errors of `kanikojobs.errors`.
    """
    going_on = ""
    while True:
        query = {"labelSelector": SELECTOR, "limit": str(PAGE_SIZE)} | ({"continue": going_on} if going_on else {})
        answer = kube.request("GET", f"{path}?{urlencode(query)}")
        if answer.status == 410:
            raise Expired(answer.message)
        metadata = answer_of(answer).get("metadata") or {}
        yield answer.body.get("items") or [], str(metadata.get("resourceVersion") or "")
        going_on = str(metadata.get("continue") or "")
        if not going_on:
            return


def answer_of(answer: Answer) -> Json:
    """The body of a successful answer. Raises the errors of `kanikojobs.errors` for any other."""
    if 200 <= answer.status < 300:
        return answer.body
    raise error_of(answer)


@dataclass(slots=True)
class Watch:
    """One watch request at a time, which another thread can end.

    `seconds` is how long the server is asked to keep it open; a stream that is silent for longer than `quiet`
    seconds, bookmarks included, is ended from here.
    """

    path: str
    seconds: int
    quiet: float
    _response: urllib3.BaseHTTPResponse | None = None
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def events(self, version: str) -> Iterator[tuple[str, Json]]:
        """Type and object of each event after a resource version, BOOKMARKs too, until the stream ends or is silent.

        Raises `Expired`, `Broken`, or the errors of `kanikojobs.errors` when the watch cannot begin.
        """
        query = {
            "labelSelector": SELECTOR,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(self.seconds),
        }
        try:
            response = kube.open_stream(f"{self.path}?{urlencode(query)}", quiet=self.quiet)
        except CreationError as error:
            if error.http_status == 410:
                raise Expired(error.message) from None
            raise
        with self._lock:
            self._response = response
            if self._closed:
                response.close()
                return
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event.get("object") or {}
                    if status.get("code") == 410:
                        raise Expired(str(status.get("message")))
                    raise Broken(str(status.get("message") or status))
                yield event["type"], event["object"]
        except urllib3.exceptions.ReadTimeoutError:
            # Nothing was lost: the next watch begins after the last event that came whole.
            return
        except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from None
        finally:
            with self._lock:
                self._response = None
            response.close()

    def close(self) -> None:
        """End the stream, from any thread: its reader stops at once."""
        with self._lock:
            self._closed = True
            if self._response is not None:
                _hang_up(self._response)


def _hang_up(response: urllib3.BaseHTTPResponse) -> None:
    try:
        response.shutdown()
    except (OSError, ValueError, RuntimeError):
        # The connection is gone already.
        return


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Whole lines; one that the end of the stream cuts off is `Broken`."""
    rest = b""
    for chunk in response.stream(65_536):
        lines = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        raise Broken("the stream ended in the middle of a line")


def pods_of(job: str) -> list[Json]:
    """The pods of a Job, by the label that the Job controller gives them. Raises the errors of `kanikojobs.errors`."""
    query = urlencode({"labelSelector": f"batch.kubernetes.io/job-name={job}"})
    return list(answer_of(kube.request("GET", f"{pods_path()}?{query}")).get("items") or [])


def job_exists(name: str, *, uid: str) -> bool:
    """Whether the Job of this name and uid is there. Raises the errors of `kanikojobs.errors`."""
    answer = kube.request("GET", jobs_path(name))
    if answer.status == 404 and answer.reason == "NotFound":
        return False
    return not uid or str((answer_of(answer).get("metadata") or {}).get("uid")) == uid


def delete_job(name: str, *, uid: str) -> bool:
    """Delete a Job; it goes when its pods have gone. False if it is not there, or another one has its name.

    Raises the errors of `kanikojobs.errors`.
    """
    body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    if uid:
        body["preconditions"] = {"uid": uid}
    answer = kube.request("DELETE", jobs_path(name), body=body)
    if (answer.status == 404 and answer.reason == "NotFound") or (answer.status == 409 and uid):
        return False
    answer_of(answer)
    return True


def events_about(uid: str) -> list[Json]:
    """The Kubernetes Events about an object, oldest first. Raises the errors of `kanikojobs.errors`."""
    return _events(f"involvedObject.uid={uid}")


def events_about_pod(name: str) -> list[Json]:
    """The same about a pod that nobody has seen, by its name."""
    return _events(f"involvedObject.kind=Pod,involvedObject.name={name}")


def _events(selector: str) -> list[Json]:
    query = urlencode({"fieldSelector": selector, "limit": "100"})
    path = f"/api/v1/namespaces/{settings.KANIKOJOBS_NAMESPACE}/events?{query}"
    return list(answer_of(kube.request("GET", path)).get("items") or [])


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log. `cut` says that earlier lines were left out."""

    text: str
    cut: bool


def log_tail(*, pod: str, container: str, lines: int, most_bytes: int) -> LogTail:
    """The last lines of a container's log, bounded in bytes too. Raises the errors of `kanikojobs.errors`."""
    query = urlencode({"container": container, "tailLines": str(lines)})
    response = kube.open_stream(
        f"{pods_path(pod)}/log?{query}", quiet=settings.KANIKOJOBS_KUBERNETES_TIMEOUT.total_seconds()
    )
    # The server's own limitBytes keeps the beginning, and it is the end that tells.
    kept: deque[bytes] = deque()
    size = read = 0
    cut = False
    try:
        for chunk in response.stream(65_536):
            kept.append(chunk)
            size += len(chunk)
            read += len(chunk)
            while size - len(kept[0]) >= most_bytes:
                size -= len(kept.popleft())
                cut = True
            if read > 64 * most_bytes:
                cut = True
                break
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransientError(reason="LogUnreadable", message=f"{type(error).__name__}: {error}") from None
    finally:
        response.close()
    whole = b"".join(kept)
    text = uncoloured(printable(whole[-most_bytes:].decode("utf-8", "replace")))
    if cut or len(whole) > most_bytes:
        cut, text = True, text.partition("\n")[2] or text
    return LogTail(text, cut or text.count("\n") >= lines)


def follow_log(
    *, pod: str, container: str, quiet: float, opened: Callable[[Callable[[], None]], None]
) -> Iterator[str]:
    """The lines of a container's log as they are written, until it ends or is silent for `quiet` seconds.

    `opened` is handed a function that hangs up, from any thread. Raises the errors of `kanikojobs.errors`.
    """
    query = urlencode({"container": container, "follow": "true", "tailLines": "500"})
    response = kube.open_stream(f"{pods_path(pod)}/log?{query}", quiet=quiet)
    opened(lambda: _hang_up(response))
    rest = b""
    try:
        for chunk in response.stream(65_536):
            lines = (rest + chunk).split(b"\n")
            # A line without an end is not waited for for ever.
            rest = lines.pop()[-1_000_000:]
            for line in lines:
                yield uncoloured(line.decode("utf-8", "replace"))
        if rest:
            yield uncoloured(rest.decode("utf-8", "replace"))
    except (urllib3.exceptions.HTTPError, OSError):
        return
    finally:
        response.close()
