"""Routes under `/async-jobs/`."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from kanikojobs.api import consumer, views

router = SimpleRouter(trailing_slash=False)
router.register("events", views.EventViewSet)
router.register("jobs", views.KanikoJobViewSet)
router.register("dead-letters", views.DeadLetterViewSet)

urlpatterns = [
    path("stats", views.StatsView.as_view(), name="stats"),
    path("consumer", consumer.ConsumerView.as_view(), name="consumer"),
    path("consumer/pause", consumer.PauseView.as_view(), name="consumer-pause"),
    path("consumer/resume", consumer.ResumeView.as_view(), name="consumer-resume"),
    path("", include(router.urls)),
]
