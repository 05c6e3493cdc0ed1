"""Routes under `/async-jobs/`."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from kanikojobs.api import views

router = SimpleRouter(trailing_slash=False)
router.register("events", views.EventViewSet)
router.register("jobs", views.KanikoJobViewSet)
router.register("dead-letters", views.DeadLetterViewSet)

urlpatterns = [
    path("stats", views.StatsView.as_view(), name="stats"),
    path("", include(router.urls)),
]
