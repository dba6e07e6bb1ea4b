"""How a purpose hands its events to its instances: the exchanges that come with Solar Wind, and what your own needs."""

from .core.exchange import Direct, Exchange, Fanout, Instance, Keyed, LeastBusy
from .core.exchange import register as register_exchange

__all__ = ["Direct", "Exchange", "Fanout", "Instance", "Keyed", "LeastBusy", "register_exchange"]
