"""Which failures are passing trouble: what a standing rule may replay by itself.

A class is told by the Kaniko Job's CamelCase reason where there is one, else by the words that registries, resolvers
and Kubernetes use. What is not known to pass by itself is nobody's class, and only a person replays it.
"""

import re

from django.db import models


class TransientClass(models.TextChoices):
    REGISTRY_AWAY = "registry-away", "the registry cannot be reached"
    SOURCE_AWAY = "source-away", "the source's host cannot be reached"
    RATE_LIMITED = "rate-limited", "a rate limit"
    EVICTED = "evicted", "the pod was evicted, or its node lost"
    QUOTA = "quota", "a quota is used up"
    CLUSTER_BUSY = "cluster-busy", "the API server did not answer in time"
    WAITED_TOO_LONG = "waited-too-long", "the message waited too long, or the queue was full"


_BY_CAUSE = {"expired": TransientClass.WAITED_TOO_LONG, "maxlen": TransientClass.WAITED_TOO_LONG}
_BY_REASON = {
    "RegistryUnavailable": TransientClass.REGISTRY_AWAY,
    "RegistryRateLimited": TransientClass.RATE_LIMITED,
    "RegistryRateLimit": TransientClass.RATE_LIMITED,
    "SourceUnavailable": TransientClass.SOURCE_AWAY,
    "Evicted": TransientClass.EVICTED,
    "NodeLost": TransientClass.EVICTED,
    "Preempted": TransientClass.EVICTED,
    "QuotaExceeded": TransientClass.QUOTA,
    "CreateRetriesExhausted": TransientClass.CLUSTER_BUSY,
}
_AWAY = (
    r"connection refused|connection reset|no such host|i/o timeout|TLS handshake timeout|no route to host|"
    r"temporary failure in name resolution|could not resolve host|502 bad gateway|503 service unavailable|"
    r"504 gateway time"
)
_BY_WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"toomanyrequests|too many requests|pull rate limit|rate limit exceeded", TransientClass.RATE_LIMITED),
        (r"\bwas evicted\b|node (?:was )?lost|preempted", TransientClass.EVICTED),
        (r"exceeded quota", TransientClass.QUOTA),
        (rf"(?:git|clone|source|repository)\b.{{0,200}}(?:{_AWAY})", TransientClass.SOURCE_AWAY),
        (rf"(?:{_AWAY})", TransientClass.REGISTRY_AWAY),
    )
)
_MOST_CHARACTERS = 4000


def classify(*, cause: str, reason: str) -> str:
    """The class of passing trouble, or nothing. `cause` and `reason` are those of the dead letter."""
    if cause in _BY_CAUSE:
        return _BY_CAUSE[cause]
    if cause not in ("creation-failed", "build-failed"):
        return ""
    camel, colon, words = reason.partition(":")
    # Retries can be exhausted by anything; what the last try said tells more.
    if colon and camel in _BY_REASON and camel != "CreateRetriesExhausted":
        return _BY_REASON[camel]
    for pattern, name in _BY_WORDS:
        if pattern.search(words[:_MOST_CHARACTERS]):
            return name
    return _BY_REASON.get(camel, "")
