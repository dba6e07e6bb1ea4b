"""The command `manage.py solarwind`."""
