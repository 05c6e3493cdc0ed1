"""Whether an image was pushed, which decides over everything else that is said of a build. Pure.

kaniko writes the digest before it pushes (executor.DoPush), so a digest alone proves nothing: it counts when the
container ended well, or when its log says `Pushed`.
"""

import re
from collections.abc import Iterable, Iterator

from kanikojobs.observed import Container, Pod

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def pushed_by(pod: Pod) -> str | None:
    """The digest if the pod's build ended well ("" if it left none), else None."""
    for container in pod.containers:
        if not container.init and container.state == "terminated" and container.exit_code == 0:
            digest = digest_in(container.message)
            if digest or pod.phase == "Succeeded":
                return digest
    return None


def unproven(pods: Iterable[Pod]) -> Iterator[tuple[Pod, Container, str]]:
    """The containers that ended with an error after kaniko had written a digest, with that: their logs tell more."""
    for pod in pods:
        for container in pod.containers:
            if not container.init and container.exit_code and (digest := digest_in(container.message)):
                yield pod, container, digest


def digest_in(message: str) -> str:
    """The digest that a termination message is, or ""."""
    text = message.strip()
    return text if _DIGEST.fullmatch(text) else ""


def says_pushed(log: str, *, image: str, digest: str) -> bool:
    """Whether kaniko itself wrote that it pushed this image. Layers of the cache are pushed too, under other names."""
    repository = image.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    host, _, path = repository.partition("/")
    if host == "docker.io":
        # go-containerregistry's name for it, and for what has no owner there (pkg/name).
        repository = f"index.docker.io/{path if '/' in path else f'library/{path}'}"
    pattern = rf"(?m)^INFO\[\d+\] Pushed {re.escape(repository)}(?::[\w.-]+)?@{digest}\s*$"
    return bool(repository) and re.search(pattern, log) is not None
