"""Whether an event came by both ways, and dead letters that Knative could not deliver.

Nothing here holds a lock while it reads a table: what is checked of the rows that are there is checked in the next one.
"""

import django.contrib.postgres.operations
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kanikojobs', '0015_results_in_turn'),
    ]

    operations = [
        migrations.AddField(
            model_name='jobstartevent',
            name='other_way_at',
            field=models.DateTimeField(blank=True, help_text='When it first came by the other way too: over HTTP where its origin is RabbitMQ, and the reverse.', null=True, verbose_name='came the other way'),
        ),
        django.contrib.postgres.operations.AddConstraintNotValid(
            model_name='jobstartevent',
            constraint=models.CheckConstraint(condition=models.Q(('other_way_at__isnull', True), ('origin__in', ['queue', 'direct']), _connector='OR'), name='event_other_way_has_a_first'),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='cause',
            field=models.CharField(choices=[('invalid', 'invalid event'), ('expired', 'expired in the queue'), ('maxlen', 'dropped from a full queue'), ('delivery-limit', 'delivered too often'), ('rejected', 'rejected by a consumer'), ('creation-failed', 'its Job could not be created'), ('build-failed', 'its build failed'), ('identity-conflict', 'same identity, other content'), ('undelivered', 'Knative could not deliver it')], max_length=32),
        ),
        migrations.RemoveConstraint(
            model_name='deadletter',
            name='deadletter_cause_known',
        ),
        django.contrib.postgres.operations.AddConstraintNotValid(
            model_name='deadletter',
            constraint=models.CheckConstraint(condition=models.Q(('cause__in', ['invalid', 'expired', 'maxlen', 'delivery-limit', 'rejected', 'creation-failed', 'build-failed', 'identity-conflict', 'undelivered'])), name='deadletter_cause_known'),
        ),
    ]
