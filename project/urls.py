"""Every route. Each needs a log-in by default (`LoginRequiredMiddleware`); the exceptions say why."""

from django.contrib import admin
from django.urls import include, path

from kanikojobs import health, sink

urlpatterns = [
    path("", sink.front_door),
    path("events", sink.receive),
    path("events/broker", sink.receive_from_broker),
    path("events/undelivered", sink.receive_undelivered),
    path("health", health.health),
    path("ready", health.ready),
    path("metrics", health.metrics),
    path("metrics/web", health.web_metrics),
    path("async-jobs/", include("kanikojobs.api.urls")),
    path("api/", include("kanikojobs.api.documentation")),
    path("admin/", admin.site.urls),
]
