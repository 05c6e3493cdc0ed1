"""The two things that Kubernetes does between a manifest and a process, as far as the manifests need them."""

from collections.abc import Mapping
from typing import Any


def expand(text: str, *, variables: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` as Kubernetes does in `command`, `args` and `env`: `$$` is a dollar sign, an unknown name
    stays as it is (Container API, field `args`; k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    result, position = [], 0
    while position < len(text):
        character, following = text[position], text[position + 1 : position + 2]
        if character != "$" or not following:
            result.append(character)
            position += 1
        elif following == "$":
            result.append("$")
            position += 2
        elif following == "(" and (end := text.find(")", position)) >= 0:
            name = text[position + 2 : end]
            result.append(variables.get(name, f"$({name})"))
            position = end + 1
        else:
            result.append(character)
            position += 1
    return "".join(result)


def environment_of(container: Mapping[str, Any], *, secrets: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """A container's variables, those from secrets filled in by (secret, key)."""
    variables: dict[str, str] = {}
    for variable in container["env"]:
        if "value" in variable:
            variables[variable["name"]] = expand(variable["value"], variables=variables)
            continue
        reference = variable["valueFrom"]["secretKeyRef"]
        value = secrets.get((reference["name"], reference["key"]))
        if value is not None:
            variables[variable["name"]] = value
        elif not reference.get("optional"):
            raise LookupError(f"CreateContainerConfigError: {reference}")
    return variables


def command_of(container: Mapping[str, Any], *, variables: Mapping[str, str]) -> list[str]:
    """What is executed: command and arguments, expanded."""
    parts = [*container.get("command", []), *container.get("args", [])]
    return [expand(part, variables=variables) for part in parts]
