"""The verbs on objects: create, get, list, update, patch, delete, each as registry/generic/registry/store.go does it.

Nothing here knows HTTP; `server.py` turns requests into these calls and their results and refusals into answers.
"""

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy.local.kubernetes_simulator import clock
from deploy.local.kubernetes_simulator.answers import (
    ApiError,
    FieldError,
    already_exists,
    bad_request,
    conflict,
    expired,
    forbidden,
    invalid,
    invalid_value,
    not_found,
)
from deploy.local.kubernetes_simulator.defaults import (
    fill_job,
    fill_pod,
    fill_stored_job,
    generate_selector,
)
from deploy.local.kubernetes_simulator.deletion import ORPHAN_WARNING, delete, finish_deletion
from deploy.local.kubernetes_simulator.identity import generated_name, new_uid
from deploy.local.kubernetes_simulator.job_rules import (
    check_finalizers,
    check_job,
    check_job_status,
    check_job_update,
    check_metadata,
)
from deploy.local.kubernetes_simulator.names import label_problems
from deploy.local.kubernetes_simulator.patches import apply_patch
from deploy.local.kubernetes_simulator.pod_rules import check_pod_spec
from deploy.local.kubernetes_simulator.resources import (
    EVENTS,
    JOBS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
    Target,
)
from deploy.local.kubernetes_simulator.schema import decode
from deploy.local.kubernetes_simulator.selectors import Selection
from deploy.local.kubernetes_simulator.store import Record, Store, to_json

Json = dict[str, Any]

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_POLICIES = ("Orphan", "Background", "Foreground")


@dataclass(slots=True)
class Body:
    """A request's body: what it holds, and how strictly its fields are to be taken."""

    obj: Any
    raw: bytes
    media_type: str
    validation: str = "Warn"
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """A list's limits. `start` is the last key of the page before."""

    limit: int = 0
    token: str = ""


class Api:
    """The objects' verbs over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, target: Target) -> Record:
        """Raises 404."""
        record = self._store.find(target.resource, namespace=target.namespace, name=target.name)
        if record is None:
            raise not_found(resource=target.resource, name=target.name)
        return record

    def create(self, target: Target, *, body: Body) -> Record:
        """Raises 400, 403, 404, 409 or 422, in the order in which a real server looks."""
        resource = target.resource
        obj = self._decoded(target, body=body)
        metadata = obj["metadata"]
        if metadata.get("namespace", target.namespace) != target.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"):
            metadata.pop(name, None)
        if resource.namespaced:
            metadata["namespace"] = target.namespace
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = generated_name(metadata["generateName"])
        metadata["uid"] = new_uid()
        metadata["creationTimestamp"] = clock.now()
        if resource.namespaced:
            self._check_namespace(target, name=metadata.get("name", ""))
        errors = self._prepare(resource, obj)
        if errors:
            raise invalid(group=resource.group, kind=resource.kind, name=metadata.get("name", ""), errors=errors)
        if resource is JOBS:
            fill_stored_job(obj)
        present = self._store.find(resource, namespace=metadata.get("namespace", ""), name=metadata["name"])
        if present is not None:
            raise already_exists(resource=resource, name=metadata["name"], terminating=present.terminating)
        if body.dry_run:
            return Record(resource=resource, obj=obj, version=0)
        record = self._store.add(resource, obj=obj)
        if resource is NAMESPACES:
            self._add_service_account(metadata["name"])
        return record

    def _add_service_account(self, namespace: str) -> None:
        account = {
            "metadata": {
                "name": "default",
                "namespace": namespace,
                "uid": new_uid(),
                "creationTimestamp": clock.now(),
            }
        }
        self._store.add(SERVICE_ACCOUNTS, obj=account)

    def _check_namespace(self, target: Target, *, name: str) -> None:
        namespace = self._store.find(NAMESPACES, namespace="", name=target.namespace)
        if namespace is None:
            raise not_found(resource=NAMESPACES, name=target.namespace)
        if namespace.terminating:
            why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            raise forbidden(
                resource=target.resource,
                name=name,
                why=why,
                cause={
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {target.namespace} is being terminated",
                    "field": "metadata.namespace",
                },
            )

    def _decoded(self, target: Target, *, body: Body) -> Json:
        """The body as the resource's type: the right kind, known fields only."""
        resource, obj = target.resource, body.obj
        if not isinstance(obj, dict):
            raise bad_request(
                f"the object provided is unrecognized (must be of type {resource.kind}): couldn't get version/kind; "
                "json parse error: json: cannot unmarshal array into Go value of type struct "
                '{ APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
            )
        version, kind = obj.get("apiVersion") or resource.api_version, obj.get("kind") or resource.kind
        if version != resource.api_version:
            raise bad_request(
                f"the API version in the data ({version}) does not match the expected API version "
                f"({resource.api_version})"
            )
        if kind != resource.kind:
            raise bad_request(
                f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: no kind "{kind}" is '
                f'registered for version "{version}" in scheme'
            )
        body.warnings += decode(
            obj=obj,
            raw=body.raw,
            definition_name=resource.definition,
            kind=resource.kind,
            version=resource.version,
            mode=body.validation,
        )
        obj.pop("kind", None)
        obj.pop("apiVersion", None)
        obj.setdefault("metadata", {})
        return dict(obj)

    def _prepare(self, resource: Resource, obj: Json) -> list[FieldError]:
        """Fills in defaults, drops the status, checks."""
        metadata = obj["metadata"]
        if resource is JOBS:
            obj["status"] = {}
            metadata["generation"] = 1
            fill_job(obj)
            generate_selector(obj)
            return check_job(obj)
        if resource is PODS:
            obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
            metadata["generation"] = 1
            fill_pod(obj)
            return check_metadata(metadata) + check_pod_spec(obj["spec"], path="spec")
        if resource is NAMESPACES:
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj["status"] = {"phase": "Active"}
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata.get("name", "")
            errors = check_metadata(metadata, any_name=True)
            problems = label_problems(metadata.get("name", ""))
            return errors + [invalid_value("metadata.name", metadata.get("name", ""), text) for text in problems]
        if resource is SECRETS:
            given = obj.pop("stringData", {})
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in given.items()}
            obj["data"] = obj.get("data", {}) | encoded
            obj.setdefault("type", "Opaque")
        if resource is EVENTS:
            about = obj.get("involvedObject", {}).get("namespace", "")
            if about != metadata.get("namespace") and (about or metadata.get("namespace") != "default"):
                return [invalid_value("involvedObject.namespace", about, "does not match event.namespace")]
        return check_metadata(metadata)

    def list_page(self, target: Target, *, selection: Selection, page: Page) -> bytes:
        """The list's JSON. Raises 410 for a continue token from before the last compaction."""
        resource = target.resource
        records = self._store.select(resource, selection=selection)
        version = self._store.version
        metadata: Json = {}
        if page.token:
            version, start = self._start(page.token)
            records = [record for record in records if record.key > start]
        if page.limit and len(records) > page.limit:
            rest = len(records) - page.limit
            records = records[: page.limit]
            metadata["continue"] = _token(version, records[-1])
            if selection.everything:
                metadata["remainingItemCount"] = rest
        metadata = {"resourceVersion": str(version), **metadata}
        head = f'{{"kind":"{resource.list_kind}","apiVersion":"{resource.api_version}","metadata":'
        items = b",".join(record.item() for record in records)
        return head.encode() + to_json(metadata) + b',"items":[' + items + b"]}"

    def _start(self, token: str) -> tuple[int, tuple[str, str]]:
        try:
            found = json.loads(base64.urlsafe_b64decode(token))
            version, namespace, name = int(found["rv"]), str(found["ns"]), str(found["start"])
        except (ValueError, KeyError, TypeError):
            raise bad_request("continue key is not valid: illegal base64 data") from None
        if version < self._store.compacted:
            again = base64.urlsafe_b64encode(to_json({**found, "rv": self._store.version})).decode()
            raise expired(_TOO_OLD, continue_token=again)
        return version, (namespace, name)

    def update(self, target: Target, *, body: Body) -> Record:
        """A PUT. Raises 409 Conflict where the body's version is not the last one; without one it overwrites."""
        before = self.read(target)
        obj = self._decoded(target, body=body)
        name = obj["metadata"].get("name", "")
        if name != target.name:
            raise bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
                if name
                else "name must be provided"
            )
        return self._write(target, before=before, obj=obj, dry_run=body.dry_run)

    def patch(self, target: Target, *, body: Body) -> Record:
        before = self.read(target)
        patched = apply_patch(
            copy.deepcopy(before.obj),
            patch=body.obj,
            media_type=body.media_type,
            definition_name=target.resource.definition,
        )
        inner = Body(obj=patched, raw=b"", media_type=body.media_type, validation=body.validation)
        obj = self._decoded(target, body=inner)
        body.warnings += inner.warnings
        return self._write(target, before=before, obj=obj, dry_run=body.dry_run)

    def _write(self, target: Target, *, before: Record, obj: Json, dry_run: bool) -> Record:
        resource = target.resource
        self._check_preconditions(target, before=before, metadata=obj["metadata"])
        after = self._merged(target, before=before, obj=obj)
        errors = check_finalizers(after["metadata"], old=before.metadata)
        if resource is JOBS and target.subresource == "status":
            errors += check_job_status(after, old=before.obj)
        elif resource is JOBS:
            errors += check_job_update(after, old=before.obj)
        else:
            errors += check_metadata(after["metadata"], any_name=resource is NAMESPACES)
            if resource is PODS and not target.subresource:
                errors += _pod_changes(after["spec"], old=before.obj["spec"])
        if errors:
            raise invalid(group=resource.group, kind=resource.kind, name=target.name, errors=errors)
        if dry_run:
            return Record(resource=resource, obj=after, version=before.version)
        record = self._store.replace(before, obj=after)
        if record.terminating and not record.metadata.get("finalizers") and before.metadata.get("finalizers"):
            self._store.remove(record)
        return record

    def _check_preconditions(self, target: Target, *, before: Record, metadata: Json) -> None:
        version = metadata.get("resourceVersion", "")
        if version and version != before.metadata["resourceVersion"]:
            raise conflict(resource=target.resource, name=target.name, why=_MODIFIED)
        uid = metadata.get("uid")
        if uid and uid != before.uid:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before.uid}"
            raise conflict(resource=target.resource, name=target.name, why=why)

    def _merged(self, target: Target, *, before: Record, obj: Json) -> Json:
        """What a write may change: the status through its subresource, everything else through the object."""
        metadata = {**obj["metadata"]}
        for name in _SYSTEM_FIELDS:
            metadata.pop(name, None)
            if name in before.metadata:
                metadata[name] = before.metadata[name]
        if "namespace" in before.metadata:
            metadata["namespace"] = before.metadata["namespace"]
        metadata["resourceVersion"] = before.metadata["resourceVersion"]
        metadata.pop("managedFields", None)
        if target.resource.has_status and target.subresource == "status":
            return {**before.obj, "metadata": metadata, "status": obj.get("status", {})}
        if not target.resource.has_status:
            return {**obj, "metadata": metadata}
        after = {**before.obj, **obj, "metadata": metadata, "status": before.obj.get("status", {})}
        if target.resource is JOBS:
            fill_job(after)
            generate_selector(after)
            fill_stored_job(after)
        if after.get("spec") == before.obj.get("spec"):
            after["spec"] = before.obj.get("spec")
        elif "generation" in metadata:
            metadata["generation"] += 1
        return after

    def delete(self, target: Target, *, options: Json, warnings: list[str]) -> tuple[Record, bool]:
        """Deletes, or begins to. Gives the object's last state and whether it is gone. Raises 400, 404, 409."""
        before = self.read(target)
        policy, grace = _deletion_options(options)
        _check_deletion(before, options=options, name=target.name)
        dry_run = bool(options.get("dryRun"))
        if target.resource is JOBS and not policy and options.get("orphanDependents") is None:
            warnings.append(ORPHAN_WARNING)
        if dry_run:
            return before, True
        left = delete(self._store, record=before, policy=policy, grace_seconds=grace)
        return (before, True) if left is None else (left, False)

    def delete_all(self, target: Target, *, selection: Selection, options: Json) -> bytes:
        """Deletes a collection; the answer is the list of what was deleted."""
        policy, grace = _deletion_options(options)
        records = self._store.select(target.resource, selection=selection)
        if not options.get("dryRun"):
            for record in records:
                delete(self._store, record=record, policy=policy, grace_seconds=grace)
        resource = target.resource
        head = f'{{"kind":"{resource.list_kind}","apiVersion":"{resource.api_version}","metadata":'
        items = b",".join(record.item() for record in records)
        metadata = to_json({"resourceVersion": str(self._store.version)})
        return head.encode() + metadata + b',"items":[' + items + b"]}"

    def finalize(self, target: Target, *, body: Body) -> Record:
        """The finalize subresource of a namespace: without finalizers left, it goes."""
        before = self.read(target)
        finalizers = body.obj.get("spec", {}).get("finalizers", []) if isinstance(body.obj, dict) else []
        after = self._store.replace(before, obj={**before.obj, "spec": {"finalizers": finalizers}})
        if after.terminating and not finalizers:
            finish_deletion(self._store, record=after)
        return after


def _token(version: int, last: Record) -> str:
    namespace, name = last.key
    token = {"v": "meta.k8s.io/v1", "rv": version, "ns": namespace, "start": name}
    return base64.urlsafe_b64encode(to_json(token)).decode()


def _pod_changes(spec: Json, *, old: Json) -> list[FieldError]:
    """ValidatePodUpdate: of a pod's spec only images, tolerations, deadline and grace period may change."""
    free = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")

    def fixed(of: Json) -> Json:
        kept = {key: value for key, value in of.items() if key not in (*free, "containers", "initContainers")}
        for group in ("containers", "initContainers"):
            kept[group] = [{k: v for k, v in found.items() if k != "image"} for found in of.get(group, [])]
        return kept

    if fixed(spec) == fixed(old):
        return []
    return [
        FieldError(
            "FieldValueForbidden",
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously "
            "negative)",
        )
    ]


def _deletion_options(options: Json) -> tuple[str | None, int | None]:
    policy = options.get("propagationPolicy")
    orphan = options.get("orphanDependents")
    if policy is not None and policy not in _POLICIES:
        known = 'supported values: "Background", "Foreground", "Orphan", "nil"'
        raise _bad_options(
            FieldError("FieldValueNotSupported", "propagationPolicy", f'Unsupported value: "{policy}": {known}')
        )
    if policy is not None and orphan is not None:
        raise _bad_options(
            invalid_value("propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set")
        )
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    grace = options.get("gracePeriodSeconds")
    return policy, None if grace is None else int(grace)


def _bad_options(error: FieldError) -> ApiError:
    return invalid(group="meta.k8s.io", kind="DeleteOptions", name="", errors=[error])


def _check_deletion(before: Record, *, options: Json, name: str) -> None:
    """Preconditions (registry/rest/delete.go): the conflict names the kind, not the resource."""
    preconditions = options.get("preconditions") or {}
    uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
    checks: tuple[tuple[Any, str, Callable[[], str]], ...] = (
        (
            uid,
            before.uid,
            lambda: (
                f"the UID in the precondition ({uid}) does not match the UID in record ({before.uid}). "
                "The object might have been deleted and then recreated"
            ),
        ),
        (
            version,
            before.metadata["resourceVersion"],
            lambda: (
                f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
                f"({before.metadata['resourceVersion']}). The object might have been modified"
            ),
        ),
    )
    for wanted, actual, why in checks:
        if wanted is not None and wanted != actual:
            raise conflict(resource=before.resource, name=name, why=why(), kind=before.resource.kind)
