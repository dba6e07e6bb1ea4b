"""For tests with pytest-django: the project's `wind`, in memory."""

from solarwind.testing.django_fixtures import wind, wind_clock

__all__ = ["wind", "wind_clock"]
