"""What is asked of a dispatcher: the type of an operation's row, and of one request for it.

The table itself is `solarwind/operations.py`. A row says everything about an operation in one place; the method of
`SolarWind`, the message of the protocol, the way to the owner of a topic, the HTTP endpoint and the command are made
from it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from inspect import Parameter, signature
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    get_type_hints,
    overload,
)

import msgspec

from ..calls import wrong_call
from ..errors import BadArgument
from .answers import AnswerForm, form_of
from .arguments import MAX_WAIT_S, ArgumentKind, kind_of

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")
Owns = Callable[[str], bool]  # whether a topic is of the partition that answered


class Request(msgspec.Struct, Generic[R], frozen=True):
    """An operation, and its arguments by name: all of them, checked. `by` is who asks, as far as it is known."""

    operation: Operation[..., R]
    arguments: dict[str, Any]
    by: str = ""


class Asked(Protocol):
    """What an operation can be asked of: an engine, or a `SolarWind` on one."""

    async def ask(self, request: Request[R]) -> R:
        """Do the operation and return its answer. Raise what it raises, and `Unavailable`."""
        ...


class Http(msgspec.Struct, frozen=True):
    """The HTTP endpoint of an operation. An argument that the path does not name stands in the query, or with POST in
    the body, whose schema has the name `body` and the description `about`. `key` is the field of the answer that has
    the list or the number; without one it is the answer itself, or `204` where there is none."""

    method: str
    path: str
    summary: str
    key: str = ""
    body: str = ""
    about: str = ""


class Cli(msgspec.Struct, frozen=True):
    """The command of an operation. Topics, purposes and ids are its arguments, and what else there is its options, with
    this help in `options`; those in `consent` have no environment variable. It prints `says` of a number, or of none,
    and `says_dry` of a number that was only counted; of an empty list, of False, or of 0, `none`. `key` is said to be
    true in JSON where there is no answer. A trace has the option `--follow`, with this help in `follow`."""

    words: str
    help: str
    says: str = ""
    says_dry: str = ""
    none: str = ""
    key: str = ""
    options: dict[str, str] = {}
    consent: tuple[str, ...] = ()
    follow: str = ""
    examples: tuple[str, ...] = ()


class Restated(msgspec.Struct, frozen=True):
    """What a client states of itself: of each `what`, an argument, the last counts, and what it leaves out stays as it
    was stated before. `always`: it is told anew to a dispatcher that has forgotten nothing, too, for what that says."""

    what: str
    always: bool = False


class Operation(Generic[P, R]):
    """A row of the table: a descriptor, so that what has the table as a base class has each operation as a method."""

    def __init__(
        self,
        function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
        *,
        right: Literal["watch", "admin", "own", "fire", "relay"] | None = None,
        to: Literal["owner", "any", "all", "engine"] = "owner",
        merge: Callable[[Sequence[tuple[R, Owns]]], R] | None = None,
        repeat: Literal["never", "question", "always"] = "never",
        makes: bool = False,
        restated: Restated | None = None,
        unstates: str = "",
        check: Callable[[dict[str, Any]], None] | None = None,
        http: Http | None = None,
        cli: Cli | None = None,
    ) -> None:
        """`function` is the method of `Operations` that does it where the dispatcher is; its annotations are the kinds
        of the arguments.

        - `right`: by default "watch" for a question and else "admin"; "own" where a client with instances of all the
          purposes may ask about them, and who has the right "admin" of any; "fire" for who may fire on the topic,
          "relay" on any at all. Who may watch gets no payloads and errors with an answer unless its token says so: see
          `server/payloads.py`
        - `to`: on a cluster, to the "owner" of the argument `topic`, which has to be known unless it `makes` it; to
          "any" that has an answer other than False or `NotFound`, the owner of the topic first; to "all" owners, whose
          answers `merge` makes one of; or the "engine" of the process does it by itself
        - `repeat`: whether it may be asked again when no answer came: "never"; a "question" changes nothing, and may
          be asked of the next owner; "always" waits for an answer, however long the dispatcher is out of reach
        - `restated`: a client asks it again when a dispatcher is back that has forgotten it, but for one of the same
          name that another operation `unstates`
        - `check`: of several arguments together
        """
        self.function, self.to, self.merge = function, to, merge
        self.right = right or ("watch" if repeat == "question" else "admin")
        self.repeat, self.makes, self._check = repeat, makes, check
        self.restated, self.unstates = restated, unstates
        self.http, self.cli = http, cli
        self.name = function.__name__
        self.audited = self.right == "admin"  # it is noted who did it
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__signature__ = signature(function)
        hints = get_type_hints(function, include_extras=True)
        self.form: AnswerForm = form_of(hints.pop("return"))
        self.kinds: dict[str, ArgumentKind] = {name: kind_of(hint) for name, hint in hints.items()}
        # What an argument is called that is the path of a file, which the operation makes where it is asked.
        self.file = next((name for name, kind in self.kinds.items() if kind.wire is None), None)
        self.follows = {"after", "wait"} <= self.kinds.keys()  # it may go on for ever: see `follow`
        self.defaults = {
            name: each.default
            for name, each in self.__signature__.parameters.items()
            if each.default is not Parameter.empty
        }
        self.required = self.kinds.keys() - self.defaults.keys()
        self.message: type[msgspec.Struct] = msgspec.defstruct(
            f"{self.name.title().replace('_', '')}Arguments",
            [self._field(name, kind) for name, kind in self.kinds.items() if kind.wire is not None],
            forbid_unknown_fields=True,
            kw_only=True,
        )

    def _field(self, name: str, kind: ArgumentKind) -> tuple[Any, ...]:
        if name in self.defaults:
            return name, kind.wire, kind.pack(self.defaults[name])
        return name, kind.wire

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, of: None, owner: type) -> Self: ...

    @overload
    def __get__(self, of: Asked, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __get__(self, of: object, owner: type) -> Self: ...  # for types alone: as the field of a record it is itself

    def __get__(self, of: Any, owner: type) -> Any:
        if of is None:
            return self
        return MethodType(self, of)

    def __call__(self, of: Asked, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Ask it of an engine or a `SolarWind`. Raise `BadArgument` for arguments that it does not have, and when it is
        awaited `BadName` and `BadArgument` for invalid values."""
        arguments = dict(zip(self.kinds, args, strict=False)) | kwargs
        known = self.required <= arguments.keys() <= self.kinds.keys()
        if not known or len(arguments) != len(args) + len(kwargs):
            takes = list(self.__signature__.parameters.values())[1:]
            raise BadArgument(wrong_call(self.name, takes, args, kwargs))
        return self._ask(of, arguments)

    async def _ask(self, of: Asked, arguments: dict[str, Any]) -> R:
        return await of.ask(self.request(arguments))

    async def follow(self, of: Asked, /, **arguments: Any) -> AsyncIterator[Any]:
        """Yield the items of all pages, and those to come, for operations with the arguments `after` and `wait`. Each
        page is a request of its own: so a slow reader holds nothing up, and goes on where a connection was lost."""
        after = arguments.pop("after", None)
        while True:
            page: Any = await of.ask(self.request({**arguments, "after": after, "wait": MAX_WAIT_S}))
            for item in page:
                yield item
            after = page.next

    def request(self, arguments: dict[str, Any]) -> Request[R]:
        """Check the arguments, which came from any endpoint; those left out have their defaults. Raise `BadName` and
        `BadArgument`."""
        given = self.defaults | arguments
        arguments = {name: kind.check(given[name], name) for name, kind in self.kinds.items()}
        if self._check is not None:
            self._check(arguments)
        return Request(self, arguments)

    # As it travels ------------------------------------------------------------------------------------

    def pack(self, request: Request[R]) -> msgspec.Struct:
        """Return the arguments of a `call` message."""
        packed = {name: self.kinds[name].pack(request.arguments[name]) for name in self.message.__struct_fields__}
        return self.message(**packed)

    def read(self, data: msgspec.Raw) -> msgspec.Struct:
        """Read the arguments of a `call` message. Raise `BadArgument`."""
        try:
            return msgspec.msgpack.decode(data, type=self.message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadArgument(f"expected the arguments of {self.name}: {error}") from None

    def unpack(self, message: msgspec.Struct, more: dict[str, Any] | None = None) -> Request[R]:
        """Return the request that the arguments of a `call` message make, and `more`. Raise `BadName` and
        `BadArgument`."""
        arguments = {name: self.kinds[name].read(getattr(message, name)) for name in self.message.__struct_fields__}
        return self.request(arguments | (more or {}))
