from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kanikojobs', '0004_replay'),
    ]

    operations = [
        migrations.AddField(
            model_name='kanikojob',
            name='may_exist',
            field=models.BooleanField(db_default=False, default=False, help_text='Its Job may be in the cluster although no answer said so: while it waits for the next try it keeps its place under the caps.'),
        ),
        migrations.AddIndex(
            model_name='kanikojob',
            index=models.Index(condition=models.Q(('may_exist', True), ('state', 'queued')), fields=['third_party_id'], name='kanikojob_keeps_its_place'),
        ),
    ]
