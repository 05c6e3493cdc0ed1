"""Where an image is pushed: a template of the operator's, filled from the event.

The registry is the operator's alone, so it holds no placeholder. Every value is made to fit the rules of
image references (lower case and so on) in a way that keeps different values different: two tenants whose ids
differ in case only must not push over each other's images.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

from kanikojobs.errors import PermanentError
from kanikojobs.naming import image_component

PLACEHOLDERS = (
    "third_party_id",
    "parser_id",
    "correlation_id",
    "event_id",
    "number",
    "runtime",
    "job_name",
    "short_hash",
)

# Distribution specification: a repository's name has at most 255 characters with its host, a tag 128.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_REPOSITORY = re.compile(rf"{_HOST}(?:/{_COMPONENT})+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def is_registry(text: str, *, with_path: bool) -> bool:
    """Whether this names a registry as images do: `host` or `host:port`, and `with_path` a place in one as well."""
    return re.fullmatch(rf"{_HOST}(?:/{_COMPONENT})*" if with_path else _HOST, text) is not None


def check_template(template: str, *, tagged: bool) -> None:
    """Raises `ValueError` saying what is wrong with a template for images (`tagged`) or for a cache's
    repository."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{template!r}: {error}") from None
    if any(specification or conversion for _, _, specification, conversion in parts):
        raise ValueError(f"{template!r}: a placeholder is a name in braces, with no ! or : in it")
    fields = [field or "" for _, field, _, _ in parts]
    unknown = sorted({field for field in fields if field not in PLACEHOLDERS})
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"{template!r}: no placeholder {{{unknown[0]}}}; there are {known}")
    registry = template.partition("/")[0]
    if "{" in registry or not (set(".:") & set(registry) or registry == "localhost"):
        raise ValueError(f"{template!r}: must begin with the registry's host, written out, and a /")
    try:
        _checked(template.format(**dict.fromkeys(PLACEHOLDERS, "x")), tagged=tagged)
    except PermanentError as error:
        raise ValueError(f"{template!r}: {error.message}") from None


def fill(template: str, *, values: Mapping[str, str], tagged: bool) -> str:
    """The image or repository that a checked template means for these values of `PLACEHOLDERS`.

    Raises `PermanentError` (DestinationInvalid), for example when a value that the template needs is empty.
    """
    needed = _needed(template)
    empty = sorted(name for name in needed if not values[name])
    if empty:
        raise _invalid(f"the template {template} needs {{{empty[0]}}}, which this event does not have")
    return _checked(template.format(**{name: image_component(values[name]) for name in needed}), tagged=tagged)


@lru_cache
def _needed(template: str) -> frozenset[str]:
    """The placeholders in a template, of which there are a few and each serves for thousands of builds."""
    return frozenset(field for _, field, _, _ in Formatter().parse(template) if field)


def _checked(reference: str, *, tagged: bool) -> str:
    repository, tag = reference, ""
    if ":" in reference.rpartition("/")[2]:
        repository, _, tag = reference.rpartition(":")
    if tagged != bool(tag):
        raise _invalid(f"{reference} must end with a :tag" if tagged else f"{reference} must not have a :tag")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255 or (tag and not _TAG.fullmatch(tag)):
        raise _invalid(f"{reference} is not an image reference (host/lower-case/path:tag, at most 255 characters)")
    return reference


def _invalid(problem: str) -> PermanentError:
    return PermanentError(reason="DestinationInvalid", message=f"destination: {problem}")
