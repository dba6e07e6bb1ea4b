"""What is kept of orders."""

from django.db import models


class Order(models.Model):
    """An order, and whether it was confirmed."""

    number = models.IntegerField(primary_key=True)
    product = models.CharField(max_length=100)
    confirmed = models.BooleanField(default=False)
