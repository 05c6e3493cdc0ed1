"""An event's `environment` on its way into a build: as build arguments and nothing else.

It never becomes the environment of a container, where names such as PATH or GIT_DIR would steer git, kaniko
or a shell. Each argument is an element of its own, so no shell ever reads it, and dollar signs are escaped:
Kubernetes replaces `$(NAME)` in arguments by the container's variables, and an event could ask for a secret
that way.
"""

import re
from collections.abc import Iterable, Mapping

from kanikojobs.errors import PermanentError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(
    r"PATH|HOME|USER|SHELL|PWD|IFS|ENV|BASH_ENV|TMPDIR|LANG|HOSTNAME|(HTTP|HTTPS|ALL|NO)_PROXY"
    r"|SSL_CERT_(DIR|FILE)|BENCHMARK_FILE|SNAPSHOT_TIMEOUT_DURATION|GODEBUG|GOMEMLIMIT"
    r"|(LD|LC|GIT|SSH|AWS|AZURE|GOOGLE|DOCKER|KANIKO|FF_KANIKO|KUBERNETES|OTEL)_.*",
    re.IGNORECASE,
)
# A RUN knows these without declaring them, and no image keeps them (Dockerfile reference, "Predefined ARGs").
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"})
# A run of dollar signs that Kubernetes would read as something else: two make one, and one before "(" a
# variable.
_EXPANDED = re.compile(r"\$(?:\$+|(?=\())")


def literal(text: str) -> str:
    """`text` so that it reaches the process unchanged (see `$(VAR_NAME)` in the Container API's `args` and
    `env`)."""
    return _EXPANDED.sub(lambda dollars: dollars[0] * 2, text) if "$" in text else text


def is_name(name: str) -> bool:
    """Whether this may name a build argument: letters, digits and _, not starting with a digit."""
    return _NAME.fullmatch(name) is not None


def is_reserved(name: str) -> bool:
    """Whether a container's variable of this name would steer a shell, git, kaniko or a cloud's client."""
    return _RESERVED.fullmatch(name) is not None


def proxies_in(environment: Iterable[str]) -> set[str]:
    """Those of a container's variables that name proxies, in capitals or not. kaniko hands none of its own variables on
    to the Dockerfile's commands, so these have to be build arguments too."""
    return {name for name in environment if name.upper() in _PROXIES}


def build_arguments(environment: Mapping[str, str], *, inherited: Iterable[str]) -> list[str]:
    """The executor's `--build-arg` flags, in the order of the names.

    A name in `inherited` goes without a value: kaniko then takes it from its own environment, where the operator has
    put it, from a secret say. What the event says for that name is dropped. Raises `PermanentError`
    (EnvironmentInvalid).
    """
    inherited_names = set(inherited)
    values = {name: value for name, value in environment.items() if name not in inherited_names}
    for name, value in values.items():
        if not is_name(name):
            raise _invalid(name, "not an environment name (letters, digits and _, not starting with a digit)")
        if "\0" in value:
            raise _invalid(name, "has a NUL character, which no process can be given")
    return [
        f"--build-arg={name}" if name in inherited_names else f"--build-arg={name}={literal(values[name])}"
        for name in sorted(inherited_names | values.keys())
    ]


def _invalid(name: str, problem: str) -> PermanentError:
    return PermanentError(reason="EnvironmentInvalid", message=f"data.parameters.environment[{name[:64]!r}]: {problem}")
