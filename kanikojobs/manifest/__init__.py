"""A Kaniko Job as the manifest of a Kubernetes Job: pure, the same row gives the same manifest.

The pod has two steps. An init container without rights fetches the source into a volume and makes sure that
there is a Dockerfile (`deploy/runtimes/fetch-source.sh`); kaniko builds that folder. Tarballs and objects in
buckets are fetched by kaniko itself and must bring their Dockerfile.
"""

from typing import Any

from kanikojobs.errors import PermanentError
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.containers import kaniko_container, source_container
from kanikojobs.manifest.destination import check_template, fill
from kanikojobs.manifest.options import BuildOptions, Resources, SecretKey, is_quantity
from kanikojobs.manifest.source import Source, SourceKind, parse_source
from kanikojobs.naming import PREFIX, labels

__all__ = ["Build", "BuildOptions", "Resources", "SecretKey", "image_destination", "job_manifest"]


def image_destination(*, build: Build, options: BuildOptions) -> str:
    """The image that a build pushes. Raises `PermanentError` (DestinationInvalid)."""
    if build.destination:
        try:
            check_template(build.destination, tagged=True)
        except ValueError as error:
            raise PermanentError(reason="DestinationInvalid", message=f"destination: {error}") from None
    return fill(build.destination or options.destination, values=build.placeholders(), tagged=True)


def job_manifest(*, build: Build, options: BuildOptions, name: str = "", namespace: str = "") -> dict[str, Any]:
    """The Job to create, under the name and in the namespace that were once decided for it, else those that today's
    settings give. Raises `PermanentError` when the event cannot be built as it stands, with one of the
    reasons SourceInvalid, SourceNotAllowed, DestinationInvalid, EnvironmentInvalid, BuildTypeUnknown,
    ResourcesInvalid, DockerfileInvalid."""
    _check(build, options=options)
    source = parse_source(build.source_url, rules=options.source_rules)
    image = image_destination(build=build, options=options)
    found_by = labels(
        event_id=build.event_id,
        third_party_id=build.third_party_id,
        parser_id=build.parser_id,
        number=build.number,
    )
    annotations = _annotations(build, image=image)
    queue = {"kueue.x-k8s.io/queue-name": options.kueue_queue} if options.kueue_queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name or build.kubernetes_name,
            "namespace": namespace or options.namespace,
            "labels": found_by | queue,
            "annotations": annotations,
        },
        "spec": {
            # Kubernetes counts from the Job's start, so waiting for a node and fetching the source are in it;
            # an operator of a crowded cluster adds an allowance for that.
            "activeDeadlineSeconds": min(build.build_timeout, options.max_build_timeout) + options.deadline_allowance,
            "backoffLimit": options.backoff_limit,
            # An eviction or a drained node is nobody's failed build: the pod is replaced and not counted.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "ttlSecondsAfterFinished": options.ttl_seconds_after_finished,
            "template": {
                "metadata": {"labels": dict(found_by), "annotations": dict(annotations)},
                "spec": _pod(build, source=source, image=image, options=options),
            },
        },
    }


def _check(build: Build, *, options: BuildOptions) -> None:
    if build.build_type not in options.build_types:
        known = ", ".join(options.build_types)
        raise PermanentError(
            reason="BuildTypeUnknown",
            message=f"data.parameters.build_type: {build.build_type[:64]!r} is not one of {known}",
        )
    for name, quantity in (("memory", build.memory), ("cpu", build.cpu)):
        if quantity and not is_quantity(quantity):
            raise PermanentError(reason="ResourcesInvalid", message=f"{name}: not a quantity such as 500m, 2 or 4Gi")
    parts = build.dockerfile.split("/")
    if build.dockerfile and ({"", ".", ".."} & set(parts) or not build.dockerfile.isprintable()):
        raise PermanentError(
            reason="DockerfileInvalid",
            message="dockerfile: must be a path inside the source, such as api/Dockerfile",
        )


def _pod(build: Build, *, source: Source, image: str, options: BuildOptions) -> dict[str, Any]:
    is_git = source.kind is SourceKind.GIT
    volumes: list[dict[str, Any]] = []
    if is_git:
        size = options.source_resources.storage_limit
        volumes.append({"name": "source", "emptyDir": {"sizeLimit": size}})
    if options.registry_secret:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        volumes.append({"name": "registry", "secret": {"secretName": options.registry_secret, "items": items}})
    if options.bucket_secret and source.kind is SourceKind.GS:
        volumes.append({"name": "bucket", "secret": {"secretName": options.bucket_secret}})
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": options.service_account,
        # A build runs code from outside; it gets no token for the API and no list of the namespace's
        # services.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [kaniko_container(build, source=source, image=image, options=options)],
        "volumes": volumes,
    }
    if is_git:
        pod["initContainers"] = [source_container(build, source=source, options=options)]
    if options.user_namespaces:
        pod["hostUsers"] = False
    if build.priority in options.priority_classes:
        pod["priorityClassName"] = options.priority_classes[build.priority]
    if options.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in options.tolerations]
    if options.runtime_class:
        pod["runtimeClassName"] = options.runtime_class
    return pod


def _annotations(build: Build, *, image: str) -> dict[str, str]:
    values = {
        "event-id": build.event_id,
        "source": build.source,
        "third-party-id": build.third_party_id,
        "parser-id": build.parser_id,
        "job-name": build.job_name,
        "correlation-id": build.correlation_id,
        "image": image,
        "traceparent": build.traceparent,
    }
    return {f"{PREFIX}{name}": value for name, value in values.items() if value}
