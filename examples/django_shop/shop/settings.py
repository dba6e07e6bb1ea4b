"""The shop's settings."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("SHOP_DATA", BASE_DIR))

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "for development alone")
DEBUG = os.environ.get("SHOP_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]

INSTALLED_APPS = [
    "solarwind.contrib.django",
    "orders",
]

# One process, such as `manage.py runserver`, needs no more than a file. With SOLARWIND_URL=ws://127.0.0.1:7400 the
# processes that serve requests only fire, and `manage.py solarwind run` handles.
SOLARWIND = {
    "URL": os.environ.get("SOLARWIND_URL", f"sqlite:///{DATA_DIR}/wind.db"),
    "GRACE": 5,
    "RELAY": ["default"],
}

TASKS = {"default": {"BACKEND": "solarwind.contrib.django.tasks.SolarWindBackend", "OPTIONS": {"outbox": "default"}}}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "shop.db",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
TIME_ZONE = "UTC"
