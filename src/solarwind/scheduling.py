"""The operations on schedules: a part of the table in `operations.py`."""

from __future__ import annotations

from .engine.operations import Operations
from .engine.request import Cli, Http, Operation, Restated
from .options import check_ticks

_SCHEDULE = "/v1/schedules/{name}"
_EVERY = (
    "ScheduleStatement",
    'When a schedule has its ticks: `every` "5m", or five fields of a crontab, in time zone `zone`; and the `payload` '
    "of its event. A tick that is more than a minute late was `missed`: then `skip` fires nothing, `once` one event "
    "for all.",
)


class Scheduling:
    """The operations on schedules that are there, of an engine or of a `SolarWind`."""

    schedules = Operation(
        Operations.schedules,
        to="engine",
        repeat="question",
        http=Http("GET", "/v1/schedules", "The schedules, and their next ticks", "schedules"),
        cli=Cli("schedules list", "The schedules, and when their next tick is.", none="No schedules."),
    )
    schedule = Operation(
        Operations.schedule,
        to="engine",
        repeat="question",
        http=Http("GET", _SCHEDULE, "A schedule, and its next ticks"),
        cli=Cli("schedules show", "A schedule, and its next ticks.", examples=("schedules show nightly",)),
    )
    pause_schedule = Operation(
        Operations.pause_schedule,
        to="engine",
        http=Http("POST", f"{_SCHEDULE}/pause", "Pause a schedule"),
        cli=Cli(
            "schedules pause",
            "Fire nothing at a schedule's ticks until it is resumed.",
            "schedule {name} is paused",
            key="paused",
            examples=("schedules pause nightly",),
        ),
    )
    resume_schedule = Operation(
        Operations.resume_schedule,
        to="engine",
        http=Http("POST", f"{_SCHEDULE}/resume", "Resume a schedule that is paused"),
        cli=Cli(
            "schedules resume",
            "Go on with the next tick of a schedule that is paused.",
            "schedule {name} is resumed",
            key="resumed",
            examples=("schedules resume nightly",),
        ),
    )
    run_schedule = Operation(
        Operations.run_schedule,
        to="engine",
        http=Http("POST", f"{_SCHEDULE}/run", "Fire a schedule's event now", "id"),
        cli=Cli(
            "schedules run",
            "Fire a schedule's event now, besides its ticks.",
            "{}",
            examples=("schedules run nightly",),
        ),
    )
    remove_schedule = Operation(
        Operations.remove_schedule,
        to="engine",
        unstates="declare_schedule",
        http=Http("DELETE", _SCHEDULE, "Remove a schedule"),
        cli=Cli(
            "schedules remove",
            "Forget a schedule. A process that declares it makes it again when it starts.",
            "schedule {name} is removed",
            key="removed",
            examples=("schedules remove nightly",),
        ),
    )


class Ticking:
    """What services state of their schedules."""

    declare_schedule = Operation(
        Operations.declare_schedule,
        right="fire",
        to="engine",
        repeat="always",
        restated=Restated("name"),
        check=check_ticks,
        http=Http(
            "PUT", "/v1/topics/{topic}/schedules/{name}", "Fire an event at every tick of a schedule", "", *_EVERY
        ),
        cli=Cli(
            "schedules add",
            "Fire an event on a topic at every tick of a schedule.",
            "schedule {name} is declared",
            key="declared",
            options={
                "every": 'An interval such as 5m, or five fields of a crontab such as "30 2 * * *".',
                "payload": "Of the event, as JSON.",
                "content": "The payload's content type.",
                "zone": "The time zone of a crontab, such as Europe/Berlin.",
                "missed": "For ticks that are more than a minute late: skip, or once.",
            },
            examples=('schedules add report.due nightly --every "30 2 * * *"',),
        ),
    )
