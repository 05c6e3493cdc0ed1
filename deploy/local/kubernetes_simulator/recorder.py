"""Kubernetes Events, in the words of the component that would write them."""

from typing import Any

from deploy.local.kubernetes_simulator import clock
from deploy.local.kubernetes_simulator.identity import new_uid
from deploy.local.kubernetes_simulator.resources import EVENTS
from deploy.local.kubernetes_simulator.store import Record, Store

Json = dict[str, Any]


class Recorder:
    """Writes Events about objects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def tell(
        self, about: Record, *, reason: str, message: str, component: str, kind: str = "Normal", host: str = ""
    ) -> None:
        moment = clock.now()
        uid = new_uid()
        metadata = about.metadata
        source = {"component": component, **({"host": host} if host else {})}
        event: Json = {
            "metadata": {
                "name": f"{metadata['name']}.{uid[:8]}{uid[9:13]}",
                "namespace": metadata.get("namespace", "default"),
                "uid": uid,
                "creationTimestamp": moment,
            },
            "involvedObject": {
                "kind": about.resource.kind,
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "apiVersion": about.resource.api_version,
                "resourceVersion": metadata["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": host,
        }
        self._store.add(EVENTS, obj=event)
