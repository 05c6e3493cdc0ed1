"""Watches: from which version, with which events, and how they end."""

from typing import Any

import pytest

from tests.kubernetes_conformance.objects import REAL_SERVER, create, job
from tests.raw_kubernetes import RawKubernetes

pytestmark = pytest.mark.cluster

# A real server looks for watches that are due about once a second, and misses those that last a few seconds only.
_BOOKMARKED_SECONDS = 12 if REAL_SERVER else 3


def list_version(api: RawKubernetes, plural: str = "jobs") -> str:
    return str(api.call("GET", api.path(plural)).body["metadata"]["resourceVersion"])


def test_a_watch_from_a_list_tells_what_came_after_it_in_order(api: RawKubernetes, name: str) -> None:
    create(api, job(f"{name}-before", metadata={"labels": {"set": name}}))
    version = list_version(api)
    create(api, job(name, metadata={"labels": {"set": name}}))
    api.patch(name, {"metadata": {"annotations": {"a": "1"}}})
    api.delete(name, propagationPolicy="Background")

    with api.watch(resourceVersion=version, labelSelector=f"set={name}") as stream:
        events = [stream.next() for _ in range(3)]

    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {event["object"]["metadata"]["name"] for event in events} == {name}
    assert all((event["object"]["kind"], event["object"]["apiVersion"]) == ("Job", "batch/v1") for event in events)
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)


def test_an_open_watch_tells_what_happens_now(api: RawKubernetes, name: str) -> None:
    with api.watch(resourceVersion=list_version(api), labelSelector=f"set={name}") as stream:
        create(api, job(name, metadata={"labels": {"set": name}}))
        event = stream.next()

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", name)


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}], ids=["no version", "version 0"])
def test_a_watch_without_a_version_begins_with_what_is_there(
    api: RawKubernetes, name: str, query: dict[str, Any]
) -> None:
    create(api, job(name, metadata={"labels": {"set": name}}))

    with api.watch(labelSelector=f"set={name}", **query) as stream:
        event = stream.next()

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", name)


def test_an_object_enters_and_leaves_a_watch_with_its_labels(api: RawKubernetes, name: str) -> None:
    create(api, job(name, metadata={"labels": {"team": "none"}}))
    version = list_version(api)

    api.patch(name, {"metadata": {"labels": {"team": name}}})
    api.patch(name, {"metadata": {"annotations": {"a": "1"}}})
    api.patch(name, {"metadata": {"labels": {"team": "none"}}})
    with api.watch(resourceVersion=version, labelSelector=f"team={name}") as stream:
        events = [stream.next() for _ in range(3)]

    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    # The last one shows the object as it last was in the selection, with the version that took it out.
    assert events[2]["object"]["metadata"]["labels"] == {"team": name}
    assert int(events[2]["object"]["metadata"]["resourceVersion"]) == api.get(name).version


def test_a_watch_of_one_name_tells_of_nothing_else(api: RawKubernetes, name: str) -> None:
    version = list_version(api)
    create(api, job(f"{name}-other"))
    create(api, job(name))

    with api.watch(seconds=1, resourceVersion=version, fieldSelector=f"metadata.name={name}") as stream:
        events = stream.rest()

    assert [event["object"]["metadata"]["name"] for event in events] == [name]


def test_a_watch_ends_when_its_time_is_up(api: RawKubernetes, name: str) -> None:
    with api.watch(seconds=1, labelSelector=f"set={name}") as stream:
        events = stream.rest()

    assert events == []


def test_bookmarks_carry_the_version_alone(api: RawKubernetes, name: str) -> None:
    # storage/cacher: about once a minute, and two seconds before the watch ends; only if there is a newer version
    # than when the watch began.
    with api.watch(
        seconds=_BOOKMARKED_SECONDS,
        resourceVersion=list_version(api),
        allowWatchBookmarks="true",
        labelSelector="set=nothing",
    ) as stream:
        created = create(api, job(name))
        events = stream.rest()

    assert {event["type"] for event in events} == {"BOOKMARK"}
    assert events[-1]["object"]["kind"] == "Job"
    assert "name" not in events[-1]["object"]["metadata"]
    assert int(events[-1]["object"]["metadata"]["resourceVersion"]) >= created.version


def test_a_bookmark_is_a_version_to_go_on_from(api: RawKubernetes, name: str) -> None:
    with api.watch(
        seconds=_BOOKMARKED_SECONDS,
        resourceVersion=list_version(api),
        allowWatchBookmarks="true",
        labelSelector="set=nothing",
    ) as stream:
        create(api, job(f"{name}-before"))
        bookmark = stream.next()["object"]["metadata"]["resourceVersion"]
    create(api, job(name))

    with api.watch(resourceVersion=bookmark, fieldSelector=f"metadata.name={name}") as stream:
        event = stream.next()

    assert event["type"] == "ADDED"


def test_a_version_that_is_too_old_is_gone(api: RawKubernetes) -> None:
    # The watch cache answers 200 and an ERROR event; either way it is a Status with code 410.
    with api.watch(resourceVersion="1") as stream:
        event = stream.next()

    if REAL_SERVER and event["type"] != "ERROR":
        pytest.skip("this server is so young that it still remembers its first version")
    assert event["type"] == "ERROR"
    assert (event["object"]["kind"], event["object"]["code"], event["object"]["reason"]) == ("Status", 410, "Expired")
