"""What the command line runs: the project's `wind`, with Django set up, in a process for its handlers.

    DJANGO_SETTINGS_MODULE=shop.settings solarwind run solarwind.contrib.django.entry:wind

`manage.py solarwind run` is the same."""

from __future__ import annotations

import django
from django.apps import apps

if not apps.ready:
    django.setup()

from . import wind

__all__ = ["wind"]

wind.handles_here = True
