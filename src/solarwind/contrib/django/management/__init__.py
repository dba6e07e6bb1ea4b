"""What `manage.py` finds of the app."""
