"""The kinds of object that the simulator serves, and how a path names them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One kind of object. `selectable` are the fields that a fieldSelector may name (its conversion functions)."""

    group: str
    version: str
    plural: str
    kind: str
    definition: str
    namespaced: bool = True
    selectable: tuple[str, ...] = ()
    has_status: bool = False
    unsupported_field: str = "field label not supported: {0}"

    @property
    def qualified(self) -> str:
        """`jobs.batch`, `pods`: how messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"


_CORE = "io.k8s.api.core.v1."

JOBS = Resource(
    group="batch",
    version="v1",
    plural="jobs",
    kind="Job",
    definition="io.k8s.api.batch.v1.Job",
    selectable=("metadata.name", "metadata.namespace", "status.successful"),
    has_status=True,
    unsupported_field='field label "{0}" not supported for batchv1.Job',
)
PODS = Resource(
    group="",
    version="v1",
    plural="pods",
    kind="Pod",
    definition=_CORE + "Pod",
    selectable=(
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    has_status=True,
)
EVENTS = Resource(
    group="",
    version="v1",
    plural="events",
    kind="Event",
    definition=_CORE + "Event",
    selectable=(
        "metadata.name",
        "metadata.namespace",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
)
NAMESPACES = Resource(
    group="",
    version="v1",
    plural="namespaces",
    kind="Namespace",
    definition=_CORE + "Namespace",
    namespaced=False,
    selectable=("metadata.name", "status.phase"),
    has_status=True,
)


def _plain(plural: str, kind: str) -> Resource:
    return Resource(
        group="",
        version="v1",
        plural=plural,
        kind=kind,
        definition=_CORE + kind,
        selectable=("metadata.name", "metadata.namespace"),
    )


SECRETS = _plain("secrets", "Secret")
CONFIG_MAPS = _plain("configmaps", "ConfigMap")
SERVICE_ACCOUNTS = _plain("serviceaccounts", "ServiceAccount")

SERVED = (JOBS, PODS, EVENTS, NAMESPACES, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS)
_BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in SERVED}
GROUP_VERSIONS = {"/api/v1", "/apis/batch/v1", "/apis/authorization.k8s.io/v1"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's path points at: a collection where `name` is empty, else an object or its subresource."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def find_target(path: str) -> Target | None:
    """The object or collection that a path names, or None where no served resource has that path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = _BY_PATH.get((group, version, rest[0]))
    if resource is None or len(rest) > 3:
        return None
    if resource.namespaced and not namespace and len(rest) > 1:
        return None
    return Target(
        resource=resource,
        namespace=namespace,
        name=rest[1] if len(rest) > 1 else "",
        subresource=rest[2] if len(rest) > 2 else "",
    )
