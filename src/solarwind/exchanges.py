"""The exchanges that come with Solar Wind, and what an exchange of your own needs."""

from .core.exchange import Direct, Exchange, Fanout, Instance, Keyed, LeastBusy
from .plugins import register_exchange

__all__ = ["Direct", "Exchange", "Fanout", "Instance", "Keyed", "LeastBusy", "register_exchange"]
