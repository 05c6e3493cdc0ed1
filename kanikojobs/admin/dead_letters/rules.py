"""Standing rules: made, changed, turned on and off by those who may; never deleted, because runs point to them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from kanikojobs import audit
from kanikojobs.admin.acting import author_of
from kanikojobs.models import ReplayRule
from kanikojobs.replay import rules
from kanikojobs.transience import TransientClass


class RuleForm(forms.ModelForm):
    transient_class = forms.ChoiceField(choices=TransientClass.choices, label="Passing trouble")
    reason = forms.CharField(max_length=audit.MOST_REASON_CHARACTERS, label="Why")
    most_times = forms.IntegerField(
        min_value=rules.FEWEST_TIMES,
        max_value=rules.MOST_TIMES,
        initial=3,
        help_text="Kaniko Jobs per event, the first included, after which a person has to look.",
    )
    rate = forms.FloatField(
        min_value=rules.SLOWEST_RATE, max_value=rules.FASTEST_RATE, initial=1, help_text="Dead letters per second."
    )
    max_failure_rate = forms.FloatField(
        min_value=0, max_value=100, initial=50, help_text="Percent that may fail again before it stops."
    )

    class Meta:
        model = ReplayRule
        fields = ("name", "enabled", "transient_class", "delay", "rate", "max_failure_rate", "most_times", "reason")


@admin.register(ReplayRule)
class ReplayRuleAdmin(admin.ModelAdmin):
    form = RuleForm
    list_display = ("name", "enabled", "transient_class", "delay", "rate", "most_times", "made_by", "made_at")
    list_filter = ("enabled",)
    actions: Any = None

    def save_model(self, request: HttpRequest, obj: ReplayRule, form: Any, change: bool) -> None:
        rules.save(obj, author=author_of(request))

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
