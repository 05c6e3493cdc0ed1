"""What the operator decides about builds, as one value: images, secrets, registries, resources, placement.

The Django settings are turned into `BuildOptions` once, at start; a value that cannot work is refused there,
with a `ValueError` that names the field.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kanikojobs.manifest.arguments import is_name, is_reserved
from kanikojobs.manifest.destination import check_template, is_registry
from kanikojobs.manifest.runtimes import Runtime, load_runtimes
from kanikojobs.manifest.source_rules import SourceRules

_QUANTITY = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:m|[kMGTPE]|[KMGTPE]i)?")


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a Kubernetes secret in the builds' namespace."""

    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes quantities. Both requests and limits are always set, so that a quota can count the pod."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    storage_request: str
    storage_limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The operator's side of every build.

    `destination` is the image's template and `cache_repo` the one of the layer cache (kaniko puts it beside
    the image if empty); placeholders are `kanikojobs.manifest.destination.PLACEHOLDERS`. `registry_secret` is of type
    kubernetes.io/dockerconfigjson. `git_secrets` maps a host to a secret of type kubernetes.io/basic-auth,
    which no other host is sent. `bucket_secret` holds AWS_… variables for s3, or `key.json` for gs.
    `secret_environment` maps build arguments to secrets. `environment` is set in both containers (proxies,
    say). Times are in seconds.
    """

    namespace: str
    destination: str
    kaniko_image: str = "ghcr.io/osscontainertools/kaniko:v1.29.0"
    source_image: str = "docker.io/alpine/git:v2.49.1"
    base_registry: str = "docker.io/library"
    source_rules: SourceRules = field(default_factory=SourceRules)
    runtimes: Mapping[str, Runtime] = field(default_factory=load_runtimes)
    build_types: tuple[str, ...] = ("container",)

    registry_secret: str = ""
    git_secrets: Mapping[str, str] = field(default_factory=dict)
    bucket_secret: str = ""
    secret_environment: Mapping[str, SecretKey] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    cache: bool = True
    cache_repo: str = ""
    retries: int = 3
    snapshot_mode: str = "redo"
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    skip_tls_verify_registries: tuple[str, ...] = ()
    kaniko_arguments: tuple[str, ...] = ()

    build_resources: Resources = Resources(
        cpu_request="500m",
        cpu_limit="2",
        memory_request="1Gi",
        memory_limit="4Gi",
        storage_request="2Gi",
        storage_limit="10Gi",
    )
    source_resources: Resources = Resources(
        cpu_request="100m",
        cpu_limit="1",
        memory_request="128Mi",
        memory_limit="512Mi",
        storage_request="512Mi",
        storage_limit="4Gi",
    )
    max_build_timeout: int = 4 * 3600
    deadline_allowance: int = 0
    ttl_seconds_after_finished: int = 3600
    backoff_limit: int = 0

    service_account: str = "kaniko-builder"
    image_pull_secrets: tuple[str, ...] = ()
    priority_classes: Mapping[int, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str = ""
    kueue_queue: str = ""
    user_namespaces: bool = False

    def __post_init__(self) -> None:
        for name, template, tagged in (
            ("destination", self.destination, True),
            ("cache_repo", self.cache_repo, False),
        ):
            if template or tagged:
                try:
                    check_template(template, tagged=tagged)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        for name, registries, with_path in (
            ("base_registry", (self.base_registry,), True),
            ("registry_mirrors", self.registry_mirrors, True),
            ("insecure_registries", self.insecure_registries, False),
            ("skip_tls_verify_registries", self.skip_tls_verify_registries, False),
        ):
            for registry in registries:
                if not is_registry(registry, with_path=with_path):
                    raise ValueError(f"{name}: {registry!r} is no registry; write host or host:port, as images name it")
        for name, hosts in (
            ("allowed_hosts", self.source_rules.allowed_hosts),
            ("insecure_hosts", self.source_rules.insecure_hosts),
        ):
            if urls := [host for host in hosts if "://" in host]:
                raise ValueError(f"{name}: {urls[0]!r} has a scheme; write host, host:port or host/path")
        for argument in self.secret_environment:
            if not is_name(argument) or is_reserved(argument):
                raise ValueError(f"secret_environment: {argument!r} may not be set in a container; choose another name")
        for argument in self.kaniko_arguments:
            if not argument.startswith("--"):
                raise ValueError(f"kaniko_arguments: {argument!r} must have the form --flag=value")
        for name, resources in (("build", self.build_resources), ("source", self.source_resources)):
            for key in Resources.__slots__:
                if not is_quantity(getattr(resources, key)):
                    raise ValueError(f"{name}_resources.{key}: not a quantity such as 500m, 2 or 4Gi")


def is_quantity(text: str) -> bool:
    """Whether this is a Kubernetes quantity in one of its usual forms."""
    return _QUANTITY.fullmatch(text) is not None
