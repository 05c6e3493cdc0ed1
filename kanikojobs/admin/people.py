"""Who may log in: Django's own pages, on which nobody can change when somebody came."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

admin.site.unregister(User)


@admin.register(User)
class PersonAdmin(UserAdmin):
    # Each would be two boxes under one label, of which a screen reader knows neither.
    readonly_fields = ("last_login", "date_joined")
