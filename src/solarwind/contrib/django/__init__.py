"""Django: an app with the project's one `wind`, in the settings `SOLARWIND`, and the command `manage.py solarwind`.

    from solarwind.contrib.django import wind

`wind` is made when it is first asked for, so that this package may stand in `INSTALLED_APPS` before there are settings.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import DjangoSolarWind

    wind: DjangoSolarWind

__all__ = ["wind"]

_making = threading.Lock()


def __getattr__(name: str) -> Any:
    if name != "wind":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .service import DjangoSolarWind

    here = globals()
    with _making:
        if "wind" not in here:
            here["wind"] = DjangoSolarWind()
    return here["wind"]
