# The rows of failure groups and replays, and what an operator's action was done to.

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kanikojobs', '0003_after_creation'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='FailureGroup',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('fingerprint', models.CharField(max_length=64)),
                ('cause', models.CharField(help_text='As of its dead letters.', max_length=32)),
                ('signature', models.TextField(help_text='The message with everything masked that differs between two of its kind.')),
                ('sample', models.TextField(help_text='What the last one said, word for word.')),
                ('transient_class', models.CharField(blank=True, db_default='', help_text='What kind of passing trouble it is, if it is one.', max_length=32)),
                ('state', models.CharField(choices=[('new', 'new'), ('ongoing', 'ongoing'), ('regressed', 'regressed after a replay'), ('settled', 'settled')], db_default='new', default='new', max_length=16)),
                ('deaths', models.BigIntegerField(db_default=0, default=0, help_text='How often it happened, ever.')),
                ('open_letters', models.BigIntegerField(db_default=0, default=0, help_text='Dead letters that wait for somebody.')),
                ('third_parties', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=128), db_default=[], default=list, size=None)),
                ('more_third_parties', models.BooleanField(db_default=False, default=False)),
                ('first_seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('last_seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('replayed_at', models.DateTimeField(blank=True, help_text='When one of its letters was last replayed.', null=True)),
                ('replayed', models.BooleanField(db_default=False, default=False, help_text='Whether one was replayed since it last happened.')),
                ('note', models.TextField(blank=True, db_default='')),
            ],
        ),
        migrations.CreateModel(
            name='FailureGroupHour',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('deaths', models.BigIntegerField(db_default=0, default=0)),
            ],
        ),
        migrations.CreateModel(
            name='ReplayItem',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField(help_text='In the order of first arrival, from 1.')),
                ('body', models.BinaryField(blank=True, help_text='As a person mended it; the letter keeps the original.', null=True)),
                ('outcome', models.CharField(choices=[('pending', 'waits'), ('queued', 'queued'), ('duplicate', 'same event as another one in this run'), ('already-built', 'built already'), ('active', 'has an active Job'), ('invalid', 'still invalid'), ('not-ours', 'not for this system'), ('conflict', 'identity taken by other content'), ('gone', 'settled by somebody else meanwhile'), ('withdrawn', 'run cancelled before its turn')], db_default='pending', default='pending', max_length=16)),
                ('result', models.CharField(blank=True, choices=[('', 'not known yet'), ('passed', 'got past where it died'), ('failed-again', 'failed again'), ('cancelled', 'cancelled')], db_default='', default='', max_length=16)),
                ('detail', models.TextField(blank=True, db_default='')),
                ('at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='ReplayRule',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=128)),
                ('enabled', models.BooleanField(db_default=False, default=False)),
                ('transient_class', models.CharField(help_text='Of the groups that it replays.', max_length=32)),
                ('delay', models.PositiveIntegerField(default=300, help_text='Seconds to wait after a death.')),
                ('rate', models.FloatField(default=1.0, help_text='Dead letters per second.')),
                ('max_failure_rate', models.FloatField(default=50.0, help_text='Percent that may fail again before it stops.')),
                ('most_times', models.PositiveSmallIntegerField(default=3, help_text='Kaniko Jobs per event, the first included, after which a person has to look; at least 2.')),
                ('made_by', models.CharField(max_length=150)),
                ('reason', models.CharField(max_length=500)),
                ('made_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('next_look_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name='ReplayRun',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('state', models.CharField(choices=[('running', 'running'), ('probing', 'waiting for its probe'), ('settling', 'waiting for the last results'), ('paused', 'paused'), ('finished', 'finished'), ('cancelled', 'cancelled')], db_default='running', default='running', max_length=16)),
                ('selection', models.JSONField(help_text='The filter that chose the dead letters.')),
                ('cut_off', models.DateTimeField(help_text='Nothing that died after this is in it.')),
                ('rate', models.FloatField(blank=True, help_text='Dead letters per second; empty for as fast as it goes.', null=True)),
                ('batch', models.PositiveIntegerField(db_default=100, default=100, help_text='Dead letters per transaction at most.')),
                ('probe', models.PositiveIntegerField(db_default=0, default=0, help_text='How many go first, to see.')),
                ('max_failure_rate', models.FloatField(blank=True, help_text='Percent that may fail again before it pauses by itself.', null=True)),
                ('author_name', models.CharField(max_length=150)),
                ('reason', models.CharField(max_length=500)),
                ('note', models.CharField(blank=True, db_default='', help_text='Why it is paused.', max_length=500)),
                ('started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('next_step_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When it is due again.')),
                ('settle_until', models.DateTimeField(blank=True, help_text='When it waits for results no longer.', null=True)),
                ('total', models.PositiveIntegerField(db_default=0, default=0)),
                ('handled', models.PositiveIntegerField(db_default=0, default=0)),
                ('queued', models.PositiveIntegerField(db_default=0, default=0)),
                ('duplicate', models.PositiveIntegerField(db_default=0, default=0)),
                ('already_built', models.PositiveIntegerField(db_default=0, default=0)),
                ('active', models.PositiveIntegerField(db_default=0, default=0)),
                ('invalid', models.PositiveIntegerField(db_default=0, default=0)),
                ('not_ours', models.PositiveIntegerField(db_default=0, default=0)),
                ('conflict', models.PositiveIntegerField(db_default=0, default=0)),
                ('gone', models.PositiveIntegerField(db_default=0, default=0)),
                ('withdrawn', models.PositiveIntegerField(db_default=0, default=0)),
                ('passed', models.PositiveIntegerField(db_default=0, default=0, help_text='Of the queued: past where they died.')),
                ('failed_again', models.PositiveIntegerField(db_default=0, default=0, help_text='Of the queued.')),
                ('forgiven_failures', models.PositiveIntegerField(db_default=0, default=0)),
                ('forgiven_judged', models.PositiveIntegerField(db_default=0, default=0)),
            ],
        ),
        migrations.AlterModelOptions(
            name='deadletter',
            options={'permissions': [('replay_deadletter', 'Can replay dead letters, and pause, resume and cancel replays'), ('edit_deadletter', 'Can mend the body of a dead letter for its replay'), ('discard_deadletter', 'Can discard and restore dead letters'), ('view_secrets_deadletter', 'Can see secrets in dead letters')]},
        ),
        migrations.RemoveConstraint(
            model_name='operatoraction',
            name='operatoraction_kind_known',
        ),
        migrations.RemoveConstraint(
            model_name='operatoraction',
            name='operatoraction_via_known',
        ),
        migrations.AddField(
            model_name='deadletter',
            name='arrived_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text='When what it asks for was first handed over.'),
        ),
        migrations.AddField(
            model_name='deadletter',
            name='parser_id',
            field=models.CharField(blank=True, db_default='', help_text='As far as it could be read.', max_length=128, verbose_name='parser ID'),
        ),
        migrations.AddField(
            model_name='deadletter',
            name='settled_at',
            field=models.DateTimeField(blank=True, help_text='When it was replayed or discarded.', null=True),
        ),
        migrations.AddField(
            model_name='deadletter',
            name='third_party_id',
            field=models.CharField(blank=True, db_default='', help_text='As far as it could be read.', max_length=128, verbose_name='third party ID'),
        ),
        migrations.AddField(
            model_name='operatoraction',
            name='detail',
            field=models.JSONField(db_default={}, default=dict),
        ),
        migrations.AddField(
            model_name='operatoraction',
            name='outcome',
            field=models.CharField(db_default='done', default='done', max_length=64),
        ),
        migrations.AddField(
            model_name='operatoraction',
            name='target_id',
            field=models.CharField(blank=True, db_default='', max_length=64, verbose_name='target ID'),
        ),
        migrations.AddField(
            model_name='operatoraction',
            name='target_type',
            field=models.CharField(blank=True, db_default='', help_text="The model's name in lower case; empty for the system.", max_length=64),
        ),
        migrations.AddField(
            model_name='operatoraction',
            name='user',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='operator_actions', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='operatoraction',
            name='kind',
            field=models.CharField(choices=[('pause-consumer', 'paused consuming'), ('resume-consumer', 'resumed consuming'), ('retry-job', 'retried a Kaniko Job'), ('cancel-job', 'cancelled a Kaniko Job'), ('replay', 'started a replay'), ('edit-and-replay', 'mended and replayed a dead letter'), ('pause-replay', 'paused a replay'), ('resume-replay', 'resumed a replay'), ('cancel-replay', 'cancelled a replay'), ('discard', 'discarded dead letters'), ('restore', 'restored dead letters'), ('note-group', 'took note of a failure group'), ('change-rule', 'changed a replay rule')], max_length=32),
        ),
        migrations.AlterField(
            model_name='operatoraction',
            name='via',
            field=models.CharField(choices=[('admin', 'admin'), ('api', 'API'), ('command', 'command line'), ('rule', 'standing rule')], max_length=16),
        ),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['arrived_at', 'id'], name='deadletter_open'),
        ),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['fingerprint', 'arrived_at', 'id'], name='deadletter_open_of_group'),
        ),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('third_party_id', ''), _negated=True), fields=['third_party_id', 'parser_id', 'arrived_at'], name='deadletter_of_third_party'),
        ),
        migrations.AddIndex(
            model_name='operatoraction',
            index=models.Index(fields=['target_type', 'target_id', 'id'], name='operatoraction_by_target'),
        ),
        migrations.AddConstraint(
            model_name='operatoraction',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['pause-consumer', 'resume-consumer', 'retry-job', 'cancel-job', 'replay', 'edit-and-replay', 'pause-replay', 'resume-replay', 'cancel-replay', 'discard', 'restore', 'note-group', 'change-rule'])), name='operatoraction_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='operatoraction',
            constraint=models.CheckConstraint(condition=models.Q(('via__in', ['admin', 'api', 'command', 'rule'])), name='operatoraction_via_known'),
        ),
        migrations.AddField(
            model_name='failuregroup',
            name='assignee',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='failure_groups', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='failuregrouphour',
            name='group',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='hours', to='kanikojobs.failuregroup'),
        ),
        migrations.AddField(
            model_name='replayitem',
            name='event',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='replay_items', to='kanikojobs.jobstartevent'),
        ),
        migrations.AddField(
            model_name='replayitem',
            name='kaniko_job',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='replay_items', to='kanikojobs.kanikojob'),
        ),
        migrations.AddField(
            model_name='replayitem',
            name='letter',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='replay_items', to='kanikojobs.deadletter'),
        ),
        migrations.AddConstraint(
            model_name='replayrule',
            constraint=models.UniqueConstraint(fields=('name',), name='replayrule_name_once'),
        ),
        migrations.AddConstraint(
            model_name='replayrule',
            constraint=models.CheckConstraint(condition=models.Q(('max_failure_rate__gte', 0), ('max_failure_rate__lte', 100), ('most_times__gte', 2), ('rate__gt', 0)), name='replayrule_is_bounded'),
        ),
        migrations.AddConstraint(
            model_name='replayrule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('made_by', ''), _negated=True), models.Q(('reason', ''), _negated=True)), name='replayrule_says_who_and_why'),
        ),
        migrations.AddField(
            model_name='replayrun',
            name='author',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='replay_runs', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='replayrun',
            name='rule',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='runs', to='kanikojobs.replayrule'),
        ),
        migrations.AddField(
            model_name='replayitem',
            name='run',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='items', to='kanikojobs.replayrun'),
        ),
        migrations.AddIndex(
            model_name='failuregroup',
            index=models.Index(fields=['last_seen_at'], name='failuregroup_last_seen'),
        ),
        migrations.AddIndex(
            model_name='failuregroup',
            index=models.Index(fields=['first_seen_at'], name='failuregroup_first_seen'),
        ),
        migrations.AddIndex(
            model_name='failuregroup',
            index=models.Index(fields=['open_letters'], name='failuregroup_open'),
        ),
        migrations.AddIndex(
            model_name='failuregroup',
            index=models.Index(condition=models.Q(('transient_class', ''), _negated=True), fields=['transient_class'], name='failuregroup_transient'),
        ),
        migrations.AddConstraint(
            model_name='failuregroup',
            constraint=models.UniqueConstraint(fields=('fingerprint',), name='failuregroup_once'),
        ),
        migrations.AddConstraint(
            model_name='failuregroup',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['new', 'ongoing', 'regressed', 'settled'])), name='failuregroup_state_known'),
        ),
        migrations.AddConstraint(
            model_name='failuregroup',
            constraint=models.CheckConstraint(condition=models.Q(('deaths__gte', 0), ('open_letters__gte', 0)), name='failuregroup_counts_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='failuregrouphour',
            constraint=models.UniqueConstraint(fields=('group', 'hour'), name='failuregrouphour_once'),
        ),
        migrations.AddIndex(
            model_name='replayrun',
            index=models.Index(condition=models.Q(('state__in', ['running', 'probing', 'settling'])), fields=['next_step_at'], name='replayrun_due'),
        ),
        migrations.AddConstraint(
            model_name='replayrun',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['running', 'probing', 'settling', 'paused', 'finished', 'cancelled'])), name='replayrun_state_known'),
        ),
        migrations.AddConstraint(
            model_name='replayrun',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', False), ('state__in', ['finished', 'cancelled'])), models.Q(models.Q(('state__in', ['finished', 'cancelled']), _negated=True), ('finished_at__isnull', True)), _connector='OR'), name='replayrun_finished_has_its_time'),
        ),
        migrations.AddConstraint(
            model_name='replayrun',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('author_name', ''), _negated=True), models.Q(('reason', ''), _negated=True)), name='replayrun_says_who_and_why'),
        ),
        migrations.AddConstraint(
            model_name='replayrun',
            constraint=models.CheckConstraint(condition=models.Q(('rate__isnull', True), ('rate__gt', 0), _connector='OR'), name='replayrun_rate_above_0'),
        ),
        migrations.AddConstraint(
            model_name='replayrun',
            constraint=models.CheckConstraint(condition=models.Q(('batch__gte', 1)), name='replayrun_batch_at_least_1'),
        ),
        migrations.AddIndex(
            model_name='replayitem',
            index=models.Index(condition=models.Q(('outcome', 'pending')), fields=['run', 'position'], name='replayitem_pending'),
        ),
        migrations.AddIndex(
            model_name='replayitem',
            index=models.Index(condition=models.Q(('outcome', 'queued'), ('result', '')), fields=['run'], name='replayitem_unsettled'),
        ),
        migrations.AddConstraint(
            model_name='replayitem',
            constraint=models.UniqueConstraint(fields=('run', 'position'), name='replayitem_position_once'),
        ),
        migrations.AddConstraint(
            model_name='replayitem',
            constraint=models.UniqueConstraint(condition=models.Q(('outcome', 'pending')), fields=('letter',), name='replayitem_letter_waits_in_one_run'),
        ),
        migrations.AddConstraint(
            model_name='replayitem',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('at__isnull', True), ('outcome', 'pending')), models.Q(models.Q(('outcome', 'pending'), _negated=True), ('at__isnull', False)), _connector='OR'), name='replayitem_handled_has_its_time'),
        ),
        migrations.AddConstraint(
            model_name='replayitem',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['pending', 'queued', 'duplicate', 'already-built', 'active', 'invalid', 'not-ours', 'conflict', 'gone', 'withdrawn'])), name='replayitem_outcome_known'),
        ),
        migrations.AddConstraint(
            model_name='replayitem',
            constraint=models.CheckConstraint(condition=models.Q(('result__in', ['', 'passed', 'failed-again', 'cancelled'])), name='replayitem_result_known'),
        ),
    ]
