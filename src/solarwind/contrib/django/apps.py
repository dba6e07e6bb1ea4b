"""The app: it checks the settings, imports each app's `events.py`, and starts `wind` with requests."""

from __future__ import annotations

import sys

from django.apps import AppConfig, apps
from django.core import checks
from django.core.signals import request_started
from django.utils.module_loading import autodiscover_modules, import_string

from ...handlers import Handlers
from . import conf, service

_TASKS = f"{__package__}.tasks"


class SolarWindConfig(AppConfig):
    """`solarwind.contrib.django` in `INSTALLED_APPS`."""

    name = "solarwind.contrib.django"
    label = "solarwind"
    verbose_name = "Solar Wind"

    def ready(self) -> None:
        """Register all handlers, and have requests start `wind`."""
        from . import wind
        from .checks import check_settings

        checks.register(check_settings)
        discover(wind)
        if _has_tasks():
            from . import tasks

            tasks.register()
        request_started.connect(wind._begin_with_request, dispatch_uid="solarwind")


def discover(wind: service.DjangoSolarWind) -> None:
    """Import the module `events` of each app, and include the groups of handlers that it has. A group that is part of
    another, or that was included already, is not included again."""
    name = wind.settings.events
    autodiscover_modules(name)
    modules = [sys.modules.get(f"{each.name}.{name}") for each in apps.get_app_configs()]
    found = {id(group): group for module in modules for group in vars(module or object).values() if _is_group(group)}
    groups = list(found.values())
    for group in groups:
        if not any(group is not other and group._reaches(other) for other in groups) and not group._reaches(wind):
            wind.include(group)


def _has_tasks() -> bool:
    """Return whether a backend of `TASKS` is that of Solar Wind, or derived from it: others need not have what it
    imports."""
    imported = [import_string(path) for path in conf.backends().values()]
    return any(each.__module__ == _TASKS for kind in imported for each in getattr(kind, "__mro__", ()))


def _is_group(value: object) -> bool:
    return isinstance(value, Handlers)
