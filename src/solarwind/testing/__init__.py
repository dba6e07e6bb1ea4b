"""The testing kit: a clock that tests move, a pytest fixture, and the contract that every engine must keep."""

from .clock import FakeClock

__all__ = ["FakeClock"]
