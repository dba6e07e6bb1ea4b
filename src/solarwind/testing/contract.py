"""The contract: what any engine must do, as tests to subclass.

    class TestMemory(EngineContract):
        @pytest.fixture
        def place(self) -> Place:
            return LocalPlace(MemoryStore, durable=False)

`place` is a new dispatcher for each test. A rule that an engine cannot show (it needs a clock of the test's own, or a
restart) is skipped there, and only there.
"""

from __future__ import annotations

import pytest

from ..logs import limited

pytest.register_assert_rewrite("solarwind.testing.rules")

from .rules.around import AroundRules  # noqa: E402
from .rules.causes import CauseRules  # noqa: E402
from .rules.deaths import DeathRules  # noqa: E402
from .rules.definitions import DefinitionRules  # noqa: E402
from .rules.delay import DelayRules  # noqa: E402
from .rules.exchanges import ExchangeRules  # noqa: E402
from .rules.facts import FactRules  # noqa: E402
from .rules.failing import FailingRules  # noqa: E402
from .rules.fanout import FanoutRules  # noqa: E402
from .rules.firing import FiringRules  # noqa: E402
from .rules.handlers import HandlerRules  # noqa: E402
from .rules.history import HistoryRules  # noqa: E402
from .rules.joining import JoiningRules  # noqa: E402
from .rules.lifecycle import LifecycleRules  # noqa: E402
from .rules.limits import LimitRules  # noqa: E402
from .rules.operating import OperatingRules  # noqa: E402
from .rules.outbox import OutboxRules  # noqa: E402
from .rules.outcomes import OutcomeRules  # noqa: E402
from .rules.place import LocalPlace, Place, a_while, on_loop, until  # noqa: E402
from .rules.resending import ResendingRules  # noqa: E402
from .rules.rollouts import RolloutRules  # noqa: E402
from .rules.schedules import ScheduleRules  # noqa: E402
from .rules.schemas import SchemaRules  # noqa: E402
from .rules.service import ServiceRules  # noqa: E402
from .rules.shadows import ShadowRules  # noqa: E402
from .rules.timeouts import TimeoutRules  # noqa: E402
from .rules.timing import TimingRules  # noqa: E402

__all__ = ["EngineContract", "LocalPlace", "Place", "a_while", "on_loop", "until"]


class EngineContract(
    AroundRules,
    CauseRules,
    DeathRules,
    DefinitionRules,
    DelayRules,
    ExchangeRules,
    FactRules,
    FanoutRules,
    HandlerRules,
    HistoryRules,
    JoiningRules,
    FailingRules,
    FiringRules,
    LifecycleRules,
    LimitRules,
    OperatingRules,
    OutboxRules,
    OutcomeRules,
    ResendingRules,
    RolloutRules,
    ScheduleRules,
    SchemaRules,
    ServiceRules,
    ShadowRules,
    TimeoutRules,
    TimingRules,
):
    """All rules. A subclass defines the fixture `place`."""

    @pytest.fixture(autouse=True)
    def _nothing_logged(self) -> None:
        """Forget which lines other tests logged, so that none is left out here."""
        limited.flush()

    @pytest.fixture
    def place(self) -> Place:
        """Return the dispatcher to test."""
        raise NotImplementedError(f"{type(self).__name__} has no place: override the fixture")
