"""Settings of the Django project, all from the environment. The README has the table.

Faults of single values are collected and raised together at the end of this file; what only shows when values are
put together (such as a retry that is shorter than a timeout) is told by `manage.py check`, see `kanikojobs.checks`.
"""

import os
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import dj_database_url
from csp.constants import NONE, SELF

from kanikojobs.logs import logging_settings
from project.document_settings import with_document_settings
from project.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent
# A file in the document's own form may stand behind the environment (KANIKOJOBS_SETTINGS_FILE).
_variables, _faults = with_document_settings(os.environ)
env = Environment(_variables)
env.faults.extend(_faults)

# --- Django -----------------------------------------------------------------------------------------------------

DEBUG = env.flag("DJANGO_DEBUG", False)
if DEBUG:
    SECRET_KEY = env.text("DJANGO_SECRET_KEY", "django-insecure-only-for-development")
    ALLOWED_HOSTS = env.items("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
else:
    SECRET_KEY = env.required(
        "DJANGO_SECRET_KEY",
        write="Write at least 50 random characters, or name a file with them in DJANGO_SECRET_KEY_FILE.",
    )
    ALLOWED_HOSTS = env.items("DJANGO_ALLOWED_HOSTS")
    if not ALLOWED_HOSTS:
        env.fault("DJANGO_ALLOWED_HOSTS is not set. Write the host names that this serves, with commas between them.")
CSRF_TRUSTED_ORIGINS = env.items("DJANGO_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "kanikojobs",
    "project.apps.ProjectAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "csp",
    "django_prometheus",
    "django_q",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LOGIN_URL = "admin:login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["project.formats"]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []
LOGGING_CONFIG = "kanikojobs.logs.configure"
LOGGING = logging_settings(
    format=env.choice("KANIKOJOBS_LOG_FORMAT", "json", ("json", "console")),
    level=env.choice("KANIKOJOBS_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
)

# TLS ends at the ingress or the Knative gateway, which says so in this header.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = env.flag("DJANGO_SECURE_SSL_REDIRECT", False)
SECURE_HSTS_SECONDS = env.integer("DJANGO_SECURE_HSTS_SECONDS", 0)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.flag("DJANGO_SECURE_COOKIES", not DEBUG)
SESSION_COOKIE_AGE = 12 * 3600
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
SECURE_REFERRER_POLICY = "same-origin"

# --- Postgres ---------------------------------------------------------------------------------------------------

_database_url = env.required("DATABASE_URL", write="Write for example postgres://user:password@host:5432/kanikojobs.")
DATABASES: dict = {"default": {"ENGINE": "django.db.backends.postgresql"}}
if _database_url:
    try:
        # Persistent connections: with a new one per task Django-Q2 does a fifth of the work (README, "Speed").
        DATABASES["default"] = dict(dj_database_url.parse(_database_url, conn_max_age=None, conn_health_checks=True))
    except (ValueError, dj_database_url.ParseError) as error:
        # The error is not repeated whole: it can quote the password.
        env.fault(
            f"DATABASE_URL cannot be read ({type(error).__name__}). "
            "Write for example postgres://user:password@host:5432/kanikojobs, with special characters percent-encoded."
        )
    if DATABASES["default"]["ENGINE"] != "django.db.backends.postgresql":
        env.fault(
            "DATABASE_URL is not for PostgreSQL, which this needs. Write postgres://user:password@host:5432/name."
        )
DATABASES["default"].setdefault("OPTIONS", {})
DATABASES["default"]["OPTIONS"].setdefault("application_name", f"kanikojobs {Path(sys.argv[0]).name}"[:63])
DATABASES["default"]["OPTIONS"].setdefault("connect_timeout", 5)
# Django switches prepared statements off, and makes none itself: this is for the hot paths (`kanikojobs.cursors`).
DATABASES["default"]["OPTIONS"].setdefault("prepare_threshold", 5)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- In: RabbitMQ and HTTP --------------------------------------------------------------------------------------

RABBITMQ_URL = env.url("RABBITMQ_URL", example="amqp://user:password@host:5672/")
KANIKOJOBS_QUEUE = env.text("KANIKOJOBS_QUEUE", "kaniko-jobs")
KANIKOJOBS_DLQ = env.text("KANIKOJOBS_DLQ", "kaniko-jobs.dlq")
KANIKOJOBS_DLX = env.text("KANIKOJOBS_DLX", "dlx")
KANIKOJOBS_EXCHANGE = env.text("KANIKOJOBS_EXCHANGE", "amq.topic")
KANIKOJOBS_MESSAGE_TTL_MS = env.integer("KANIKOJOBS_MESSAGE_TTL_MS", 86_400_000, least=1)
KANIKOJOBS_MAX_LENGTH = env.integer("KANIKOJOBS_MAX_LENGTH", 10_000, least=1)
KANIKOJOBS_OVERFLOW = env.choice("KANIKOJOBS_OVERFLOW", "drop-head", ("drop-head", "reject-publish"))
KANIKOJOBS_DELIVERY_LIMIT = env.integer("KANIKOJOBS_DELIVERY_LIMIT", 20, least=1)
KANIKOJOBS_DRAIN_DLQ = env.flag("KANIKOJOBS_DRAIN_DLQ", True)
KANIKOJOBS_PREFETCH = env.integer("KANIKOJOBS_PREFETCH", 2000, least=1, most=65_535)
KANIKOJOBS_BATCH = env.integer("KANIKOJOBS_BATCH", 500, least=1, most=10_000)
KANIKOJOBS_EVENT_TYPE = env.text("KANIKOJOBS_EVENT_TYPE", "network.notifi.lambda.job.start")
KANIKOJOBS_EVENT_SOURCE = env.text("KANIKOJOBS_EVENT_SOURCE", "network.notifi.kaniko-jobs")
KANIKOJOBS_DIRECT_EVENTS = env.choice("KANIKOJOBS_DIRECT_EVENTS", "accept", ("accept", "reject"))
# Who reads KANIKOJOBS_QUEUE. With `knative` it is a RabbitmqSource, and consume_queue takes dead letters only.
KANIKOJOBS_QUEUE_READER = env.choice("KANIKOJOBS_QUEUE_READER", "consumer", ("consumer", "knative"))
KANIKOJOBS_SINK_TOKEN = env.text("KANIKOJOBS_SINK_TOKEN")
KANIKOJOBS_MAX_EVENT_BYTES = env.integer("KANIKOJOBS_MAX_EVENT_BYTES", 1_048_576, least=1024)
KANIKOJOBS_MAX_BUILD_TIMEOUT = int(env.duration("KANIKOJOBS_MAX_BUILD_TIMEOUT", "2h", least="1s").total_seconds())
# Django reads a request's body whole, up to this; a batch of events may be larger than one event.
DATA_UPLOAD_MAX_MEMORY_SIZE = max(16 * KANIKOJOBS_MAX_EVENT_BYTES, 2_621_440)

# --- The queue: Django-Q2 ---------------------------------------------------------------------------------------

KANIKOJOBS_WORKER_COUNT = env.integer("KANIKOJOBS_WORKER_COUNT", 5, least=1, most=1000)
KANIKOJOBS_MAX_RETRIES = env.integer("KANIKOJOBS_MAX_RETRIES", 3)
KANIKOJOBS_RETRY_DELAY = env.duration("KANIKOJOBS_RETRY_DELAY", "100ms", least="1ms")
KANIKOJOBS_MAX_QUEUE_SIZE = env.integer("KANIKOJOBS_MAX_QUEUE_SIZE", 100, least=1)
KANIKOJOBS_TASK_TIMEOUT = env.duration("KANIKOJOBS_TASK_TIMEOUT", "60s", least="5s")
KANIKOJOBS_LEASE = env.duration("KANIKOJOBS_LEASE", "90s", least="5s")
# Kaniko Jobs per task: a worker commits once for all of a task's, so larger ones cost less and finish later. A third of
# what a cluster holds: one task waits in Django-Q2's queue while the two of the next claim wait for room there.
KANIKOJOBS_TASK_SIZE = max(1, min(32, KANIKOJOBS_MAX_QUEUE_SIZE // 3))
KANIKOJOBS_CLAIM_SIZE = max(1, min(2 * KANIKOJOBS_TASK_SIZE, KANIKOJOBS_MAX_QUEUE_SIZE - KANIKOJOBS_TASK_SIZE))
Q_CLUSTER = {
    "name": "kanikojobs",
    "broker_class": "kanikojobs.queue.KanikoJobBroker",
    "orm": "default",
    "workers": KANIKOJOBS_WORKER_COUNT,
    # In tasks. With the claim that waits to be queued, a cluster holds up to KANIKOJOBS_MAX_QUEUE_SIZE Kaniko Jobs.
    "queue_limit": max(1, (KANIKOJOBS_MAX_QUEUE_SIZE - KANIKOJOBS_CLAIM_SIZE) // KANIKOJOBS_TASK_SIZE),
    "timeout": int(KANIKOJOBS_TASK_TIMEOUT.total_seconds()),
    "retry": int(KANIKOJOBS_LEASE.total_seconds()),
    # A task that fails is not run for ever: what may be tried again is decided and kept in our own rows.
    "max_attempts": 1,
    "ack_failures": True,
    "recycle": 5000,
    "save_limit": 250,
    "catch_up": False,
    "guard_cycle": 0.5,
    # The broker waits on LISTEN/NOTIFY itself; this is only how long Django-Q2's own ORM queue sleeps when empty.
    "poll": 0,
}

# --- Out: Kubernetes --------------------------------------------------------------------------------------------

KUBECONFIG = env.text("KUBECONFIG")
KANIKOJOBS_NAMESPACE = env.text("KANIKOJOBS_NAMESPACE", "kaniko-builds")
KANIKOJOBS_MAX_ACTIVE_JOBS = env.integer("KANIKOJOBS_MAX_ACTIVE_JOBS", 0)
KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = env.integer("KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY", 0)
KANIKOJOBS_CONCURRENCY_POLICY = env.choice(
    "KANIKOJOBS_CONCURRENCY_POLICY", "Queue", ("Queue", "Allow", "Forbid", "Replace")
)
KANIKOJOBS_KUBERNETES_TIMEOUT = env.duration("KANIKOJOBS_KUBERNETES_TIMEOUT", "10s", least="100ms")
# How often the watcher lists all Jobs and pods anew: the net under its watches.
KANIKOJOBS_WATCH_RESYNC = env.duration("KANIKOJOBS_WATCH_RESYNC", "5m", least="1s")
# Tell the outcome of every Kaniko Job as a CloudEvent on KANIKOJOBS_EXCHANGE, by its type as routing key.
KANIKOJOBS_OUTCOME_EVENTS = env.flag("KANIKOJOBS_OUTCOME_EVENTS", False)

# --- The build: what `kanikojobs.manifest` puts into every Job ------------------------------------------------------

KANIKOJOBS_KANIKO_IMAGE = env.text("KANIKOJOBS_KANIKO_IMAGE")
KANIKOJOBS_SOURCE_IMAGE = env.text("KANIKOJOBS_SOURCE_IMAGE")
KANIKOJOBS_BASE_REGISTRY = env.text("KANIKOJOBS_BASE_REGISTRY")
KANIKOJOBS_RUNTIMES = env.text("KANIKOJOBS_RUNTIMES")
KANIKOJOBS_DESTINATION = env.text("KANIKOJOBS_DESTINATION", "registry:5000/{third_party_id}/{parser_id}:{short_hash}")
KANIKOJOBS_ALLOWED_HOSTS = env.items("KANIKOJOBS_ALLOWED_HOSTS", "github.com,gitlab.com,bitbucket.org")
KANIKOJOBS_INSECURE_HOSTS = env.items("KANIKOJOBS_INSECURE_HOSTS")
KANIKOJOBS_ALLOWED_BUCKETS = env.items("KANIKOJOBS_ALLOWED_BUCKETS")
KANIKOJOBS_REGISTRY_SECRET = env.text("KANIKOJOBS_REGISTRY_SECRET")
KANIKOJOBS_GIT_SECRETS = env.mapping("KANIKOJOBS_GIT_SECRETS")
KANIKOJOBS_BUCKET_SECRET = env.text("KANIKOJOBS_BUCKET_SECRET")
KANIKOJOBS_SECRET_ENVIRONMENT = env.mapping("KANIKOJOBS_SECRET_ENVIRONMENT")
KANIKOJOBS_BUILD_ENVIRONMENT = env.mapping("KANIKOJOBS_BUILD_ENVIRONMENT")
KANIKOJOBS_CACHE = env.flag("KANIKOJOBS_CACHE", True)
KANIKOJOBS_CACHE_REPO = env.text("KANIKOJOBS_CACHE_REPO")
KANIKOJOBS_REGISTRY_MIRRORS = env.items("KANIKOJOBS_REGISTRY_MIRRORS")
KANIKOJOBS_INSECURE_REGISTRIES = env.items("KANIKOJOBS_INSECURE_REGISTRIES")
KANIKOJOBS_SKIP_TLS_VERIFY_REGISTRIES = env.items("KANIKOJOBS_SKIP_TLS_VERIFY_REGISTRIES")
KANIKOJOBS_KANIKO_ARGUMENTS = env.items("KANIKOJOBS_KANIKO_ARGUMENTS")
KANIKOJOBS_BUILD_RESOURCES = env.mapping("KANIKOJOBS_BUILD_RESOURCES")
KANIKOJOBS_SOURCE_RESOURCES = env.mapping("KANIKOJOBS_SOURCE_RESOURCES")
KANIKOJOBS_DEADLINE_ALLOWANCE = int(env.duration("KANIKOJOBS_DEADLINE_ALLOWANCE", "0s").total_seconds())
KANIKOJOBS_JOB_TTL = int(env.duration("KANIKOJOBS_JOB_TTL", "1h").total_seconds())
KANIKOJOBS_BACKOFF_LIMIT = env.integer("KANIKOJOBS_BACKOFF_LIMIT", 0)
KANIKOJOBS_SERVICE_ACCOUNT = env.text("KANIKOJOBS_SERVICE_ACCOUNT", "kaniko-builder")
KANIKOJOBS_IMAGE_PULL_SECRETS = env.items("KANIKOJOBS_IMAGE_PULL_SECRETS")
KANIKOJOBS_PRIORITY_CLASSES = env.mapping("KANIKOJOBS_PRIORITY_CLASSES")
KANIKOJOBS_NODE_SELECTOR = env.mapping("KANIKOJOBS_NODE_SELECTOR")
KANIKOJOBS_TOLERATIONS = env.json_list("KANIKOJOBS_TOLERATIONS")
KANIKOJOBS_RUNTIME_CLASS = env.text("KANIKOJOBS_RUNTIME_CLASS")
KANIKOJOBS_KUEUE_QUEUE = env.text("KANIKOJOBS_KUEUE_QUEUE")
KANIKOJOBS_USER_NAMESPACES = env.flag("KANIKOJOBS_USER_NAMESPACES", False)

# --- Retention: how long rows are kept; 0s is for ever -------------------------------------------------------------

KANIKOJOBS_KEEP_EVENTS = env.duration("KANIKOJOBS_KEEP_EVENTS", "90d")
KANIKOJOBS_KEEP_ATTEMPTS = env.duration("KANIKOJOBS_KEEP_ATTEMPTS", "30d")
KANIKOJOBS_KEEP_LOGS = env.duration("KANIKOJOBS_KEEP_LOGS", "30d")
KANIKOJOBS_KEEP_DEAD_LETTERS = env.duration("KANIKOJOBS_KEEP_DEAD_LETTERS", "90d")
KANIKOJOBS_KEEP_OUTBOX = env.duration("KANIKOJOBS_KEEP_OUTBOX", "7d")
KANIKOJOBS_KEEP_TALLIES = env.duration("KANIKOJOBS_KEEP_TALLIES", "400d")
KANIKOJOBS_KEEP_AUDIT = env.duration("KANIKOJOBS_KEEP_AUDIT", "730d")
KANIKOJOBS_PRUNE_AT = env.clock("KANIKOJOBS_PRUNE_AT", "03:30")

# --- Seen: REST -------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        # Token first: its challenge makes an anonymous call a 401, not a 403.
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["kanikojobs.api.permissions.MayView"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.UserRateThrottle",
        "rest_framework.throttling.AnonRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "user": env.rate("KANIKOJOBS_API_RATE", "600/min"),
        "anon": env.rate("KANIKOJOBS_API_ANON_RATE", "60/min"),
    },
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "kanikojobs",
    "DESCRIPTION": "The control room for event-driven image builds.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["kanikojobs.api.permissions.MayView"],
    # The docs page works offline and under the Content-Security-Policy: all of it is served from our static files.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # Two fields are called "state"; without this their types would be named by a hash.
    "ENUM_NAME_OVERRIDES": {
        "KanikoJobState": "kanikojobs.states.State",
        "DeadLetterState": "kanikojobs.models.DeadLetter.State",
        "FailureGroupState": "kanikojobs.models.FailureGroup.State",
        "ReplayRunState": "kanikojobs.models.ReplayRun.State",
    },
}
KANIKOJOBS_LIVENESS_FILE = env.text("KANIKOJOBS_LIVENESS_FILE")
KANIKOJOBS_METRICS_TOKEN = env.text("KANIKOJOBS_METRICS_TOKEN")
KANIKOJOBS_TRACE_URL = env.text("KANIKOJOBS_TRACE_URL")
if KANIKOJOBS_TRACE_URL and not re.fullmatch(r"https?://.*\{trace_id\}.*", KANIKOJOBS_TRACE_URL):
    env.fault(
        f'KANIKOJOBS_TRACE_URL="{KANIKOJOBS_TRACE_URL}" is no address with a place for the trace. '
        "Write for example https://traces.example/trace/{trace_id}."
    )
# A span for each batch, each call to create a Job and each build, by OpenTelemetry (kanikojobs.tracing).
KANIKOJOBS_TRACES = env.flag("KANIKOJOBS_TRACES", False) and _variables.get("OTEL_SDK_DISABLED", "").lower() != "true"
if KANIKOJOBS_TRACES and not any(distributions(name="opentelemetry-exporter-otlp-proto-http")):
    env.fault(
        "KANIKOJOBS_TRACES is on and OpenTelemetry is not installed. "
        "Run pip install -r deploy/requirements-traces.txt, or write 0."
    )

env.check()
