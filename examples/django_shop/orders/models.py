"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """An order, and what became of it."""

    number = models.IntegerField(primary_key=True)
    product = models.CharField(max_length=100)
    confirmed = models.IntegerField(default=0)
    mailed = models.IntegerField(default=0)
    seen = models.IntegerField(default=0)
