"""The house rules that no single module's test can hold: who imports what, what explains itself, what is open."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

CHECKOUT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path
    for folder in ("kanikojobs", "project", "deploy", "tests")
    for path in (CHECKOUT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
OURS = [path for path in MODULES if path.is_relative_to(CHECKOUT / "kanikojobs")]


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def imports_of(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_modules_are_found() -> None:
    assert "kanikojobs/amqp.py" in map(name_of, OURS)
    assert imports_of(CHECKOUT / "kanikojobs/amqp.py") >= {"pika", "kanikojobs"}


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("pika", "kanikojobs/amqp.py"),
        ("kubernetes", "kanikojobs/kube.py"),
        ("opentelemetry", "kanikojobs/tracing/exporting.py"),
    ],
)
def test_each_outside_system_is_behind_one_module(package: str, module: str) -> None:
    assert [name_of(path) for path in OURS if package in imports_of(path)] == [module]


PURE = [
    "cloudevent/*.py",
    "states.py",
    "errors.py",
    "messages.py",
    "naming.py",
    "kube_answers.py",
    "field_tables.py",
    "capacity.py",
]


@pytest.mark.parametrize("pattern", PURE)
def test_what_is_said_to_be_pure_asks_nobody(pattern: str) -> None:
    modules = list((CHECKOUT / "kanikojobs").glob(pattern))

    assert modules
    for path in modules:
        allowed = {"django"} if path.name == "states.py" else set()
        assert not imports_of(path) & {"django", "pika", "kubernetes", "psycopg", "urllib3"} - allowed, path


def test_what_the_product_needs_is_not_what_only_tests_have() -> None:
    for path in OURS:
        assert not imports_of(path) & {"tests", "deploy", "pytest", "hypothesis"}, path


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "services", "constants", "misc", "base", "core"}

    assert [name_of(path) for path in MODULES if path.stem in drawers or path.parent.name in drawers] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.read_text().strip()], ids=name_of)
def test_a_module_says_why_it_is_there(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring, name_of(path)
    assert docstring.splitlines()[0].endswith((".", ":", "?")) or len(docstring.splitlines()) > 1


def test_the_story_names_only_modules_that_are_there() -> None:
    words = (ast.get_docstring(ast.parse((CHECKOUT / "kanikojobs/__init__.py").read_text())) or "").split("`")[1::2]

    there = {path.stem for path in (CHECKOUT / "kanikojobs").iterdir()}
    assert words
    assert [word for word in words if word.isidentifier() and word not in there] == []


# --- What is open without a log-in, and why -----------------------------------------------------------------------

OPEN = {
    "": "the sink, by its own token; a person is sent to the admin",
    "events": "the sink, by its own token",
    "events/broker": "the sink, by its own token",
    "events/undelivered": "the dead-letter sink, by the same token",
    "health": "the orchestrator",
    "ready": "the orchestrator",
    "metrics": "Prometheus, by its own token",
    "metrics/web": "Prometheus, by the same token",
    "async-jobs/stats": "six numbers, as in the system's first version",
    "admin/login/": "the log-in itself",
}


def addresses(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[str]:
    """An address for every route there is."""
    for entry in (resolver or get_resolver()).url_patterns:
        address = prefix + an_address(str(entry.pattern))
        if isinstance(entry, URLResolver):
            yield from addresses(entry, address)
        elif isinstance(entry, URLPattern):
            yield address


def an_address(route: str) -> str:
    """One that the route matches, be it a path or, as Django REST framework's router writes them, an expression."""

    def group(match: re.Match[str]) -> str:
        if length := re.search(r"\{(\d+)\}", match[1]):
            return "1" * int(length[1])
        return "1" if "[" in match[1] else match[1].replace(".*", "nowhere").split("|")[0]

    route = re.sub(r"\(\?P<\w+>([^()]*)\)", group, route)
    route = re.sub(r"<(?:(\w+):)?\w+>", lambda match: "1" if match[1] == "int" else "x", route)
    return re.sub(r"^\^|\$$|\\Z$", "", route)


@pytest.mark.parametrize(
    ("route", "address"),
    [
        ("events", "events"),
        ("r/<int:content_type_id>/<path:object_id>/", "r/1/x/"),
        ("^jobs/(?P<pk>[^/.]+)$", "jobs/1"),
        ("^groups/(?P<fingerprint>[0-9a-f]{4})$", "groups/1111"),
        ("^(?P<app_label>auth|kanikojobs)/$", "auth/"),
        (r"(?P<url>.*)\Z", "nowhere"),
    ],
)
def test_an_address_is_made_for_a_route(route: str, address: str) -> None:
    assert an_address(route) == address


def is_closed(response: HttpResponse) -> bool:
    to_log_in = response.status_code == 302 and response["Location"].startswith("/admin/login/")
    return to_log_in or response.status_code in (401, 403)


@pytest.mark.django_db
def test_every_route_is_closed_but_those_that_say_why_not(client: Client) -> None:
    cache.clear()  # the rate limits
    all_addresses = list(addresses())

    open_ = {
        address
        for address in all_addresses
        for method in ("get", "post", "put", "patch", "delete")
        if not is_closed(getattr(client, method)(f"/{address}"))
    }

    assert len(all_addresses) > 40
    assert {"async-jobs/jobs", "async-jobs/jobs/1", "api/schema/", "admin/", "metrics"} <= set(all_addresses)
    assert open_ == set(OPEN)


@pytest.mark.django_db
@pytest.mark.parametrize("address", [address for address in OPEN if not address.startswith("events") and address])
def test_what_is_open_changes_nothing(client: Client, address: str) -> None:
    cache.clear()

    answers = [getattr(client, method)(f"/{address}") for method in ("put", "patch", "delete")]

    # The log-in form has its own protection, and takes a form only.
    allowed = (403, 405, 401) if address != "admin/login/" else (200, 403, 405)
    assert all(answer.status_code in allowed for answer in answers)
