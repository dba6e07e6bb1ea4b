"""For gunicorn and its like: `gunicorn config.wsgi`. The wind starts with a process's first request."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()
