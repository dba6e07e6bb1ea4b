"""Something that nobody expects: a method that raises once."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

import pytest

Once = Callable[[type, str], list[BaseException]]


class Unexpected(Exception):
    """What nobody thought of."""


def breaking(monkeypatch: pytest.MonkeyPatch) -> Once:
    """Return a function that makes a method raise the next time it is called, and never again. It returns a list which
    then has what was raised."""

    def break_it(of: type, name: str) -> list[BaseException]:
        raised: list[BaseException] = []
        good = getattr(of, name)

        def bad(*arguments: Any, **options: Any) -> Any:
            if raised:
                return good(*arguments, **options)
            raised.append(Unexpected(name))
            raise raised[0]

        async def bad_later(*arguments: Any, **options: Any) -> Any:
            return await bad(*arguments, **options) if raised else bad()

        monkeypatch.setattr(of, name, bad_later if iscoroutinefunction(good) else bad)
        return raised

    return break_it
