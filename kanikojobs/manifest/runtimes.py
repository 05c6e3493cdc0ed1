"""The Dockerfiles for sources that bring none, one template per runtime in `deploy/runtimes/`.

A template is a Dockerfile with four marks (`@REGISTRY@`, `@VERSION@`, `@ARGUMENTS@`, `@ENVIRONMENT@`) whose
head says which runtime names it serves, in which versions. Further ones, or others for the same names, come
from a folder of the operator's. A runtime without a template is no error: the source may bring its own
Dockerfile, and if it does not, the build says so.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[2] / "deploy" / "runtimes"

_HEAD = re.compile(r"^# (runtime|versions|default): (.+)$", re.MULTILINE)
# Set in an image these break the template's own commands; a source that wants them brings its Dockerfile.
_NOT_KEPT = frozenset({"PATH", "HOME", "IFS", "PWD", "SHELL"})
_NAME = re.compile(r"(?P<family>[a-z]+)[-_]?(?P<version>[0-9][0-9.]*)?(?P<any>\.x)?")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A template with the versions it is for, oldest first, and the one to take when an event names none."""

    versions: tuple[str, ...]
    default: str
    template: str

    def version(self, wanted: str) -> str | None:
        """The version that an event's digits mean ("3.12" and "312" are one), or None if it is none of
        ours."""
        if not wanted:
            return self.default
        digits = wanted.replace(".", "")
        return next((version for version in self.versions if version.replace(".", "") == digits), None)


def load_runtimes(*directories: Path) -> dict[str, Runtime]:
    """The templates of the folders by runtime name; later folders win.

    Raises `ValueError` for a template whose head is incomplete, naming the file.
    """
    runtimes: dict[str, Runtime] = {}
    for directory in directories or (DIRECTORY,):
        for path in sorted(directory.glob("*.Dockerfile")):
            text = path.read_text()
            head = {key: value.split() for key, value in _HEAD.findall(text)}
            if not all(head.get(key) for key in ("runtime", "versions", "default")):
                raise ValueError(f"{path}: needs the lines '# runtime:', '# versions:' and '# default:' at its head")
            if head["default"][0] not in head["versions"]:
                raise ValueError(f"{path}: its default is not among its versions")
            body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
            runtime = Runtime(tuple(head["versions"]), head["default"][0], body.strip())
            runtimes.update(dict.fromkeys(head["runtime"], runtime))
    return runtimes


def dockerfile_for(
    runtime: str,
    *,
    runtimes: Mapping[str, Runtime],
    registry: str,
    environment: Iterable[str],
    secrets: Iterable[str],
) -> str:
    """The Dockerfile for a runtime such as `nodejs18`, `python3.12`, `python312` or `go`; "" if there is
    none.

    `environment` are names of build arguments that the image shall keep as its environment, `secrets` names
    of those that only its build may see. Their values are not part of the Dockerfile.
    """
    match = _NAME.fullmatch(runtime.lower())
    found = runtimes.get(match["family"]) if match else None
    version = found.version(match["version"] or "") if match and found else None
    if found is None or version is None:
        return ""
    kept = [name for name in environment if name not in _NOT_KEPT]
    build = [f"ARG {name}" for name in (*kept, *secrets)]
    image = [f'ARG {name}\nENV {name}="${{{name}}}"' for name in kept]
    marks = {
        "@REGISTRY@": registry,
        "@VERSION@": version,
        "@ARGUMENTS@": "\n".join(build),
        "@ENVIRONMENT@": "\n".join(image),
    }
    return re.sub("|".join(marks), lambda mark: marks[mark[0]], found.template)


def advice(runtime: str, *, runtimes: Mapping[str, Runtime]) -> str:
    """What to tell somebody whose source has no Dockerfile and whose runtime has no template."""
    known = "; ".join(
        f"{name} {' '.join(found.versions)}" for name, found in sorted(runtimes.items()) if found.versions
    )
    asked = "the event names no runtime" if not runtime else f'no template serves the runtime "{runtime[:64]}"'
    return f"{asked} (there are: {known})"
