"""The settings of project-name."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = "for development alone" if DEBUG else os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")

INSTALLED_APPS = [
    "solarwind.contrib.django",
    "orders",
]

# One process, such as `manage.py runserver`, needs no more than a file. With SOLARWIND_URL=ws://127.0.0.1:7400 the
# processes that serve requests only fire, and `manage.py solarwind run` handles.
SOLARWIND = {
    "URL": os.environ.get("SOLARWIND_URL", f"sqlite:///{BASE_DIR}/wind.db"),
    "GRACE": 5,
    "RELAY": ["default"],  # events of the outbox are fired by this process
}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "project-name.db",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
TIME_ZONE = "UTC"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {"django": {"level": "INFO"}},  # without a handler of its own, which would write each line again
}
