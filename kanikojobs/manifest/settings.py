"""The operator's settings about builds as the value that the manifest is made from."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from kanikojobs.manifest.options import BuildOptions, Resources, SecretKey
from kanikojobs.manifest.runtimes import DIRECTORY, Runtime, load_runtimes
from kanikojobs.manifest.source_rules import SourceRules
from project.environment import Environment

# A setting that is empty leaves the default of the field to `BuildOptions`.
_TEXTS = {
    "kaniko_image": "KANIKOJOBS_KANIKO_IMAGE",
    "source_image": "KANIKOJOBS_SOURCE_IMAGE",
    "base_registry": "KANIKOJOBS_BASE_REGISTRY",
    "registry_secret": "KANIKOJOBS_REGISTRY_SECRET",
    "bucket_secret": "KANIKOJOBS_BUCKET_SECRET",
    "cache_repo": "KANIKOJOBS_CACHE_REPO",
    "service_account": "KANIKOJOBS_SERVICE_ACCOUNT",
    "runtime_class": "KANIKOJOBS_RUNTIME_CLASS",
    "kueue_queue": "KANIKOJOBS_KUEUE_QUEUE",
}
_LISTS = {
    "registry_mirrors": "KANIKOJOBS_REGISTRY_MIRRORS",
    "insecure_registries": "KANIKOJOBS_INSECURE_REGISTRIES",
    "skip_tls_verify_registries": "KANIKOJOBS_SKIP_TLS_VERIFY_REGISTRIES",
    "kaniko_arguments": "KANIKOJOBS_KANIKO_ARGUMENTS",
    "image_pull_secrets": "KANIKOJOBS_IMAGE_PULL_SECRETS",
    "tolerations": "KANIKOJOBS_TOLERATIONS",
}


@cache
def build_options() -> BuildOptions:
    """The options that the settings ask for. Raises `ValueError` that names the field which cannot work."""
    given: dict[str, Any] = {
        field: getattr(settings, name) for field, name in _TEXTS.items() if getattr(settings, name)
    }
    given |= {field: tuple(getattr(settings, name)) for field, name in _LISTS.items()}
    if settings.KANIKOJOBS_RUNTIMES:
        given["runtimes"] = _runtimes(Path(settings.KANIKOJOBS_RUNTIMES))
    for field, overrides in (
        ("build_resources", settings.KANIKOJOBS_BUILD_RESOURCES),
        ("source_resources", settings.KANIKOJOBS_SOURCE_RESOURCES),
    ):
        given[field] = _changed(BuildOptions.__dataclass_fields__[field].default, overrides, field=field)
    return BuildOptions(
        namespace=settings.KANIKOJOBS_NAMESPACE,
        destination=settings.KANIKOJOBS_DESTINATION,
        source_rules=SourceRules(
            allowed_hosts=tuple(settings.KANIKOJOBS_ALLOWED_HOSTS),
            insecure_hosts=tuple(settings.KANIKOJOBS_INSECURE_HOSTS),
            allowed_buckets=tuple(settings.KANIKOJOBS_ALLOWED_BUCKETS),
        ),
        git_secrets=settings.KANIKOJOBS_GIT_SECRETS,
        secret_environment={
            argument: _secret_key(argument, reference)
            for argument, reference in settings.KANIKOJOBS_SECRET_ENVIRONMENT.items()
        },
        environment=settings.KANIKOJOBS_BUILD_ENVIRONMENT,
        cache=settings.KANIKOJOBS_CACHE,
        max_build_timeout=settings.KANIKOJOBS_MAX_BUILD_TIMEOUT,
        deadline_allowance=settings.KANIKOJOBS_DEADLINE_ALLOWANCE,
        ttl_seconds_after_finished=settings.KANIKOJOBS_JOB_TTL,
        backoff_limit=settings.KANIKOJOBS_BACKOFF_LIMIT,
        priority_classes={_priority(key): name for key, name in settings.KANIKOJOBS_PRIORITY_CLASSES.items()},
        node_selector=settings.KANIKOJOBS_NODE_SELECTOR,
        user_namespaces=settings.KANIKOJOBS_USER_NAMESPACES,
        **given,
    )


@lru_cache(maxsize=1024)
def profile_options(*, destination: str, resources: str, allowed_hosts: str) -> BuildOptions:
    """The options with what the profile of a third party says instead, each text as in the environment or empty.

    Raises `ValueError` that names the field which cannot work.
    """
    options = build_options()
    given = Environment({"resources": resources, "allowed_hosts": allowed_hosts})
    overrides, hosts = given.mapping("resources"), tuple(given.items("allowed_hosts"))
    if given.faults:
        raise ValueError(f"resources: {given.faults[0]}")
    return replace(
        options,
        destination=destination or options.destination,
        build_resources=_changed(options.build_resources, overrides, field="resources"),
        source_rules=replace(options.source_rules, allowed_hosts=hosts) if hosts else options.source_rules,
    )


def _changed(resources: Any, overrides: Mapping[str, str], *, field: str) -> Resources:
    if unknown := sorted(set(overrides) - set(Resources.__slots__)):
        raise ValueError(f"{field}: {unknown[0]!r} is not known; write {', '.join(Resources.__slots__)}")
    changed: Resources = replace(resources, **overrides)
    return changed


def _runtimes(folder: Path) -> dict[str, Runtime]:
    if not folder.is_dir():
        raise ValueError(f"runtimes: {folder} is not a folder")
    try:
        return load_runtimes(DIRECTORY, folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"runtimes: {error}") from None


def _secret_key(argument: str, reference: str) -> SecretKey:
    secret, slash, key = reference.partition("/")
    if not slash or not secret or not key:
        raise ValueError(f"secret_environment: {argument}={reference} is not ARGUMENT=secret/key")
    return SecretKey(secret=secret, key=key)


def _priority(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 10:
        raise ValueError(f"priority_classes: {text!r} is not a priority from 1 to 10")
    return int(text)


def _forget(*, setting: str, **_: Any) -> None:
    if setting.startswith("KANIKOJOBS_"):
        build_options.cache_clear()
        profile_options.cache_clear()


setting_changed.connect(_forget)
