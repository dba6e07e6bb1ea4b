"""JSON Schemas of names and times, for `/openapi.json`.

They only describe: `names.py` and `times.py` refuse invalid values, with a sentence that says why.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from ..options import MAX_COUNT
from ..shares import ROLLOUTS

Schema = dict[str, Any]

COMPONENTS = "#/components/schemas/{name}"  # where the types are in the description

_WORDS = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
_PRINTABLE = r"^[^\p{C}\p{Z}](( |[^\p{C}\p{Z}])*[^\p{C}\p{Z}])?$"  # with no space at either end

TOPIC: Schema = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _WORDS}
PURPOSE: Schema = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _PRINTABLE}
ID = PURPOSE
SCHEDULE: Schema = PURPOSE | {"maxLength": 150}
KEY: Schema = {"type": "string", "maxLength": 256, "description": "At most 256 bytes of UTF-8."}
SINCE: Schema = {
    "description": "now, beginning, so long ago such as 2h, or a time from 1970 on such as 2026-01-31T12:00:00Z.",
    "anyOf": [{"pattern": "^(now|beginning|[0-9]{1,9}[smhd])$"}, {"format": "date-time"}],
}
DUE: Schema = {"format": "date-time", "description": "A time with its zone, from 1970 to ten years from now."}
DELAY: Schema = {
    "description": "Seconds from now on, or a duration such as 30s, 5m, 12h or 7d: ten years at most.",
    "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?[smhd]?$",
}
SECONDS: Schema = {
    "description": "Seconds, or a duration such as 30s, 5m, 12h or 7d: ten years at most.",
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DELAY["pattern"]}],
}
END: Schema = {
    "description": "A time with its zone, or so long from now on: as `at` and `after`.",
    "anyOf": [{"format": "date-time"}, {"pattern": DELAY["pattern"]}],
}
ROLLOUT: Schema = {
    "description": "What a version that is first seen beside others does: becomes current, waits, or has that share.",
    "anyOf": [{"enum": list(ROLLOUTS)}, {"type": "number", "minimum": 0, "maximum": 1}],
}
RATE: Schema = {
    "description": "So many events of the purpose for each second, minute, hour or day, such as 100/s.",
    "pattern": r"^[1-9][0-9]{0,6}/[smhd]$",
}
FIELD: Schema = {"type": "string", "maxLength": 200, "pattern": r"^\$(\.[A-Za-z0-9_-]+)+$"}

TopicName = Annotated[str, Meta(extra_json_schema=TOPIC)]
PurposeName = Annotated[str, Meta(extra_json_schema=PURPOSE)]
Id = Annotated[str, Meta(extra_json_schema=ID)]
WebhookName = Annotated[str, Meta(extra_json_schema=TOPIC)]
ScheduleName = Annotated[str, Meta(extra_json_schema=SCHEDULE)]
EventKey = Annotated[str, Meta(extra_json_schema=KEY)]
SinceText = Annotated[str, Meta(extra_json_schema=SINCE)]
DueTime = Annotated[str, Meta(extra_json_schema=DUE)]
Delay = Annotated[str, Meta(extra_json_schema=DELAY)]
EndTime = Annotated[str, Meta(extra_json_schema=END)]
Field = Annotated[str, Meta(extra_json_schema=FIELD)]  # a path in the payload
KeyMissing = Literal["handle", "reject"]  # how an event without a key is treated
DelayStated = Annotated[str | float, Meta(extra_json_schema=SECONDS)]
RolloutStated = Annotated[str | float, Meta(extra_json_schema=ROLLOUT)]
RateStated = Annotated[str, Meta(extra_json_schema=RATE)]
AtMost = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_COUNT - 1})]
VersionNumber = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
