from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('kanikojobs', '0006_pauses_by_index'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='kanikojob',
            options={
                'permissions': [
                    ('cancel_kanikojob', 'Can cancel Kaniko Jobs'),
                    ('retry_kanikojob', 'Can retry Kaniko Jobs'),
                ],
                'verbose_name': 'Kaniko Job',
            },
        ),
    ]
