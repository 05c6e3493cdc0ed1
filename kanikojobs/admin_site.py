"""The admin site: its titles, and that nothing of Django-Q2 appears in it."""

from typing import Any

from django.contrib.admin import AdminSite
from django.db.models import Model


class KanikoJobsAdminSite(AdminSite):
    site_header = "kanikojobs"
    site_title = "kanikojobs"
    index_title = "Control room"
    site_url = None

    def register(self, model_or_iterable: Any, *args: Any, **options: Any) -> None:
        models: list[type[Model]] = (
            [model_or_iterable] if isinstance(model_or_iterable, type) else list(model_or_iterable)
        )
        ours = [model for model in models if model._meta.app_label != "django_q"]
        if ours:
            super().register(ours, *args, **options)
