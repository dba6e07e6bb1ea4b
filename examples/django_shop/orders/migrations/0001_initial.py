"""The table of orders."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("number", models.IntegerField(primary_key=True, serialize=False)),
                ("product", models.CharField(max_length=100)),
                ("confirmed", models.IntegerField(default=0)),
                ("mailed", models.IntegerField(default=0)),
                ("seen", models.IntegerField(default=0)),
            ],
        ),
    ]
