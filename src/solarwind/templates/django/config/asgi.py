"""For uvicorn and its like: `uvicorn config.asgi:application`. The wind starts and stops with the lifespan."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

django = get_asgi_application()

from solarwind.contrib.django import wind  # noqa: E402 - it needs Django's settings

application = wind.asgi(django)
