"""Processes that are killed at every point between a handler's return and the confirmation of its settle."""
