"""The testing kit: a clock that goes when told, a pytest fixture, and the contract that every engine must keep."""

from .clock import FakeClock

__all__ = ["FakeClock"]
