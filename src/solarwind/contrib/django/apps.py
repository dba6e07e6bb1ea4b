"""The app: it checks the settings, imports each app's `events.py`, and starts `wind` with requests."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import msgspec
from django.apps import AppConfig, apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started

from ...handlers import Handlers
from . import conf, service


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
        if conf.backends():
            from . import tasks

            tasks.register()
        request_started.connect(wind._begin_with_request, dispatch_uid="solarwind")


def discover(wind: service.DjangoSolarWind) -> None:
    """Import the module `events` of each app, and include the groups of handlers that it has. A group that is part of
    another, or that was included already, is not included again. Raise `ImproperlyConfigured` where one cannot be
    imported."""
    name = wind.settings.events
    modules = [module for each in apps.get_app_configs() if (module := _module_of(each, name))]
    if not modules and name != conf.Settings().events:
        problem = f"expected the name of a module of an app as {conf.NAME}['EVENTS'], got {name!r}, which no app has"
        wind.settings = msgspec.structs.replace(wind.settings, problems=(*wind.settings.problems, problem))
    found = {id(group): group for module in modules for group in vars(module).values() if _is_group(group)}
    groups = list(found.values())
    for group in groups:
        if not any(group is not other and group._reaches(other) for other in groups) and not group._reaches(wind):
            wind.include(group)


def _module_of(app: AppConfig, name: str) -> ModuleType | None:
    """Return the module of an app, or None where it has none. Raise `ImproperlyConfigured`."""
    path = f"{app.name}.{name}"
    try:
        if find_spec(path) is None:
            return None
    except ModuleNotFoundError:  # the app is a module itself
        return None
    try:
        return import_module(path)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ImproperlyConfigured(
            f"expected {path}, the handlers of app {app.label!r}, to import, got {what}"
        ) from error


def _is_group(value: object) -> bool:
    return isinstance(value, Handlers)
