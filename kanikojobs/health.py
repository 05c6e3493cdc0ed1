"""`/health`, `/ready` and `/metrics`: what an orchestrator and Prometheus ask, without a log-in."""

import os
from functools import cache
from http import HTTPStatus
from secrets import compare_digest

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error, ProgrammingError, connection
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from kanikojobs.metrics import OURS


@login_not_required
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Alive: this process answers. Says nothing of others, so that an outage elsewhere restarts nobody."""
    return JsonResponse({"status": "ok"})


@login_not_required
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Ready: Postgres answers and has every table that this version writes, so events can be taken.

    A database that is further than this version is fine: old and new run side by side while one replaces the other.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM django_migrations WHERE app = 'kanikojobs'")
            applied = {row[0] for row in cursor.fetchall()}
    except ProgrammingError:
        return not_ready("The tables are missing. Run manage.py migrate.")
    except Error:
        connection.close()
        return not_ready("The database is away.")
    if missing := sorted(migrations() - applied):
        return not_ready(f"Migration {missing[0]} is not applied. Run manage.py migrate.")
    return JsonResponse({"status": "ready"})


@cache
def migrations() -> frozenset[str]:
    """The migrations that this version comes with."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    return frozenset(name for app, name in loader.disk_migrations if app == "kanikojobs")


def not_ready(detail: str) -> HttpResponse:
    return JsonResponse({"status": "not ready", "detail": detail}, status=HTTPStatus.SERVICE_UNAVAILABLE)


@login_not_required  # Prometheus has no session; the token protects it where that is wanted.
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics of the system, in the format that the scraper asks for. The same numbers from every web server."""
    return _without_token(request) or _exposition(request, OURS)


@login_not_required
@require_safe
def web_metrics(request: HttpRequest) -> HttpResponse:
    """What this web server counts of its own HTTP requests, by all of its worker processes: scraped per pod.

    Without the folder that its workers share (`project.web_server` makes it) each would tell of itself alone.
    """
    if refusal := _without_token(request):
        return refusal
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        advice = "Start the web server with: gunicorn -c python:project.web_server project.wsgi\n"
        return HttpResponse(advice, status=HTTPStatus.NOT_FOUND, content_type="text/plain")
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return _exposition(request, registry)


def _without_token(request: HttpRequest) -> HttpResponse | None:
    """The answer to a scraper that does not send the token that is set."""
    token = settings.KANIKOJOBS_METRICS_TOKEN
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if not token or (scheme.lower() == "bearer" and compare_digest(given.strip().encode(), token.encode())):
        return None
    response = HttpResponse("A bearer token is needed.\n", status=HTTPStatus.UNAUTHORIZED)
    response["WWW-Authenticate"] = 'Bearer realm="metrics"'
    return response


def _exposition(request: HttpRequest, registry: CollectorRegistry) -> HttpResponse:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)
