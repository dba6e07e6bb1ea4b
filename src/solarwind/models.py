"""Payloads of pydantic: models, its dataclasses, and types with its constraints.

pydantic belongs to the user's program: it is never imported here, only used where the program has imported it. Only
pydantic knows how a model becomes JSON and comes back (aliases, excluded fields, serializers, validators, subclasses in
a field). So a payload is decoded at once when it is fired, and compared: a handler of the same type gets what was
fired, or `fire` refuses it.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

Read = Callable[[bytes], Any]


class Unlike(ValueError):
    """A payload that is not the same after it was encoded and decoded."""

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"what its JSON is read as is not what was fired: {fault}; change its type so that it is (aliases, "
            "serializers, validators, exclude=True, __post_init__), or fire a dict"
        )
        self.fault = fault


def is_model(type_: Any) -> bool:
    """Return whether only pydantic can make one from JSON: a model, or a dataclass of pydantic's."""
    return is_base_model(type_) or is_pydantic_dataclass(type_)


def is_base_model(type_: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)


def is_pydantic_dataclass(type_: Any) -> bool:
    if sys.modules.get("pydantic") is None or not dataclasses.is_dataclass(type_):
        return False
    found: bool = sys.modules["pydantic"].dataclasses.is_pydantic_dataclass(type_)
    return found


is_model_type: Callable[[Any], bool] = lru_cache(maxsize=1024)(is_model)  # for the type of each payload


# Out ------------------------------------------------------------------------------------------------------------


def dump(value: Any) -> bytes:
    """Return the JSON of a model, from which the same model can be made again. Raise `Unlike`.

    It uses the aliases, by which other programs know the fields, or the names where only those lead back.
    """
    write, read = _both_ways(type(value))
    fault = ""
    for by_alias in (True, False):
        data = write(value, by_alias)
        try:
            check_same(value, read(data))
        except Unlike as error:
            fault = fault or error.fault
        except Exception as error:  # a validator may raise anything
            fault = fault or f"its JSON is refused: {fault_of(error)}"
        else:
            return data
    raise Unlike(fault)


def check_same(fired: Any, found: Any, path: str = "$") -> None:
    """Raise `Unlike` where what was fired is decoded as something else. `path` says where it was."""
    if not same(fired, found):
        raise Unlike(_difference(fired, found, path))


def runs_code(type_: Any) -> bool:
    """Return whether a class runs code of its own when msgspec makes one, or has hidden state: it may be decoded as
    something else than was encoded."""
    if not isinstance(type_, type):
        return False
    if any(hasattr(type_, name) for name in ("__post_init__", "__attrs_pre_init__", "__attrs_post_init__")):
        return True
    if dataclasses.is_dataclass(type_):
        return any(not field.init or field.name.startswith("_") for field in dataclasses.fields(type_))
    return any(
        not field.init or field.converter is not None or field.validator is not None or field.name.startswith("_")
        for field in getattr(type_, "__attrs_attrs__", ())
    )


def _find_both_ways(type_: Any) -> tuple[Callable[[Any, bool], bytes], Read]:
    if is_base_model(type_):
        return _write_model, _reader_of_model(type_)
    adapter = sys.modules["pydantic"].TypeAdapter(type_)

    def write(value: Any, by_alias: bool) -> bytes:
        data: bytes = adapter.dump_json(value, by_alias=by_alias, round_trip=True, warnings=False)
        return data

    return write, _reader_of_any(adapter)


_both_ways: Callable[[Any], tuple[Callable[[Any, bool], bytes], Read]] = lru_cache(maxsize=1024)(_find_both_ways)


def _write_model(value: Any, by_alias: bool) -> bytes:
    text: str = value.model_dump_json(by_alias=by_alias, round_trip=True, warnings=False)
    return text.encode()


def same(before: Any, after: Any, listed: bool = True) -> bool:
    """Return whether both are the same. A model's own `==` may follow any rule, so it is not used. `listed`: where a
    tuple or a set came as a list, as from JSON, its type allows both."""
    if before is after:
        return True
    kind = type(before)
    if kind in _LEAVES:
        return bool(before == after) or (before != before and after != after)  # nan
    if isinstance(before, datetime):
        return bool(_hashed(before) == _hashed(after))
    if kind is not type(after) and not (listed and type(after) is list and kind in _LISTED):
        return not (names_of(kind) or names_of(type(after))) and bool(before == after)
    if isinstance(before, set | frozenset):
        return len(before) == len(after) and set(map(_hashed, before)) == set(map(_hashed, after))
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after, repeat(listed)))
    if isinstance(before, dict):
        found = {_hashed(name): each for name, each in after.items()}
        return len(before) == len(found) and all(
            same(each, found.get(_hashed(name), _MISSING), listed) for name, each in before.items()
        )
    names = names_of(kind)
    if names is None:
        return bool(before == after)
    for name in names:
        typed = listed and name not in _open_fields(kind)
        if not same(getattr(before, name, _MISSING), getattr(after, name, _MISSING), typed):
            return False
    return same(getattr(before, "model_extra", None), getattr(after, "model_extra", None), False)


def _find_open_fields(type_: Any) -> frozenset[str]:
    """Return the fields of a model whose types leave something open."""
    fields = type_.model_fields if is_base_model(type_) else {}
    return frozenset(name for name, field in fields.items() if _is_open(field.annotation))


_open_fields: Callable[[Any], frozenset[str]] = lru_cache(maxsize=1024)(_find_open_fields)


def _is_open(annotation: Any) -> bool:
    return annotation in (Any, object) or any(map(_is_open, get_args(annotation)))


def _hashed(value: Any) -> Any:
    """Return a value by which equal ones are found. In an hour that a clock change repeats or leaves out, a time equals
    none of another time zone, though it is the same moment."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.utcoffset() is not None else value


_LISTED = frozenset((tuple, set, frozenset))
_LEAVES = frozenset((str, int, float, bool, bytes, type(None)))


_MISSING = object()


def _find_names(type_: Any) -> tuple[str, ...] | None:
    """Return the fields of a model, dataclass, Struct, attrs class or NamedTuple, without private attributes; None for
    any other type."""
    if dataclasses.is_dataclass(type_):
        return tuple(field.name for field in dataclasses.fields(type_))
    if issubclass(type_, msgspec.Struct):
        return tuple(type_.__struct_fields__)
    if hasattr(type_, "__attrs_attrs__"):
        return tuple(field.name for field in type_.__attrs_attrs__)
    if issubclass(type_, tuple):
        return getattr(type_, "_fields", None)
    return tuple(type_.model_fields) if is_base_model(type_) else None


names_of: Callable[[Any], tuple[str, ...] | None] = lru_cache(maxsize=1024)(_find_names)


def _difference(before: Any, after: Any, path: str) -> str:
    """Return the path at which both differ. Values are not named: a field that a model excludes may be a secret."""
    kind, names = type(before), names_of(type(before))
    parts: Sequence[tuple[str, Any, Any]] = ()
    if kind is not type(after):
        return f"a {type(after).__qualname__} rather than a {kind.__qualname__} at {path}"
    if names is not None:
        parts = [(f".{name}", getattr(before, name, None), getattr(after, name, None)) for name in names]
    elif kind in (list, tuple) and len(before) == len(after):
        parts = [(f"[{index}]", *both) for index, both in enumerate(zip(before, after, strict=True))]
    elif kind is dict and before.keys() == after.keys():
        parts = [(f".{name}", each, after[name]) for name, each in before.items()]
    for listed in (True, False):
        for name, one, other in parts:
            if not same(one, other, listed):
                return _difference(one, other, path + name)
    return f"another value at {path}"


# In -------------------------------------------------------------------------------------------------------------


def reader_of(type_: Any) -> Read | None:
    """Return how pydantic reads a `type_` from JSON; None where msgspec does, which may call `read_one` for models
    within. Raise `TypeError` where neither can."""
    if is_base_model(type_):
        return _reader_of_model(type_)
    parts = _Parts()
    parts.look(type_)
    if not parts.foreign:
        return None
    if not parts.whole and _msgspec_can(type_):
        return None
    if parts.own:
        raise TypeError(
            f"{parts.own} is msgspec's and {parts.foreign} pydantic's, and neither can read both: "
            "make them all pydantic models, or all Structs"
        )
    if parts.has_bytes:
        raise TypeError(f"bytes beside {parts.foreign} are written one way and read another: put them into a model")
    try:
        return _reader_of_any(sys.modules["pydantic"].TypeAdapter(type_))
    except Exception as error:  # some of pydantic's are RuntimeErrors
        raise TypeError(str(error).partition("\n")[0]) from None


def read_one(type_: Any, value: Any) -> Any:
    """Return a model within another type from its decoded JSON. As from JSON, strict models accept dates and the
    like."""
    return _reader_of_model(type_)(msgspec.json.encode(value))


def _reader_of_model(type_: Any) -> Read:
    # Not by a TypeAdapter: a model may name another that is not defined yet.
    validate, either = type_.model_validate_json, _either_name()
    return lambda data: validate(data, **either)


def _reader_of_any(adapter: Any) -> Read:
    validate, either = adapter.validate_json, _either_name()
    return lambda data: validate(data, **either)


@lru_cache(maxsize=1)
def _either_name() -> dict[str, bool]:
    """Return the options by which a field may come by its alias or by its name, where pydantic (2.11) has them."""
    known = inspect.signature(sys.modules["pydantic"].BaseModel.model_validate_json).parameters
    return {"by_alias": True, "by_name": True} if "by_name" in known else {}


def _msgspec_can(type_: Any) -> bool:
    try:
        msgspec.inspect.type_info(type_)
        msgspec.json.Decoder(type_, dec_hook=read_one)
    except Exception:  # what it is annotated with may raise anything
        return False
    return True


class _Parts:
    """The parts of a type that decide which library can read it. It does not look into models."""

    def __init__(self) -> None:
        self.foreign = ""  # a type of pydantic's
        self.whole = False  # pydantic has to read all of it
        self.own = ""  # a type that only msgspec reads
        self.has_bytes = False
        self._seen: set[Any] = set()

    def look(self, type_: Any) -> None:
        for constraint in getattr(type_, "__metadata__", ()):
            library = type(constraint).__module__.partition(".")[0]
            if library in ("pydantic", "pydantic_core", "annotated_types"):
                self.foreign, self.whole = self.foreign or type(constraint).__qualname__, True
            elif library == "msgspec":
                self.own = self.own or type(constraint).__qualname__
        origin = get_origin(type_)
        if origin is not None:
            for inner in get_args(type_):
                self.look(inner)
            type_ = origin
        alias = getattr(type_, "__value__", None) or getattr(type_, "__supertype__", None)
        if not (isinstance(type_, type) or alias is not None) or type_ in self._seen:
            return
        self._seen.add(type_)
        if alias is not None:
            self.look(alias)
        elif is_model(type_):
            self.foreign = self.foreign or type_.__qualname__
            self.whole = self.whole or not is_base_model(type_)
        elif type_ in (bytes, bytearray, memoryview):
            self.has_bytes = True
        else:
            self._look_at_class(type_)

    def _look_at_class(self, type_: type) -> None:
        if issubclass(type_, msgspec.Struct) or hasattr(type_, "__attrs_attrs__"):
            self.own = self.own or type_.__qualname__
        elif not (
            dataclasses.is_dataclass(type_) or (issubclass(type_, dict | tuple) and type_.__module__ != "builtins")
        ):
            return
        try:
            hints = get_type_hints(type_, include_extras=True)
        except Exception:  # reported where the type is read
            return
        for hint in hints.values():
            self.look(hint)


def json_schema(type_: Any) -> dict[str, Any]:
    """Return the JSON Schema of what pydantic reads as a `type_`, with the aliases of its fields. It may raise
    anything."""
    found: dict[str, Any] = sys.modules["pydantic"].TypeAdapter(type_).json_schema(by_alias=True, mode="validation")
    return found


def json_schemas(types: Collection[type], template: str) -> tuple[dict[type, dict[str, Any]], dict[str, Any]]:
    """Return the JSON Schemas of models, as `json_schema` has them, and what they refer to, by names that stay apart.
    `template` is of references, with `{model}` for the name. It may raise anything."""
    adapter = sys.modules["pydantic"].TypeAdapter
    made, found = adapter.json_schemas(
        [(each, "validation", adapter(each)) for each in types], by_alias=True, ref_template=template
    )
    return {each: made[each, "validation"] for each in types}, found.get("$defs", {})


# Faults ---------------------------------------------------------------------------------------------------------


def fault_of(error: Exception) -> str:
    """Return what pydantic refused, in one sentence: `expected …, got … at $.path`."""
    errors = getattr(error, "errors", None)
    if errors is None:
        text = str(error).partition("\n")[0] or type(error).__name__
        return f"expected another value, got one that is refused: {text} at $"
    first = errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    if first["type"] == "missing":
        return f"expected field {first['loc'][-1]}, got none at ${path}"
    if first["type"] == "value_error" or "input" not in first:
        return f"expected another value: {first['msg']} at ${path}"
    return f"expected {first['msg'].removeprefix('Input should be ')}, got {shown(first['input'])} at ${path}"


def shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
