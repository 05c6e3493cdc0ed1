"""The second half of 0016: what reads whole tables, without keeping anybody from writing."""

import django.contrib.postgres.operations
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('kanikojobs', '0016_both_ways'),
    ]

    operations = [
        django.contrib.postgres.operations.ValidateConstraint(
            model_name='jobstartevent',
            name='event_other_way_has_a_first',
        ),
        django.contrib.postgres.operations.ValidateConstraint(
            model_name='deadletter',
            name='deadletter_cause_known',
        ),
        django.contrib.postgres.operations.AddIndexConcurrently(
            model_name='jobstartevent',
            index=models.Index(condition=models.Q(('origin', 'direct'), ('other_way_at__isnull', True)), fields=['received_at'], name='event_only_direct'),
        ),
    ]
