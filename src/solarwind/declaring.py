"""The part of a `SolarWind` that states how much history topics keep, and when schedules have their ticks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from .calls import explains_calls
from .errors import BadName, ConflictError
from .logs import limited
from .names import MAX_SCHEDULE, check_topic
from .operations import Asking, Internal
from .options import check_keep, check_keep_bytes
from .payload import encode
from .service.typed import TypedTopic, typed_topic


@explains_calls
class Declaring(Asking):
    """What this process declares: with its start, and from then on at once."""

    _typed: dict[str, TypedTopic]
    _plain_thread: int

    def __init__(self) -> None:
        self._settings: dict[str, tuple[float | UnsetType | None, int | UnsetType | None]] = {}
        self._declared: dict[str, dict[str, Any]] = {}  # schedules by their names

    def _declare_soon(self, work: Callable[[], Any]) -> None:
        """Run a coroutine in the background, unless this is before the start, or after the stop."""
        raise NotImplementedError

    def _is_started(self) -> bool:
        """Return whether it runs, or ran before."""
        raise NotImplementedError

    def topic(
        self,
        name: str,
        *,
        keep: float | timedelta | UnsetType | None = UNSET,
        keep_bytes: int | UnsetType | None = UNSET,
        schema: Any = UNSET,
    ) -> None:
        """State how much history a topic keeps, events up to `keep` old (seconds, or a timedelta), `keep_bytes` at
        most; and with `schema` of which type the payloads are that are fired there.

        An argument that is left out changes nothing. `keep=None` restores the dispatcher's default, `keep_bytes=None`
        removes the limit. Pending events and dead letters of a purpose are always kept. `schema` is a type as handlers
        are annotated with: this process then fires nothing else on the topic (`BadPayload`), and the dispatcher knows
        it; the log says which purposes cannot read all of it. Raise `BadName` and `BadArgument`.
        """
        check_topic(name)
        if not isinstance(schema, UnsetType):
            self._typed[name] = typed_topic(name, schema)
            self._plain_thread = 0  # each fire looks whether its topic is one of these
            self._declare_soon(lambda: self._declare_schema(name))
            if isinstance(keep, UnsetType) and isinstance(keep_bytes, UnsetType):
                return
        before = self._settings.get(name, (UNSET, UNSET))
        setting = (
            before[0] if isinstance(keep, UnsetType) else check_keep(keep),
            before[1] if isinstance(keep_bytes, UnsetType) else check_keep_bytes(keep_bytes),
        )
        self._settings[name] = setting
        self._declare_soon(lambda: Internal.keep(self._engine, name, *setting))

    def every(
        self,
        every: str,
        topic: str,
        payload: Any = None,
        *,
        name: str | None = None,
        zone: str = "UTC",
        missed: Literal["skip", "once"] = "skip",
    ) -> str:
        """Fire an event on a topic at every tick, and return the schedule's name.

        - `every`: an interval of whole seconds, minutes, hours or days, such as "5m"; or five fields of a crontab, such
          as "30 2 * * *", or "@daily" and its like
        - `payload`: of each event; it is encoded now
        - `name`: of the schedule; the topic and `every` if not given
        - `zone`: the time zone of a crontab, with daylight saving as Debian's cron has it
        - `missed`: what becomes of ticks that are more than a minute late: "skip", or "once" for one event for all

        There is one event for each tick, however many processes declare it; its cause is the schedule, and its id is
        made from name and tick. The dispatcher keeps the schedule until it is removed, also without this process; a
        server in memory that was started again is told of it again. Where two declare it differently the later one
        counts. Raise `BadArgument`, `BadName`, `BadPayload` and `TooLarge`, and `ConflictError` for a second schedule
        of that name before the start.
        Declared while it runs, what the dispatcher refuses is logged; else the start raises it.
        """
        data, content = encode(payload)
        if topic in self._typed:
            self._typed[topic].check(data, content)
        stated = {"topic": topic, "every": every, "payload": data, "content": content, "zone": zone, "missed": missed}
        if name is None:
            Internal.declare_schedule.request(stated | {"name": "_"})  # of what was stated, before the name made of it
            name = f"{topic} {' '.join(every.split())}"
            if len(name) > MAX_SCHEDULE:
                raise BadName(
                    f"expected a name of the schedule, of at most {MAX_SCHEDULE} characters, since topic and every "
                    f"together have {len(name)}: state name="
                )
        Internal.declare_schedule.request(stated | {"name": name})
        before = self._declared.setdefault(name, stated)
        if before != stated and not self._is_started():
            raise ConflictError(
                f"expected one statement of schedule {name!r} before the start, got two that differ: name one of them "
                "otherwise, with name="
            )
        self._declared[name] = stated
        self._declare_soon(lambda: self._declare(name))
        return name

    async def _declare(self, name: str) -> None:
        await Internal.declare_schedule(self._engine, name=name, **self._declared[name])

    async def _declare_schema(self, name: str) -> None:
        if text := await Internal.declare_schema(self._engine, name, self._typed[name].schema):
            limited.warning(("schema", name), "%s", text)

    async def _declare_all(self) -> None:
        for name, setting in self._settings.items():
            await Internal.keep(self._engine, name, *setting)
        for name in list(self._typed):
            await self._declare_schema(name)
        for name in list(self._declared):
            await self._declare(name)
