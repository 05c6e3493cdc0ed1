"""The demo's event that was handed over twice, failed, and was built when a person retried it: as the cluster knows it.

The answers that a browser is to show are held against what was sent and what the simulated cluster says, not against
what the system has written down.
"""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from deploy.local.demo_events import Message
from deploy.local.kubernetes_simulator.outcomes import digest_of
from deploy.local.simulator import NAMESPACE, Simulator

Json = dict[str, Any]
PREFIX = "kanikojobs.notifi.network/"


@dataclass(frozen=True, slots=True)
class Story:
    """The event, the pod of its first Kaniko Job, which is gone, and the second one's Job and image."""

    event_id: str
    trace_id: str
    source_url: str
    pod: str
    job_uid: str
    image: str
    digest: str


def story(message: Message, *, before: list[Json], simulator: Simulator) -> Story:
    """Of the event's message, and its pods before and after somebody deleted the first Job."""
    event = json.loads(message.body)
    [first] = before
    [second] = pods(simulator, event_id=message.event_id)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    [build] = [container for container in second["spec"]["containers"] if container["name"] == "kaniko"]
    destination = next(text for text in build["args"] if text.startswith("--destination="))
    return Story(
        event_id=message.event_id,
        trace_id=event["traceparent"].split("-")[1],
        source_url=event["data"]["parameters"]["source_url"],
        pod=first["metadata"]["name"],
        job_uid=second["metadata"]["ownerReferences"][0]["uid"],
        image=destination.partition("=")[2],
        digest=digest_of(second),
    )


def pods(simulator: Simulator, *, event_id: str) -> list[Json]:
    """The pods that there are for an event, as the API server lists them."""
    address = f"{simulator.url}/api/v1/namespaces/{NAMESPACE}/pods"
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - the address is ours
        found = json.load(answer)["items"]
    return [pod for pod in found if pod["metadata"]["annotations"].get(f"{PREFIX}event-id") == event_id]
