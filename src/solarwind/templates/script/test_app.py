import pytest

from solarwind import SolarWind
from solarwind.testing import FakeClock, memory_engine

import app


@pytest.fixture
def wind(wind_clock: FakeClock) -> SolarWind:
    """The app's own, on an empty dispatcher in memory for each test: what `fired` and `dead` look at."""
    app.wind.use(engine=memory_engine(wind_clock))
    app.counted.clear()
    return app.wind


def test_an_order_is_confirmed_and_counted(wind: SolarWind, fired) -> None:
    with wind:
        wind.wait(app.place(7))
        wind.wait(wind.settled(timeout=10))
        assert [event.payload for event in fired("order.confirmed")] == [{"number": 7}]
    assert app.counted == {"lamp": 1}


def test_an_order_that_is_placed_twice_is_one_order(wind: SolarWind) -> None:
    with wind:
        wind.wait(app.place(7))
        wind.wait(app.place(7))
        wind.wait(wind.settled(timeout=10))
    assert app.counted == {"lamp": 1}


def test_an_order_without_an_address_is_a_dead_letter(wind: SolarWind, dead) -> None:
    with wind:
        wind.fire("order.placed", app.Order(8, "chair", "nowhere"), key="chair").wait(10)
        wind.wait(wind.settled(timeout=10))
        [letter] = dead("order.placed", "Confirm by mail")
        assert letter.error == "'nowhere' is no address"
