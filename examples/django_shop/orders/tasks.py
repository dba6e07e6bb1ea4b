"""The shop's tasks, which Solar Wind runs. From Django 6 on it is `from django.tasks import task`."""

from django.db.models import F

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from .models import Order


@task
def mail(number: int) -> None:
    Order.objects.filter(number=number).update(mailed=F("mailed") + 1)
