"""Django's admin, with our own site as the default one."""

from django.contrib.admin.apps import AdminConfig


class ProjectAdminConfig(AdminConfig):
    # Not in kanikojobs.admin: Django makes the site while it imports that package, which would come round twice.
    default_site = "kanikojobs.admin_site.KanikoJobsAdminSite"
