"""The garbage collector and the namespace controller: what has to go, or to be set free, because its owner goes."""

import asyncio
from collections.abc import Callable

from deploy.local.kubernetes_simulator.deletion import FOREGROUND, ORPHAN, delete, drop_finalizer
from deploy.local.kubernetes_simulator.resources import JOBS, NAMESPACES, PODS, SERVED
from deploy.local.kubernetes_simulator.selectors import Selection
from deploy.local.kubernetes_simulator.store import Change, Record, Store


class GarbageCollector:
    """Acts a moment after the write that makes it necessary, as the real one does."""

    def __init__(self, *, store: Store, loop: asyncio.AbstractEventLoop, delay_seconds: float) -> None:
        self._store = store
        self._loop = loop
        self._delay = delay_seconds
        store.listeners.append(self._hear)

    def _later(self, act: Callable[..., None], *subject: str) -> None:
        self._loop.call_later(self._delay, act, *subject)

    def _hear(self, change: Change) -> None:
        record = change.after
        if record.resource is JOBS:
            if change.kind == "DELETED":
                if self._store.pods_of(record.uid):
                    self._later(self._delete_pods, record.uid)
            elif record.terminating:
                self._later(self._settle, *record.key)
        elif record.resource is PODS and change.kind == "DELETED":
            for owner in record.metadata.get("ownerReferences", []):
                job = self._store.find(JOBS, namespace=record.key[0], name=owner["name"])
                if job is not None and job.terminating:
                    self._later(self._settle, *job.key)
        elif record.resource is NAMESPACES and record.terminating and change.kind == "MODIFIED":
            self._later(self._empty_namespace, record.key[1])

    def _delete_pods(self, owner_uid: str) -> None:
        for pod in self._store.pods_of(owner_uid):
            delete(self._store, record=pod)

    def _settle(self, namespace: str, name: str) -> None:
        job = self._store.find(JOBS, namespace=namespace, name=name)
        if job is None or not job.terminating:
            return
        finalizers = job.metadata.get("finalizers", [])
        if ORPHAN in finalizers:
            for pod in self._store.pods_of(job.uid):
                self._set_free(pod, owner_uid=job.uid)
            drop_finalizer(self._store, record=job, finalizer=ORPHAN)
        elif FOREGROUND in finalizers:
            self._delete_pods(job.uid)
            if not self._store.pods_of(job.uid):
                drop_finalizer(self._store, record=job, finalizer=FOREGROUND)

    def _set_free(self, pod: Record, *, owner_uid: str) -> None:
        metadata = {key: value for key, value in pod.metadata.items() if key != "ownerReferences"}
        kept = [owner for owner in pod.metadata.get("ownerReferences", []) if owner["uid"] != owner_uid]
        if kept:
            metadata["ownerReferences"] = kept
        self._store.forget_owners(pod)
        self._store.replace(pod, obj={**pod.obj, "metadata": metadata})

    def _empty_namespace(self, name: str) -> None:
        for resource in SERVED:
            if resource.namespaced:
                for record in self._store.select(resource, selection=Selection(namespace=name)):
                    if resource is PODS:
                        delete(self._store, record=record, grace_seconds=0)
                    else:
                        delete(self._store, record=record, policy="Background")
        namespace = self._store.find(NAMESPACES, namespace="", name=name)
        if namespace is not None:
            self._store.remove(namespace)
