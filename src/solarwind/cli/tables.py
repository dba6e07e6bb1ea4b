"""Tables that fit the terminal: the one way in which all commands print a list.

Each row is one line. Where the terminal has no room for all columns, text is shortened in the middle, down to a width
at which a name can still be read, and the least important columns are left out. Where there is no terminal, nothing is
shortened or left out. Where all columns matter, there is a paragraph for each row instead of a table without some
of them.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from . import show

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_GAP = 2  # cells between columns
_NAME_CELLS, _MAX_NAME_CELLS = 17, 32  # at which a name can still be read; 20 of 80, and a fifth of a wide terminal
_TEXT_CELLS = {"ERROR": 20, "PAYLOAD": 20, "WHAT": 20, "ARGUMENTS": 28}  # and other text at 12
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
_MIN_SPARK, _MAX_SPARK = 6, 60
# The texts of a time, by their widths: with milliseconds, seconds, minutes.
_TIMES = (24, 20, 17)


class Columns(NamedTuple):
    """The names of a table's columns in the order shown, and the most important of them, the first one first; the
    others follow in the order shown. Where all columns matter, `pieces` makes a row the pieces of a `Line`: that is
    printed instead where there is no room for all columns."""

    names: tuple[str, ...]
    important: tuple[str, ...] = ()
    pieces: Callable[[Sequence[object]], Sequence[str]] | None = None

    def by_importance(self) -> list[int]:
        """Return the numbers of the columns, the most important first."""
        order = [*self.important, *(name for name in self.names if name not in self.important)]
        return [self.names.index(name) for name in order]


class Spark:
    """A course of numbers, the oldest first, drawn as a line of bars. Where it is wider than it may be, neighbours are
    added up, so that it always shows all of its time."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __str__(self) -> str:
        return self.text(_MAX_SPARK, _BARS)

    def text(self, width: int, bars: str) -> str:
        """Return the bars: the first one of `bars` is for 0 alone, the last one for the largest number."""
        numbers = self._numbers
        if len(numbers) > width:
            edges = [len(numbers) * at // width for at in range(width + 1)]
            numbers = [sum(numbers[start:stop]) for start, stop in pairwise(edges)]
        largest = max(numbers, default=0)
        return "".join([bars[-(-number * (len(bars) - 1) // largest) if largest else 0] for number in numbers])


def rows(columns: Columns, values: Sequence[Sequence[object]], none: str) -> None:
    """Print a table, or the sentence `none` where it would be empty."""
    if not values:
        show.say(none)
        return
    table = Table(columns, values)
    show.render(table)
    if table.left_out and sys.stdout.isatty():
        said = f"There is no room for {', '.join(table.left_out)}: widen the terminal, or use --json."
        for line in textwrap.wrap(said, table.room):
            show.note(line)


class Line:
    """A renderable of rich: pieces of text beside each other. Where the terminal has no room for the next one, it goes
    on in another line, as far `indent`ed; only a piece that is wider than that is broken."""

    def __init__(self, pieces: Sequence[str], gap: str = "  ", start: int = 0, indent: int = 8) -> None:
        self._pieces, self._gap, self._start, self._indent = pieces, gap, start, indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.text import Text

        left, line = self._start, self._pieces[0]
        for piece in self._pieces[1:]:
            longer = f"{line}{self._gap}{piece}"
            if left + cell_len(longer) <= options.max_width:
                line = longer
                continue
            yield Padding(Text(line + self._gap.rstrip(), overflow="fold"), (0, 0, 0, left), expand=False)
            left, line = self._indent, piece
        yield Padding(Text(line, overflow="fold"), (0, 0, 0, left), expand=False)


class Table:
    """A renderable of rich; `styles` has one for each row. After it was rendered, `left_out` has the names of the
    columns for which there was no room in its `room`, the cells of the terminal's width."""

    def __init__(self, columns: Columns, values: Sequence[Sequence[object]]) -> None:
        self.left_out: list[str] = []
        self.room = 80
        self.styles: Sequence[str] = [""] * len(values)
        self._columns = columns
        self._values = values
        self._numeric = self._with_a(int | float)
        self._of_times = self._with_a(datetime)
        self._of_courses = self._with_a(Spark)

    def _with_a(self, kind: Any) -> list[bool]:
        """Return for each column whether it has a value of the type."""
        return [any(isinstance(row[index], kind) for row in self._values) for index in range(len(self._columns.names))]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.table import Table
        from rich.text import Text

        mark = "…" if not options.ascii_only else "..."
        self.room = options.max_width
        widths = self._fit(self.room)
        self.left_out = [name for index, name in enumerate(self._columns.names) if index not in widths]
        if self.left_out and self._columns.pieces is not None:
            self.left_out = []
            yield from [Line(self._columns.pieces(row)) for row in self._values]
            return
        made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for index, width in sorted(widths.items()):
            name = shorten(self._columns.names[index], width, mark)
            made.add_column(name, justify="right" if self._numeric[index] else "left", width=width, no_wrap=True)
        for row, style in zip(self._values, self.styles, strict=True):
            cells = [Text(_cell(row[index], width, mark)) for index, width in sorted(widths.items())]
            made.add_row(*cells, style=style)
        yield made

    def _fit(self, room: int) -> dict[int, int]:
        """Return the widths of the columns to show: each of those that are more important has at least its minimum,
        and columns of text share what is left."""
        most, least = self._widths(room)
        left = room + _GAP
        if sum(most) + _GAP * len(most) <= left:
            return dict(enumerate(most))
        widths: dict[int, int] = {}
        for index in self._columns.by_importance():
            if least[index] + _GAP <= left:
                widths[index] = least[index]
                left -= least[index] + _GAP
        if not widths:  # not even the first one
            return {self._columns.by_importance()[0]: max(1, room)}
        while left and (growing := [index for index, width in widths.items() if width < most[index]]):
            narrowest = min(
                growing,
                key=lambda index: (self._of_times[index] or self._of_courses[index], widths[index] / most[index]),
            )
            widths[narrowest] += 1
            left -= 1
        return widths

    def _widths(self, room: int) -> tuple[list[int], list[int]]:
        """Return how wide each column is where there is room, and at least."""
        from rich.cells import cell_len

        most, least = [], []
        for index, name in enumerate(self._columns.names):
            values = [row[index] for row in self._values]
            longest = max((cell_len(show.cell(value)) for value in values), default=0)
            if self._numeric[index]:
                shortest = longest
            elif self._of_courses[index]:
                shortest = min(longest, _MIN_SPARK)
            elif self._of_times[index]:
                shortest = _TIMES[-1]
            else:
                shortest = min(longest, _min_cells(name, room))
            most.append(max(len(name), longest))
            least.append(max(len(name), shortest))
        return most, least


def _min_cells(name: str, room: int) -> int:
    """Return down to how many cells a column of text is shortened."""
    if name == "ID":  # of use only as a whole, also one that a producer gave
        return room
    wanted = _TEXT_CELLS.get(name, 12)
    if name in ("TOPIC", "PURPOSE"):
        wanted = min(_MAX_NAME_CELLS, max(_NAME_CELLS, min(20, room // 4), room // 5))
    return min(wanted, (room - _GAP) // 2)


def _cell(value: object, width: int, mark: str) -> str:
    if isinstance(value, Spark):
        return value.text(min(width, _MAX_SPARK), _BARS if mark == "…" else _PLAIN_BARS) or "-"
    text = show.cell(value)
    if isinstance(value, datetime) and len(text) > width:
        fits = next((each for each in _TIMES if each <= width), width)
        return f"{text[: fits - 1]}Z"
    return shorten(text, width, mark)


def shorten(text: str, width: int, mark: str = "…") -> str:
    """Return the text in at most `width` cells of a terminal: where it is longer, with `mark` in place of its middle.
    Letters stay whole, with the marks that combine with them."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    room = width - len(mark)
    if room < 2:
        return "".join(_first(_letters(text), width))
    letters = _letters(text)
    start = _first(letters, room - room // 2)
    end = _first(letters[::-1], room - cell_len("".join(start)))
    return "".join([*start, mark, *reversed(end)])


def _letters(text: str) -> list[str]:
    """Return the characters, each with those that follow it and take no room of their own."""
    from rich.cells import cell_len

    letters: list[str] = []
    for each in text:
        if letters and not cell_len(each):
            letters[-1] += each
        else:
            letters.append(each)
    return letters


def _first(letters: Sequence[str], width: int) -> list[str]:
    """Return as many of the letters as fit."""
    from rich.cells import cell_len

    found: list[str] = []
    for each in letters:
        width -= cell_len(each)
        if width < 0:
            break
        found.append(each)
    return found
