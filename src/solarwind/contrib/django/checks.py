"""Django's checks: what is wrong with the settings, before anything runs."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return an error for each setting that is wrong: `manage.py check`."""
    from . import conf, wind

    of_tasks = conf.task_problems()
    if conf.backends():
        from . import tasks

        of_tasks += tasks.problems()
    wrong = [Error(problem, id="solarwind.E001") for problem in wind.settings.problems]
    return [*wrong, *(Error(problem, id="solarwind.E002") for problem in of_tasks)]
