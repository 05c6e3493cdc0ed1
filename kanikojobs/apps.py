"""Django's entry into the application."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class KanikoJobsConfig(AppConfig):
    name = "kanikojobs"
    verbose_name = "Kaniko Jobs"
    default = True

    def ready(self) -> None:
        from kanikojobs import checks
        from kanikojobs.retention.schedule import keep_schedule

        checks.register_all()
        post_migrate.connect(keep_schedule, sender=self, dispatch_uid="kanikojobs-retention")
