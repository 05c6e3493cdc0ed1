from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kanikojobs', '0010_outcome_event'),
    ]

    operations = [
        migrations.CreateModel(
            name='BuildProfile',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('third_party_id', models.CharField(max_length=128, unique=True, verbose_name='third party ID')),
                ('destination', models.CharField(blank=True, db_default='', default='', help_text='As KANIKOJOBS_DESTINATION: a template for the image.', max_length=512)),
                ('resources', models.CharField(blank=True, db_default='', default='', help_text='As KANIKOJOBS_BUILD_RESOURCES, for example memory_limit=8Gi,cpu_limit=4.', max_length=512)),
                ('allowed_hosts', models.CharField(blank=True, db_default='', default='', help_text='As KANIKOJOBS_ALLOWED_HOSTS, for example github.com/notifi,git.example.com:8443.', max_length=2048)),
                ('max_active_jobs', models.PositiveIntegerField(blank=True, help_text='As KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY: 0 is no cap.', null=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('third_party_id', ''), _negated=True), name='buildprofile_names_its_third_party')],
            },
        ),
    ]
