"""Structs of options, which refuse an unknown option in the same words everywhere."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import msgspec

from .errors import BadArgument

_NEAR = 0.7  # how alike two names are where one may be meant by the other; 1 is equal


class OptionsMeta(msgspec.StructMeta):
    """The metaclass of `Retry` and other structs of options. It raises `BadArgument` for an unknown option."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        fields = cls.__struct_fields__
        for name, value in options.items():
            if name not in fields:
                meant = get_close_matches(name, fields, 1, _NEAR)
                raise BadArgument(
                    f"expected options of {cls.__name__}, of {', '.join(fields)}, got {name}={value!a}"
                    + (f": did you mean {meant[0]}={value!a}?" if meant else "")
                )
        try:
            return super().__call__(*args, **options)
        except TypeError as error:
            got = ", ".join(ascii(each) for each in args)
            raise BadArgument(
                f"expected options of {cls.__name__} by name, of {', '.join(fields)}, got {got}: {error}"
            ) from None
