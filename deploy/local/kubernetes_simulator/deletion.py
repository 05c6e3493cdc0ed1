"""How objects go: propagation policies and finalizers (registry/generic/registry/store.go), graceful end of pods."""

import time
from typing import Any

from deploy.local.kubernetes_simulator import clock
from deploy.local.kubernetes_simulator.pod_status import is_over
from deploy.local.kubernetes_simulator.resources import JOBS, NAMESPACES, PODS
from deploy.local.kubernetes_simulator.store import Record, Store

Json = dict[str, Any]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ORPHAN_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def _wanted_finalizer(record: Record, *, policy: str | None) -> str:
    """The finalizer that the policy asks for. Without a policy the ones present decide, then the resource's default:
    batch/v1 Jobs orphan their pods (registry/batch/job/strategy.go, DefaultGarbageCollectionPolicy)."""
    if policy:
        return {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy, "")
    present = record.metadata.get("finalizers", [])
    for finalizer in (ORPHAN, FOREGROUND):
        if finalizer in present:
            return finalizer
    return ORPHAN if record.resource is JOBS else ""


def delete(
    store: Store, *, record: Record, policy: str | None = None, grace_seconds: int | None = None
) -> Record | None:
    """Deletes an object, or begins to: gives the terminating object, or None where it is gone already."""
    if record.resource is PODS:
        return _delete_pod(store, record=record, grace_seconds=grace_seconds)
    if record.resource is NAMESPACES:
        metadata = {**record.metadata, "deletionTimestamp": record.metadata.get("deletionTimestamp", clock.now())}
        return store.replace(record, obj={**record.obj, "metadata": metadata, "status": {"phase": "Terminating"}})
    finalizer = _wanted_finalizer(record, policy=policy)
    kept = [name for name in record.metadata.get("finalizers", []) if name not in (ORPHAN, FOREGROUND)]
    finalizers = [*kept, finalizer] if finalizer else kept
    if not finalizers:
        store.remove(record)
        return None
    metadata = {**record.metadata, "finalizers": finalizers}
    metadata.setdefault("deletionTimestamp", clock.now())
    metadata.setdefault("deletionGracePeriodSeconds", 0)
    if not record.terminating and "generation" in metadata:
        metadata["generation"] += 1
    return store.replace(record, obj={**record.obj, "metadata": metadata})


def _delete_pod(store: Store, *, record: Record, grace_seconds: int | None) -> Record | None:
    """A pod on a node gets its grace period; one that never was on a node, or is over, goes at once."""
    spec = record.obj["spec"]
    grace = spec.get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
    if grace == 0 or not spec.get("nodeName") or is_over(record.obj):
        return finish_deletion(store, record=record)
    if record.terminating:
        return record
    metadata = {
        **record.metadata,
        "deletionTimestamp": clock.stamp(time.time() + grace),
        "deletionGracePeriodSeconds": grace,
    }
    return store.replace(record, obj={**record.obj, "metadata": metadata})


def finish_deletion(store: Store, *, record: Record) -> Record | None:
    """Removes an object, unless a finalizer still holds it."""
    if not record.metadata.get("finalizers"):
        store.remove(record)
        return None
    metadata = {**record.metadata, "deletionTimestamp": record.metadata.get("deletionTimestamp", clock.now())}
    metadata["deletionGracePeriodSeconds"] = 0
    return store.replace(record, obj={**record.obj, "metadata": metadata})


def drop_finalizer(store: Store, *, record: Record, finalizer: str) -> None:
    """Takes a finalizer away; the last one lets a terminating object go."""
    finalizers = [name for name in record.metadata.get("finalizers", []) if name != finalizer]
    metadata = {key: value for key, value in record.metadata.items() if key != "finalizers"}
    if finalizers:
        metadata["finalizers"] = finalizers
    after = store.replace(record, obj={**record.obj, "metadata": metadata})
    if after.terminating and not finalizers:
        store.remove(after)
