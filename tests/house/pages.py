"""Every page that the product has, derived from the admin's models and the routes: a new one is looked at, too.

What a route that is none of them does instead of showing a page stands here with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from django.contrib import admin
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse

ADMIN = "admin:kanikojobs_"


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its route's name, with what it needs: a row of `rows`, other arguments, a query.

    In the query `{row}` stands for the row's primary key.
    """

    name: str
    route: str
    row: str = ""
    arguments: tuple[str, ...] = ()
    query: str = ""

    def path(self, rows: Mapping[str, int]) -> str:
        in_query = "{row}" in self.query
        arguments = [rows[self.row]] if self.row and not in_query else self.arguments
        query = self.query.format(row=rows[self.row]) if in_query else self.query
        return reverse(self.route, args=arguments) + query


def _of_models() -> Iterator[Page]:
    """The pages that each model has for somebody who may do everything."""
    request = RequestFactory().get("/")
    request.user = User(is_active=True, is_superuser=True)
    for model, of_model in admin.site._registry.items():
        route, row = f"admin:{model._meta.app_label}_{model._meta.model_name}", model._meta.label_lower
        name = str(model._meta.verbose_name)
        yield Page(f"list: {name}", f"{route}_changelist")
        yield Page(f"row: {name}", f"{route}_change", row)
        if of_model.has_change_permission(request):
            # Nothing leads to the others, and nothing could be in them.
            yield Page(f"history: {name}", f"{route}_history", row)
        if of_model.has_add_permission(request):
            yield Page(f"add: {name}", f"{route}_add")
        if of_model.has_delete_permission(request):
            yield Page(f"delete: {name}", f"{route}_delete", row)


_OWN = (
    Page("home", "admin:index"),
    Page("rows of kanikojobs", "admin:app_list", arguments=("kanikojobs",)),
    Page("rows of people", "admin:app_list", arguments=("auth",)),
    Page("rows of tokens", "admin:app_list", arguments=("authtoken",)),
    Page("direct and queue", "admin:flows"),
    Page("search", "admin:find"),
    Page("search with several finds", "admin:find", query="?q=8c5bd8f3f5b64e6c8f1d9d3a4b0e7c21"),
    Page("search without a find", "admin:find", query="?q=nothing"),
    Page("new password", "admin:password_change"),
    Page("password changed", "admin:password_change_done"),
    Page("somebody's password", "admin:auth_user_password_change", "auth.user"),
    Page("mending a dead letter", f"{ADMIN}deadletter_mend", "kanikojobs.deadletter"),
    Page("plan of a replay", f"{ADMIN}replayrun_plan", "dead letter of a build", query="?ids={row}"),
    Page("page of the REST API", "docs"),
)
# The same templates with other states of what they show.
_STATES = (
    Page("a list without rows", f"{ADMIN}jobstartevent_changelist", query="?q=nothing"),
    Page("list of what failed for one reason", f"{ADMIN}kanikojob_changelist", query="?state__exact=failed"),
    Page("list of what is new", f"{ADMIN}failuregroup_changelist", query="?new_since=1h"),
    Page("home of a week", "admin:index", query="?window=7d"),
    *(
        Page(row, f"{ADMIN}{model}_change", row)
        for row, model in (
            ("running Kaniko Job", "kanikojob"),
            ("Kaniko Job that no node has room for", "kanikojob"),
            ("Kaniko Job that waits", "kanikojob"),
            ("built Kaniko Job", "kanikojob"),
            ("dead letter of a build", "deadletter"),
            ("finished replay", "replayrun"),
        )
    ),
)
PAGES = (*_OWN, *_of_models(), *_STATES)

# Routes for people that show no page of their own, and what they do instead.
NO_PAGES = {
    "admin:login": "looked at as a stranger",
    "admin:logout": "looked at as a stranger",
    "admin:autocomplete": "JSON",
    "admin:jsi18n": "a script",
    "admin:view_on_site": "sends on",
    f"{ADMIN}deadletter_check": "JSON",
    f"{ADMIN}deadletter_download": "a file",
    f"{ADMIN}replayrun_start": "the plan's page, if the form is wrong",
    **{
        f"{ADMIN}{name}": "POST, sends on"
        for name in (
            "deadletter_retry",
            "deadletter_discard",
            "deadletter_restore",
            "failuregroup_note",
            "failuregroup_discard",
            "kanikojob_retry",
            "kanikojob_cancel",
            "operatoraction_consumer",
            "replayrun_pause",
            "replayrun_resume",
            "replayrun_cancel",
        )
    },
}
# What programs ask for.
FOR_PROGRAMS = ("", "events", "health", "ready", "metrics", "async-jobs/", "api/schema/")


def routes_for_people(resolver: URLResolver | None = None, *, prefix: str = "", space: str = "") -> Iterator[str]:
    """The names of all routes that are not for programs, and of those without a name the path."""
    for found in (resolver or get_resolver()).url_patterns:
        path = prefix + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from routes_for_people(found, prefix=path, space=found.namespace or space)
        elif isinstance(found, URLPattern) and not _is_for_programs(path):
            yield f"{space}:{found.name}".lstrip(":") if found.name else path


def _is_for_programs(path: str) -> bool:
    return any(path == known or (known and path.startswith(f"{known.rstrip('/')}/")) for known in FOR_PROGRAMS)
