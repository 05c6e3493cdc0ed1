"""Routes under `/async-jobs/`."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from kanikojobs.api import (
    consumer,
    dead_letters,
    failure_groups,
    flows,
    job_actions,
    replay_rules,
    replays,
    search,
    stats,
    views,
)

router = SimpleRouter(trailing_slash=False)
router.register("events", views.EventViewSet)
router.register("jobs", views.KanikoJobViewSet)
router.register("dead-letters", dead_letters.DeadLetterViewSet)
router.register("failure-groups", failure_groups.FailureGroupViewSet)
router.register("replays", replays.ReplayRunViewSet)
router.register("replay-rules", replay_rules.ReplayRuleViewSet)

urlpatterns = [
    path("stats", stats.StatsView.as_view(), name="stats"),
    path("flows", flows.FlowsView.as_view(), name="flows"),
    path("search", search.SearchView.as_view(), name="search"),
    path("consumer", consumer.ConsumerView.as_view(), name="consumer"),
    path("consumer/pause", consumer.PauseView.as_view(), name="consumer-pause"),
    path("consumer/resume", consumer.ResumeView.as_view(), name="consumer-resume"),
    path("jobs/<int:pk>/retry", job_actions.RetryView.as_view(), name="job-retry"),
    path("jobs/<int:pk>/cancel", job_actions.CancelView.as_view(), name="job-cancel"),
    path("jobs/<int:pk>/logs", job_actions.LogsView.as_view(), name="job-logs"),
    path("", include(router.urls)),
]
