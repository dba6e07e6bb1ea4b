"""Structs of options, which refuse an unknown option in the same words everywhere."""

from __future__ import annotations

from typing import Any

import msgspec

from .calls import meant
from .errors import BadArgument


class OptionsMeta(msgspec.StructMeta):
    """The metaclass of `Retry` and other structs of options. It raises `BadArgument` for an unknown option."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        fields = cls.__struct_fields__
        for name, value in options.items():
            if name not in fields:
                near = meant(name, fields)
                raise BadArgument(
                    f"expected options of {cls.__name__}, of {', '.join(fields)}, got {name}={value!a}"
                    + (f": did you mean {near}={value!a}?" if near else "")
                )
        try:
            return super().__call__(*args, **options)
        except TypeError as error:
            got = ", ".join(ascii(each) for each in args) or "none"
            raise BadArgument(
                f"expected options of {cls.__name__} by name, of {', '.join(fields)}, got {got}: {error}"
            ) from None
