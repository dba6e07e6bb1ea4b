"""The testing kit: a clock that tests move, a dispatcher in memory that uses it, pytest fixtures, and the contract that
every engine must keep.
"""

from .clock import FakeClock
from .memory import memory_engine

__all__ = ["FakeClock", "memory_engine"]
