"""Django's entry into the application."""

from django.apps import AppConfig


class KanikoJobsConfig(AppConfig):
    name = "kanikojobs"
    verbose_name = "Kaniko Jobs"
    default = True

    def ready(self) -> None:
        from kanikojobs import checks

        checks.register_all()
