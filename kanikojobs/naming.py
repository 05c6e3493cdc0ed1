"""Names and labels of Kubernetes Jobs, and names of images, from text that nobody vouches for.

A Job's name becomes a label of its pods, so 63 characters bind it (the sample event's job_name has 76), and
the pod's name is the Job's name plus six more. Every function here is deterministic: the same row gives the
same name on every try, which is what makes creating a Job twice harmless. Where text has to be cut or
changed, a hash of the whole text takes the place of what was lost, so that different texts stay different.
"""

import hashlib
import json
import re

PREFIX = "kanikojobs.notifi.network/"

# Pods are named "<job>-xxxxx" and a pod's name becomes its hostname, which holds 63 characters.
_JOB_NAME_LENGTH = 63 - len("-xxxxx")
_LABEL_LENGTH = 63
_HASH_LENGTH = 16
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
# The distribution specification's path component, which is stricter than its tag.
_IMAGE_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_canonical = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
# The end of a text that was cut. Text that brings such an end itself is cut too: otherwise one event could
# choose an id that reads like the cut id of another.
_MARK = "--"
_MARKED = re.compile(rf".*{_MARK}[0-9a-f]{{{_HASH_LENGTH}}}", re.DOTALL)


def short_hash(*parts: str | int) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the parts; ("a", "bc") and ("ab", "c") differ."""
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()[:_HASH_LENGTH]


def kubernetes_name(*, source: str, event_id: str, number: int, job_name: str) -> str:
    """The name of the Kubernetes Job for the `number`-th build of an event: a DNS-1123 label, at most 57
    characters.

    The hash is of the event's identity and the number alone; `job_name` only gives the readable part.
    """
    tail = "-" + short_hash(source, event_id, number)
    slug = _cut(re.sub(r"[^a-z0-9]+", "-", job_name.lower()), length=_JOB_NAME_LENGTH - len(tail))
    return (slug or "job") + tail


def label_value(text: str) -> str:
    """`text` as a label value: itself if the rules allow it, else what fits of it and a hash of the whole."""
    if len(text) <= _LABEL_LENGTH and _LABEL_VALUE.fullmatch(text) and not _MARKED.fullmatch(text):
        return text
    return _marked(re.sub(r"[^A-Za-z0-9_.-]+", "_", text), of=text)


def image_component(text: str) -> str:
    """`text` as one component of an image's repository, also good as a tag; "" only for ""."""
    if len(text) <= _LABEL_LENGTH and _IMAGE_COMPONENT.fullmatch(text) and not _MARKED.fullmatch(text):
        return text
    return _marked(re.sub(r"[^a-z0-9]+", "-", text.lower()), of=text) if text else ""


def labels(*, event_id: str, third_party_id: str, parser_id: str, number: int) -> dict[str, str]:
    """The labels of a Job and of its pods, by which they are found, watched and counted."""
    return {
        "app.kubernetes.io/name": "kaniko",
        "app.kubernetes.io/managed-by": "kanikojobs",
        f"{PREFIX}event-id": label_value(event_id),
        f"{PREFIX}third-party-id": label_value(third_party_id),
        f"{PREFIX}parser-id": label_value(parser_id),
        f"{PREFIX}number": str(number),
    }


def _marked(slug: str, *, of: str) -> str:
    tail = _MARK + short_hash(of)
    return (_cut(slug, length=_LABEL_LENGTH - len(tail)) or "x") + tail


def _cut(text: str, *, length: int) -> str:
    """At most `length` characters that begin and end with a letter or digit."""
    return text.lstrip("-_.")[:length].rstrip("-_.")
