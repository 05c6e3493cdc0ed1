"""The two containers of a build's pod: one fetches the source, without rights; the other is kaniko, with what
it needs.

Nothing that an event says is ever a shell's text, a container's variable name, a flag of its own or an
expansion by Kubernetes: the script reads variables, every flag is one element with `=`, and dollar signs are
escaped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kanikojobs.manifest.arguments import build_arguments, literal, proxies_in
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.destination import fill
from kanikojobs.manifest.options import BuildOptions, Resources, SecretKey
from kanikojobs.manifest.runtimes import DIRECTORY, advice, dockerfile_for
from kanikojobs.manifest.source import Source, SourceKind
from kanikojobs.naming import PREFIX, label_value

# Below /kaniko, because kaniko leaves that folder out of every image and never deletes it between stages.
SOURCE_DIRECTORY = "/kaniko/source"
DOCKER_CONFIG = "/kaniko/.docker"
BUCKET_SECRET = "/kaniko/bucket-secret"  # noqa: S105 (a folder)

# What is left of root's power, each for something that ordinary base images and package managers do. All are
# within Pod Security "baseline". Dropped for good: NET_RAW, MKNOD, NET_BIND_SERVICE, SETPCAP.
#
# What "restricted" asks for beyond that, the pod keeps but for two things that make a kaniko: it runs as root (controls
# "Running as Non-root" and "as Non-root user"), because it unpacks the base image's files with their owners and runs
# the Dockerfile's commands; and it adds capabilities (control "Capabilities"), without which root may do neither.
_CAPABILITIES = (
    "CHOWN",  # give files the owners that a layer or COPY --chown names
    "DAC_OVERRIDE",  # write into folders that belong to other users, and read the fetched source
    "FOWNER",  # set modes and times of files that belong to other users
    "FSETID",  # keep the set-id bits of unpacked files
    "SETUID",  # USER, and apt's and others' own unprivileged helpers
    "SETGID",
    "SETFCAP",  # file capabilities, as of ping and of packages of RPM distributions
    "KILL",  # stop what a RUN under another user left behind
    "SYS_CHROOT",  # apk runs the scripts of packages in a chroot of "/", and fails if it may not
    "AUDIT_WRITE",  # PAM: adduser, chpasswd and su end with "System error" where the kernel audits
)


def _script(path: Path) -> str:
    """A shell script without the comments that its readers need and a pod does not."""
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


_FETCH_SOURCE = _script(DIRECTORY / "fetch-source.sh")


def source_container(build: Build, *, source: Source, options: BuildOptions) -> dict[str, Any]:
    """The init container for a git source: leaves `context` and `Dockerfile` in the volume named `source`."""
    template = "" if build.dockerfile else _template(build, options=options)
    env = {
        "SOURCE_DIR": SOURCE_DIRECTORY,
        "SOURCE_URL": source.url,
        "SOURCE_REF": source.ref,
        "SOURCE_COMMIT": source.commit,
        "SOURCE_TREE": source.tree,
        "SOURCE_PATH": source.sub_path,
        "SOURCE_DOCKERFILE": build.dockerfile,
        "DOCKERFILE_TEMPLATE": template,
        "DOCKERFILE_ADVICE": advice(build.runtime, runtimes=options.runtimes),
    }
    secret = options.git_secrets.get(source.host)
    credentials = (
        [
            _from_secret("GIT_USERNAME", SecretKey(secret=secret, key="username"), optional=True),
            _from_secret("GIT_PASSWORD", SecretKey(secret=secret, key="password")),
        ]
        if secret
        else []
    )
    return {
        "name": "source",
        "image": options.source_image,
        "command": ["sh", "-c", _FETCH_SOURCE, "fetch-source"],
        "env": [*_variables(options.environment), *_variables(env), *credentials],
        "resources": _resources(options.source_resources),
        "volumeMounts": [{"name": "source", "mountPath": SOURCE_DIRECTORY}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _template(build: Build, *, options: BuildOptions) -> str:
    secrets = options.secret_environment
    return dockerfile_for(
        build.runtime,
        runtimes=options.runtimes,
        registry=options.base_registry,
        environment=sorted(build.environment.keys() - _inherited(options)),
        secrets=sorted(secrets),
    )


def _inherited(options: BuildOptions) -> set[str]:
    """The build arguments that kaniko takes from its own environment."""
    return options.secret_environment.keys() | proxies_in(options.environment)


def kaniko_container(build: Build, *, source: Source, image: str, options: BuildOptions) -> dict[str, Any]:
    """The container that builds and pushes `image`. Its volumes are named `source`, `registry` and `bucket`.

    Raises `PermanentError` (EnvironmentInvalid, DestinationInvalid).
    """
    mounts: list[dict[str, Any]] = []
    env = _variables(options.environment)
    env += [_from_secret(name, key) for name, key in sorted(options.secret_environment.items())]
    if source.kind is SourceKind.GIT:
        mounts.append({"name": "source", "mountPath": SOURCE_DIRECTORY, "readOnly": True})
    if options.registry_secret:
        mounts.append({"name": "registry", "mountPath": DOCKER_CONFIG, "readOnly": True})
        env.append({"name": "DOCKER_CONFIG", "value": DOCKER_CONFIG})
    if options.bucket_secret and source.kind is SourceKind.GS:
        mounts.append({"name": "bucket", "mountPath": BUCKET_SECRET, "readOnly": True})
        env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{BUCKET_SECRET}/key.json"})
    container: dict[str, Any] = {
        "name": "kaniko",
        "image": options.kaniko_image,
        "args": _arguments(build, source=source, image=image, options=options),
        "env": env,
        "resources": _resources(options.build_resources, memory=build.memory, cpu=build.cpu),
        "volumeMounts": mounts,
        # On success the image's digest (--digest-file), else the last lines of the log.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            # kaniko unpacks the base image into its own root and runs the Dockerfile's commands there, so it
            # has to be root and its root file system cannot be read-only. It needs neither mounts nor
            # namespaces, so it gains nothing beyond what it starts with.
            "runAsUser": 0,
            "runAsNonRoot": False,
            "readOnlyRootFilesystem": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
        },
    }
    if options.bucket_secret and source.kind is SourceKind.S3:
        container["envFrom"] = [{"secretRef": {"name": options.bucket_secret}}]
    return container


def _arguments(build: Build, *, source: Source, image: str, options: BuildOptions) -> list[str]:
    """The executor's flags. One element each, with `=`: no value can become a flag."""
    if source.kind is SourceKind.GIT:
        context = [
            f"--context=dir://{SOURCE_DIRECTORY}/context",
            f"--dockerfile={SOURCE_DIRECTORY}/Dockerfile",
        ]
    else:
        context = [
            f"--context={literal(source.url)}",
            f"--dockerfile={literal(build.dockerfile or 'Dockerfile')}",
        ]
        if source.sub_path:
            context.append(f"--context-sub-path={literal(source.sub_path)}")
    cache = []
    if options.cache:
        # Uncompressed layers in the cache keep kaniko's memory from growing with them.
        cache = ["--cache=true", "--compressed-caching=false"]
        if options.cache_repo:
            repository = fill(options.cache_repo, values=build.placeholders(), tagged=False)
            cache.append(f"--cache-repo={repository}")
    return [
        *context,
        f"--destination={image}",
        "--digest-file=/dev/termination-log",
        *build_arguments(build.environment, inherited=_inherited(options)),
        f"--label={PREFIX}event-id={label_value(build.event_id)}",
        *cache,
        f"--snapshot-mode={options.snapshot_mode}",
        f"--push-retry={options.retries}",
        f"--image-download-retry={options.retries}",
        f"--image-fs-extract-retry={options.retries}",
        *(f"--registry-mirror={mirror}" for mirror in options.registry_mirrors),
        *(f"--insecure-registry={registry}" for registry in options.insecure_registries),
        *(f"--skip-tls-verify-registry={registry}" for registry in options.skip_tls_verify_registries),
        # It is in a container, but not every container runtime (gVisor, say) looks like one to kaniko.
        "--force",
        # Its text format is logrus' key="value", where quotes are escaped: colours are taken off more easily.
        "--log-format=color",
        "--verbosity=info",
        *options.kaniko_arguments,
    ]


def _variables(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def _from_secret(name: str, key: SecretKey, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": key.secret, "key": key.key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _resources(resources: Resources, *, memory: str = "", cpu: str = "") -> dict[str, Any]:
    return {
        "requests": {
            "cpu": cpu or resources.cpu_request,
            "memory": memory or resources.memory_request,
            "ephemeral-storage": resources.storage_request,
        },
        "limits": {
            "cpu": cpu or resources.cpu_limit,
            "memory": memory or resources.memory_limit,
            "ephemeral-storage": resources.storage_limit,
        },
    }
