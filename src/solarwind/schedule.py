"""When a schedule has its ticks: after each interval, or as a crontab says.

Ticks of an interval are its multiples since 1970 in UTC, so that every process that declares it means the same ones.
Those of a crontab are in a time zone; daylight saving is as with Debian's cron.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from .errors import BadArgument
from .names import shown

MAX_EVERY_S = 366 * 86_400
_UNITS = {"s": (1, "second"), "m": (60, "minute"), "h": (3_600, "hour"), "d": (86_400, "day")}
_INTERVAL = re.compile(r"([0-9]{1,9})([smhd])")
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
TICKS = 'an interval such as "5m", or five fields of a crontab such as "30 2 * * *"'
_S = 1_000_000_000


class Ticks:
    """The ticks of a schedule, in ns since 1970. `words` says when they are."""

    def __init__(self, every: str, zone: str = "UTC") -> None:
        """Raise `BadArgument` for what is neither an interval nor a crontab, has no ticks, or an unknown time zone."""
        self._zone, self._interval_ns, self._cron = _read_zone(zone), 0, ""
        text = " ".join(every.split())
        if interval := _INTERVAL.fullmatch(text):
            count, (unit_s, unit) = int(interval[1]), _UNITS[interval[2]]
            if not 1 <= count * unit_s <= MAX_EVERY_S:
                raise BadArgument(f"expected an interval of 1s to {MAX_EVERY_S // 86_400}d, got {text}")
            self._interval_ns = count * unit_s * _S
            self.words = f"every {unit}" if count == 1 else f"every {count} {unit}s"
            return
        self._cron = _MACROS.get(text.lower(), text)
        self.words = self._explain(every) + ("" if zone == "UTC" else f", {zone} time")

    def _explain(self, every: str) -> str:
        from cronsim import CronSim, CronSimError

        if len(self._cron.split()) != 5:
            raise BadArgument(f"expected {TICKS}, got {shown(every)}")
        try:
            cron = CronSim(self._cron, datetime.now(self._zone))
            next(cron)
        except CronSimError as error:
            fault = str(error)
            raise BadArgument(f"expected {TICKS}, got {shown(every)}: {fault[0].lower()}{fault[1:]}") from None
        except StopIteration:
            raise BadArgument(
                f"expected a crontab that has a next time, got {shown(every)}, which never comes"
            ) from None
        return str(cron.explain())

    def after(self, time: int) -> int | None:
        """Return the first tick after a time; None where there is none."""
        if self._interval_ns:
            return (time // self._interval_ns + 1) * self._interval_ns
        return self._step(time // _S, reverse=False)

    def until(self, time: int) -> int | None:
        """Return the last tick at a time or before; None where there is none."""
        if self._interval_ns:
            return time // self._interval_ns * self._interval_ns
        found = self._step(time // _S + 1, reverse=True)
        # From within an hour that comes twice, the way back may pass over the tick that was in it the first time.
        while found is not None and (following := self.after(found)) is not None and following <= time:
            found = following
        return found

    def _step(self, time_s: int, *, reverse: bool) -> int | None:
        from cronsim import CronSim

        begin = datetime.fromtimestamp(time_s, UTC).astimezone(self._zone)
        found = next(CronSim(self._cron, begin, reverse=reverse), None)
        return None if found is None else int(found.timestamp()) * _S


def _read_zone(zone: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    if zone == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError, TypeError):  # also a name that is a path
        raise BadArgument(
            f"expected a time zone such as UTC or Europe/Berlin, got {shown(zone)}, which this machine does not know"
        ) from None
