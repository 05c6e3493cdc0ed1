"""The rules of names and labels (apimachinery `util/validation`), in the wording of 1.36."""

import functools
import re
from collections.abc import Callable

from deploy.local.kubernetes_simulator.answers import FieldError, invalid_value, too_long

LABEL_LIMIT = 63
SUBDOMAIN_LIMIT = 253
ANNOTATIONS_LIMIT = 256 * 1024

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NAME_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_NAME_PART})?"
_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_name_part = re.compile(_NAME_PART).fullmatch
_is_value = re.compile(_VALUE).fullmatch


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def label_problems(text: str) -> list[str]:
    """Why a text is no DNS label (RFC 1123): container and volume names."""
    problems = [_too_long(LABEL_LIMIT)] if _size(text) > LABEL_LIMIT else []
    if not _is_label(text):
        problems.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
            "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL}')"
        )
    return problems


def subdomain_problems(text: str) -> list[str]:
    """Why a text is no DNS subdomain (RFC 1123): the names of most objects."""
    problems = [_too_long(SUBDOMAIN_LIMIT)] if _size(text) > SUBDOMAIN_LIMIT else []
    if not _is_subdomain(text):
        problems.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
            "must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN}')"
        )
    return problems


@functools.lru_cache(8192)
def label_value_problems(text: str) -> tuple[str, ...]:
    """Why a text is no label value."""
    if _size(text) <= LABEL_LIMIT and _is_value(text):
        return ()
    problems = [_too_long(LABEL_LIMIT)] if _size(text) > LABEL_LIMIT else []
    if not _is_value(text):
        problems.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            f"for validation is '{_VALUE}')"
        )
    return tuple(problems)


@functools.lru_cache(8192)
def qualified_name_problems(text: str) -> tuple[str, ...]:
    """Why a text is no label or annotation key: an optional DNS subdomain, `/`, and a name of up to 63."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return (
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            f"'{_NAME_PART}') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    problems = []
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems.extend(f"prefix part {problem}" for problem in subdomain_problems(prefix))
    if not name:
        problems.append("name part must be non-empty")
    elif _size(name) > LABEL_LIMIT:
        problems.append(f"name part {_too_long(LABEL_LIMIT)}")
    if not _is_name_part(name):
        problems.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            f"'{_NAME_PART}')"
        )
    return tuple(problems)


def check_labels(labels: dict[str, str], *, path: str) -> list[FieldError]:
    """`path` names the map itself: the server reports no key (apis/meta/v1/validation ValidateLabels)."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors.extend(invalid_value(path, key, problem) for problem in qualified_name_problems(key))
        errors.extend(invalid_value(path, value, problem) for problem in label_value_problems(value))
    return errors


def check_annotations(annotations: dict[str, str], *, path: str) -> list[FieldError]:
    """Keys are label keys of any case; keys and values together may have 256 KiB."""
    errors: list[FieldError] = []
    total = 0
    for key, value in annotations.items():
        errors.extend(invalid_value(path, key, problem) for problem in qualified_name_problems(key.lower()))
        total += _size(key) + _size(value)
    if total > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, ANNOTATIONS_LIMIT))
    return errors


def check_name(name: str, *, path: str, rule: Callable[[str], list[str]] = subdomain_problems) -> list[FieldError]:
    return [invalid_value(path, name, problem) for problem in rule(name)]
