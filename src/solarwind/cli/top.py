"""`top`: the operation `statistics` as a table that is refreshed, sorted and filtered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from .options import DEFAULT_URL, JsonOption, UrlOption, option


class Sort(StrEnum):
    """By what rows are sorted."""

    TOPIC = "topic"
    PENDING = "pending"
    OLDEST = "oldest"
    FIRED = "fired"
    SETTLED = "settled"
    RETRIED = "retried"
    DEAD = "dead"


def top(
    interval: Annotated[float, option("interval", "Seconds between two looks.", min=0.05)] = 1.0,
    count: Annotated[int | None, option("count", "Leave after so many looks.", min=1)] = None,
    sort: Annotated[Sort, option("sort", "What comes first: names in order, or the largest of these.")] = Sort.TOPIC,
    filter: Annotated[str, option("filter", "Only topics and purposes with this text in their names.")] = "",
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Show the numbers of topics and purposes, and their rates, again and again.

    On a terminal, s sorts by the next column, r reverses the order, / filters, q leaves.
    """
    from ..text import redact
    from .reach import operate
    from .top_view import View, watch

    view = View(redact(url), sort, filter)
    operate(url, lambda wind: watch(wind, view, interval, count, json))
