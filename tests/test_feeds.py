"""List and watch against a server that says what API servers say on a bad day: cut lines, 410s, streams that end."""

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kanikojobs import feeds, kube_watch
from kanikojobs.feeds import LONGEST_BACKOFF, Feed, Inbox, _backoff
from tests.odd_server import odd_server, request_of, write_kubeconfig
from tests.watched_jobs import wait_until

PATH = "/apis/batch/v1/namespaces/kaniko-builds/jobs"
EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "Expired",
    "code": 410,
    "message": "old",
}
STAYS = object()  # a watch that stays open and says nothing


def an_object(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """All that a bookmark has to have (apimachinery, watch.Bookmark)."""
    return event("BOOKMARK", {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"resourceVersion": str(version)}})


def a_list(*objects: dict[str, Any], version: int, going_on: str = "") -> tuple[int, dict[str, Any]]:
    return 200, {"metadata": {"resourceVersion": str(version), "continue": going_on}, "items": list(objects)}


class Followed:
    """A feed of a scripted server: what it asked for, and what it was told, in order."""

    def __init__(self, *, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[str] = []
        self.told: list[Any] = []
        self.inbox: Inbox = Inbox()
        self.enough = threading.Event()

    def serve(self, peer: socket.socket) -> None:
        path = request_of(peer).split()[1].decode()
        self.asked.append(path)
        answers = self.watches if "watch=true" in path else self.lists
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, tuple):
            status, body = answer
            text = json.dumps(body).encode()
            peer.sendall(
                b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text
            )
            return
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        if answer is STAYS:
            self.enough.wait(60)
            return
        for chunk in answer:
            peer.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        peer.sendall(b"0\r\n\r\n")

    def wait_for(self, *told: Any) -> None:
        until = time.monotonic() + 60
        while self.told[-len(told) :] != list(told):
            try:
                self.inbox.get(timeout=max(0.01, until - time.monotonic()))()
            except queue.Empty:
                raise AssertionError(f"waited in vain: {self.told}") from None


@contextmanager
def following(tmp_path: Path, settings: Any, *, lists: list[Any], watches: list[Any]) -> Iterator[Followed]:
    followed = Followed(lists=lists, watches=watches)
    with odd_server(followed.serve) as port:
        settings.KUBECONFIG = write_kubeconfig(tmp_path / f"{port}.yaml", server=f"http://127.0.0.1:{port}")
        feed: Feed[str] = Feed(
            path=PATH,
            inbox=followed.inbox,
            read=lambda obj: str(obj["metadata"]["name"]),
            seen=lambda name: followed.told.append(("seen", name)),
            gone=lambda name: followed.told.append(("gone", name)),
            listed=lambda names, _: followed.told.append(("listed", sorted(names))),
            resync=300.0,
        )
        feed.start()
        try:
            yield followed
        finally:
            followed.enough.set()
            feed.close()
            feed.join(60)


def test_it_lists_in_pages_and_watches_on_from_there(tmp_path: Path, settings: Any) -> None:
    lists = [a_list(an_object("a", 1), version=7, going_on="next"), a_list(an_object("b", 2), version=7)]
    with following(tmp_path, settings, lists=lists, watches=[STAYS]) as followed:
        followed.wait_for(("seen", "a"), ("seen", "b"), ("listed", ["a", "b"]))
        wait_until(lambda: len(followed.asked) >= 3)

    assert "continue=next" in followed.asked[1]
    assert "resourceVersion=7" in followed.asked[2]
    assert "allowWatchBookmarks=true" in followed.asked[2]


def test_lines_that_are_cut_anywhere_are_whole_events(tmp_path: Path, settings: Any) -> None:
    stream = event("ADDED", an_object("ä", 8)) + bookmark(9) + event("DELETED", an_object("b", 10))
    chunks = [stream[at : at + 3] for at in range(0, len(stream), 3)]
    with following(tmp_path, settings, lists=[a_list(version=7)], watches=[chunks, STAYS]) as followed:
        followed.wait_for(("listed", []), ("seen", "ä"), ("gone", "b"))


def test_a_watch_that_ends_in_good_order_is_resumed_after_its_last_bookmark(tmp_path: Path, settings: Any) -> None:
    watches = [[event("ADDED", an_object("a", 8)), bookmark(12)], [event("ADDED", an_object("b", 13))], STAYS]
    with following(tmp_path, settings, lists=[a_list(version=7)], watches=watches) as followed:
        followed.wait_for(("listed", []), ("seen", "a"), ("seen", "b"))

    assert "resourceVersion=12" in followed.asked[2]


def test_a_silent_watch_is_resumed_without_a_list(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real server sends no bookmark while nothing has changed since the watch began.
    monkeypatch.setattr(feeds, "QUIET_SECONDS", 0.1)
    watches = [STAYS, [event("ADDED", an_object("a", 8))], STAYS]
    with following(tmp_path, settings, lists=[a_list(version=7)], watches=watches) as followed:
        followed.wait_for(("listed", []), ("seen", "a"))

    assert ["watch=true" in path for path in followed.asked[:3]] == [False, True, True]
    assert "resourceVersion=7" in followed.asked[2]


FORGOTTEN: dict[str, tuple[list[Any], list[Any]]] = {
    "in a stream of 200": ([a_list(version=7), a_list(version=20)], [[event("ERROR", EXPIRED)], STAYS]),
    "as the answer to a watch": ([a_list(version=7), a_list(version=20)], [(410, EXPIRED), STAYS]),
    "in the middle of a list": (
        [a_list(version=7, going_on="next"), (410, EXPIRED), a_list(version=20)],
        [STAYS],
    ),
    "a line that is cut off": ([a_list(version=7), a_list(version=20)], [[b'{"type": "ADD'], STAYS]),
    "an error without a code": ([a_list(version=7), a_list(version=20)], [[event("ERROR", {})], STAYS]),
    "no JSON": ([a_list(version=7), a_list(version=20)], [[b"upstream connect error\n"], STAYS]),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_what_is_forgotten_or_broken_means_a_fresh_list(tmp_path: Path, settings: Any, name: str) -> None:
    lists, watches = FORGOTTEN[name]
    with following(tmp_path, settings, lists=list(lists), watches=list(watches)) as followed:
        wait_until(
            lambda: followed.asked and "watch=true" in followed.asked[-1] and "resourceVersion=20" in followed.asked[-1]
        )

    assert sum("watch=true" not in path for path in followed.asked) == len(lists)


@pytest.mark.parametrize("watch", [(410, EXPIRED), [event("ERROR", EXPIRED)], [b"{"], (500, {})], ids=range(4))
def test_a_server_that_ends_every_watch_at_once_is_asked_ever_less_often(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, watch: Any
) -> None:
    waits: list[int] = []

    def count(failures: int) -> float:
        waits.append(failures)
        return 0.0

    monkeypatch.setattr("kanikojobs.feeds._backoff", count)
    with following(tmp_path, settings, lists=[a_list(version=7)], watches=[watch]):
        wait_until(lambda: len(waits) >= 4)

    assert waits[:4] == [1, 2, 3, 4]


def test_it_never_waits_longer_than_a_few_seconds() -> None:
    waits = [_backoff(failures) for failures in (0, 1, 5, 500)]

    assert waits[0] < 0.1
    assert max(waits) <= LONGEST_BACKOFF


def test_a_job_that_another_one_took_the_name_of_is_not_there(tmp_path: Path, settings: Any) -> None:
    with following(tmp_path, settings, lists=[(200, an_object("a", 3))], watches=[STAYS]):
        assert kube_watch.job_exists("a", uid="a")
        assert not kube_watch.job_exists("a", uid="b")
