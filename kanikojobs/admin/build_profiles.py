"""What operators have decided for single third parties: edited here, with Django's own history of who changed what."""

from django.contrib import admin

from kanikojobs.models import BuildProfile


@admin.register(BuildProfile)
class BuildProfileAdmin(admin.ModelAdmin):
    list_display = ("third_party_id", "destination", "resources", "allowed_hosts", "max_active_jobs")
    search_fields = ("third_party_id__exact",)
    search_help_text = "A whole id of a third party."
    ordering = ("third_party_id",)
    show_full_result_count = False
