"""The tables of the outbox and of `once`, by `manage.py migrate`."""
