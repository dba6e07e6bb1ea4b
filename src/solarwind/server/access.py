"""Access control: tokens, the file that holds them, and the one check that guards every endpoint.

A token is `sw_`, its id, and a secret of 256 bits. The file holds only the secret's SHA-256, so reading the file gives
no access. A secret of that length needs no slow hash.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Literal

import msgspec

from ..errors import BadArgument, BadName, BadToken, ConflictError, NotAllowed, NotFound, TooLarge
from ..names import check_path, check_purpose, check_topic
from ..origin import user_name, user_of

log = logging.getLogger("solarwind")

ANY = "*"
MAX_TOKENS = 10_000
MAX_CHANGES = 1_000  # of tokens that a file keeps
MAX_RIGHTS = 1_000  # topics, and as many purposes, for one token
_MAX_BYTES = 64 << 20
_MAX_NAME = 200
_ID_BYTES = 6
_SECRET_BYTES = 32
_MAKES = "which the server's operator makes with `solarwind token create`"
_ANOTHER, _NEW = f"give one that has, {_MAKES}", f"give another, {_MAKES}"


class Listen(msgspec.Struct, frozen=True):
    """The right to join purposes: of one topic or any (`*`), this purpose or any."""

    topic: str
    purpose: str = ANY


class Grant(msgspec.Struct, frozen=True):
    """The rights of one token, or of every client where there are no tokens."""

    name: str
    fire: tuple[str, ...] = ()
    listen: tuple[Listen, ...] = ()
    admin: bool = False
    watch: bool = False
    watch_payloads: bool = False
    id: str | None = None  # of the token; None where there are no tokens

    @property
    def sees_payloads(self) -> bool:
        """Whether it may see payloads and errors, which may quote them."""
        return self.watch_payloads or self.admin

    def check_fire(self, topic: str | None) -> None:
        """Raise `NotAllowed` unless it may fire on `topic`; None is any at all."""
        if not self.fire or (topic is not None and topic not in self.fire and ANY not in self.fire):
            where = "" if topic is None else f" on {topic!r}"
            raise NotAllowed(
                f"expected a token with the right to fire{where}, got {self.name!r}, which does not have it: {_ANOTHER}"
            )

    def check_listen(self, topic: str, purpose: str) -> None:
        """Raise `NotAllowed` unless it may join the purpose."""
        if not any(each.topic in (topic, ANY) and each.purpose in (purpose, ANY) for each in self.listen):
            raise NotAllowed(
                f"expected a token with the right to listen to {topic!r} for {purpose!r}, "
                f"got {self.name!r}, which does not have it: {_ANOTHER}"
            )

    def check_watch(self) -> None:
        """Raise `NotAllowed` unless it may see facts: with the right `watch`, `watch:payloads` or `admin`."""
        if not (self.watch or self.sees_payloads):
            raise NotAllowed(
                f"expected a token with the right to watch, got {self.name!r}, which does not have it: {_ANOTHER}"
            )

    def check_admin(self) -> None:
        """Raise `NotAllowed` unless it has the right `admin`."""
        if not self.admin:
            raise NotAllowed(
                f"expected a token with the right admin, got {self.name!r}, which does not have it: {_ANOTHER}"
            )


EVERYTHING = Grant("anybody", (ANY,), (Listen(ANY),), True)


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file stores of a token."""

    id: str
    name: str
    sha256: str  # of its secret
    fire: tuple[str, ...] = ()
    listen: tuple[Listen, ...] = ()
    admin: bool = False
    watch: bool = False
    watch_payloads: bool = False
    created: datetime
    expires: datetime | None = None


class TokenChange(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did with a token: a server notes it in its audit."""

    time: datetime
    by: str  # a user and a machine
    verb: Literal["token create", "token revoke"]
    name: str
    id: str


class _File(msgspec.Struct, kw_only=True):
    version: int = 1
    tokens: list[Token]
    changes: list[TokenChange] = []  # the last ones


_NOBODY = bytes(sha256().digest_size)  # no known secret has this hash

# Passing failures, which say nothing about the file.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, errno.EIO}

_Stamp = tuple[int, int, int]  # differs when the file was replaced, written, or given another mode


# --- the check --------------------------------------------------------------------------------------------------


class Access:
    """Checks tokens against a file. The file is read again whenever it has changed, so that a token can be revoked at
    once.

    Without a path every client may do everything. With `required=False` that holds until the file exists; once it did,
    a token is required. Raise `BadArgument` where the file is invalid; a file that becomes invalid later denies all
    access. While it cannot be read, the known tokens stay valid, and each request tries again."""

    def __init__(
        self,
        path: str | None = None,
        *,
        required: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._now = now
        self._stamp: _Stamp | None = None
        self._by_id: dict[str, tuple[bytes, Token, Grant]] = {}
        self._open = path is None
        self._changes: list[TokenChange] = []
        self._unread = False  # already logged
        if path is not None:
            if not required and not os.path.lexists(check_path(path)):
                self._open = True
            else:
                try:
                    self._read(path)
                except OSError as error:
                    raise _unopened(path, error) from None

    @property
    def open(self) -> bool:
        """Whether every client may do everything."""
        if self._path is not None:
            self._look(self._path)
        return self._open

    @property
    def changes(self) -> list[TokenChange]:
        """What was done with tokens: the last changes, in order. The same list as long as the file is the same."""
        if self._path is not None:
            self._look(self._path)
        return self._changes

    def grant(self, token: str | None, uid: int | None = None) -> Grant:
        """Return the rights of `token`. Raise `BadToken` where it is missing, unknown, revoked or expired.

        `uid` is the client's user, as the kernel names it for a Unix socket. Where no token is required it has to be
        the server's, or root: raise `NotAllowed`."""
        if self.open:
            return EVERYTHING if uid is None else _local(uid)
        if not token:
            raise BadToken(
                "expected a token, got none: give yours as $SOLARWIND_TOKEN, or `Authorization: Bearer` by HTTP; "
                "the server's operator makes one with `solarwind token create`"
            )
        prefix, _, rest = token.partition("_")
        id, _, secret = rest.partition("_")
        known, found, grant = self._by_id.get(id, (_NOBODY, None, None))
        same = hmac.compare_digest(known, sha256(secret.encode("utf-8", "surrogatepass")).digest())
        if not same or prefix != "sw" or found is None or grant is None:
            raise BadToken(f"expected a token that is known, got one that is not, or was revoked: {_NEW}")
        self._check_time(found)
        return grant if uid is None else msgspec.structs.replace(grant, name=f"{grant.name} of {user_of(uid)}")

    def owned(self, id: str | None) -> Grant:
        """Return the rights of the token with this id; None stands for a client that came while no token was required.
        Raise `BadToken`."""
        if self.open:
            return EVERYTHING
        _, found, grant = self._by_id.get(id or "", (_NOBODY, None, None))
        if found is None or grant is None:
            raise BadToken(f"expected a token that is known, got none, or one that was revoked: {_NEW}")
        self._check_time(found)
        return grant

    def _check_time(self, token: Token) -> None:
        if token.expires is not None and token.expires <= self._now():
            raise BadToken(
                f"expected a token that is valid, got {token.name!r}, which expired at {token.expires}: {_NEW}"
            )

    def holds(self, token: str | None) -> bool:
        """Return whether a token is still valid. An open connection ends when its token is revoked."""
        try:
            self.grant(token)
        except BadToken:
            return False
        return True

    def refusal(self, token: str | None) -> BadToken:
        """Return the error for a token that is not valid."""
        try:
            self.grant(token)
        except BadToken as error:
            return error
        return BadToken("expected a token that is known, got one that was revoked")

    def _look(self, path: str) -> None:
        """Read the file if it has changed. An invalid file denies all access."""
        try:
            stamp = _stamp(os.stat(path))
        except FileNotFoundError:
            if self._open:
                return
            stamp = (0, 0, 0)
        except OSError as error:
            if error.errno in _PASSING:
                self._note_unread(error)
                return
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return
        self._open = False
        try:
            self._read(path)
        except OSError as error:
            self._note_unread(error)
        except BadArgument as error:
            self._stamp = stamp
            self._by_id = {}
            log.error("all access is denied: %s", error)

    def _note_unread(self, error: OSError) -> None:
        if not self._unread:
            self._unread = True
            log.error("the tokens cannot be read for now (%s): the known ones stay in force", error.strerror)

    def _read(self, path: str) -> None:
        """Read the tokens. Raise `BadArgument`, and `OSError` for a temporary failure."""
        file, self._stamp = _read(path)
        self._unread = False
        self._by_id = {each.id: (bytes.fromhex(each.sha256), each, _grant_of(each)) for each in file.tokens}
        self._changes = file.changes


@lru_cache(maxsize=1_000)
def _local(uid: int) -> Grant:
    """Return the rights of a user of this machine where no token is required. Raise `NotAllowed`."""
    if uid not in (0, os.geteuid()):
        raise NotAllowed(
            f"expected a client of the server's user, {user_of(os.geteuid())}, or of root, as this server has no "
            f"tokens, got one of {user_of(uid)}: make tokens with `solarwind token create`, which then all users need"
        )
    return msgspec.structs.replace(EVERYTHING, name=user_of(uid))


def _grant_of(token: Token) -> Grant:
    return Grant(token.name, token.fire, token.listen, token.admin, token.watch, token.watch_payloads, token.id)


# --- the file ---------------------------------------------------------------------------------------------------


def read_tokens(path: str) -> list[Token]:
    """Return the tokens of a file. Raise `BadArgument` where it is invalid, or users other than its owner may read or
    write it."""
    return _read_file(path).tokens


def _read_file(path: str) -> _File:
    try:
        return _read(path)[0]
    except OSError as error:
        raise _unopened(path, error) from None


def _read(path: str) -> tuple[_File, _Stamp]:
    try:
        file = os.open(check_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise _unopened(path, error) from None
    try:
        facts = os.fstat(file)
        _check_file(path, facts)
        with open(file, "rb", closefd=False) as opened:
            data = opened.read(_MAX_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > _MAX_BYTES:
        raise BadArgument(f"expected a file of tokens of at most {_MAX_BYTES:,} bytes, got more at {path}")
    return _decode(path, data), _stamp(facts)


def _unopened(path: str, error: OSError) -> BadArgument:
    return BadArgument(
        f"expected a file of tokens at {path}, which cannot be opened: {error.strerror}: "
        "make one with `solarwind token create`"
    )


def _check_file(path: str, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise BadArgument(f"expected a file of tokens, but {path} is not a file: name another")
    if facts.st_uid != os.geteuid():
        raise BadArgument(
            f"expected a file of tokens of the user that serves, but {path} belongs to user {facts.st_uid}: "
            f"chown {os.geteuid()} it"
        )
    if facts.st_mode & 0o077:
        raise BadArgument(
            f"expected a file of tokens that nobody else may read or write, but {path} has mode "
            f"{stat.S_IMODE(facts.st_mode):04o}: chmod 600 it"
        )


def _decode(path: str, data: bytes) -> _File:
    try:
        file = msgspec.json.decode(data, type=_File)
        for each in file.tokens:
            if len(bytes.fromhex(each.sha256)) != len(_NOBODY):
                raise ValueError(f"the hash of {each.name!r} has not {len(_NOBODY)} bytes")
            if any(when is not None and when.tzinfo is None for when in (each.created, each.expires)):
                raise ValueError(f"a time of {each.name!r} has no offset")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadArgument(f"expected a file of tokens, but {path} is not one: {error}") from None
    if file.version != 1:
        raise BadArgument(f"expected a file of tokens of version 1, but {path} has {file.version}: use a newer release")
    return file


def _stamp(facts: os.stat_result) -> _Stamp:
    return facts.st_ctime_ns, facts.st_ino, facts.st_size


# --- creating and revoking --------------------------------------------------------------------------------------


def create_token(
    path: str,
    name: str,
    *,
    fire: tuple[str, ...] = (),
    listen: tuple[Listen, ...] = (),
    admin: bool = False,
    watch: bool = False,
    watch_payloads: bool = False,
    expires: timedelta | None = None,
    now: datetime | None = None,
) -> tuple[str, Token]:
    """Add a token to a file, which is created if need be. Return its text, which is stored nowhere, and what is stored
    of it.

    Raise `BadName`, `BadArgument`, and `ConflictError` where the name is in use.
    """
    if not 1 <= len(name) <= _MAX_NAME or name != name.strip() or not name.isprintable():
        raise BadName(f"expected a name of 1 to {_MAX_NAME} printable characters, no space at either end, got {name!a}")
    for topic in (*fire, *(each.topic for each in listen)):
        if topic != ANY:
            check_topic(topic)
    for each in listen:
        if each.purpose != ANY:
            check_purpose(each.purpose)
    if not (fire or listen or admin or watch or watch_payloads):
        raise BadArgument(
            "expected a right for the token, got none: say --fire TOPIC, --listen TOPIC, --watch, --watch-payloads or "
            "--admin"
        )
    if len(fire) + len(listen) > MAX_RIGHTS:
        raise TooLarge(f"expected at most {MAX_RIGHTS:,} topics and purposes for a token, got more: use {ANY}")
    now = now or datetime.now(UTC)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    made = Token(
        id=secrets.token_hex(_ID_BYTES),
        name=name,
        sha256=sha256(secret.encode()).hexdigest(),
        fire=fire,
        listen=listen,
        admin=admin,
        watch=watch,
        watch_payloads=watch_payloads,
        created=now,
        expires=None if expires is None else now + expires,
    )
    with _changing(path) as file:
        tokens = file.tokens
        if any(each.name == name for each in tokens):
            raise ConflictError(f"expected a name that no token has, got {name!r}: revoke that one, or choose another")
        if len(tokens) >= MAX_TOKENS:
            raise TooLarge(f"expected at most {MAX_TOKENS:,} tokens, got another: revoke some")
        tokens.append(made)
        _note_change(file, "token create", made)
    return f"sw_{made.id}_{secret}", made


def revoke_token(path: str, name_or_id: str) -> Token:
    """Remove a token from a file and return it. Raise `NotFound`, and `BadArgument` where the file is invalid."""
    with _changing(path) as file:
        tokens = file.tokens
        named = [each for each in tokens if each.name == name_or_id]
        found = named or [each for each in tokens if each.id == name_or_id]
        if not found:
            raise NotFound(f"expected a token of {path} by name or id, got {name_or_id!a}, which none has")
        tokens.remove(found[0])
        _note_change(file, "token revoke", found[0])
    return found[0]


def _note_change(file: _File, verb: Literal["token create", "token revoke"], token: Token) -> None:
    change = TokenChange(time=datetime.now(UTC), by=user_name(), verb=verb, name=token.name, id=token.id)
    file.changes = [*file.changes, change][-MAX_CHANGES:]


@contextmanager
def _changing(path: str) -> Iterator[_File]:
    """Yield the file for a change that is written as a whole, by one process at a time."""
    path = os.path.realpath(check_path(path))
    folder = os.path.dirname(path)
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadArgument(f"expected a folder for the tokens, but {folder} cannot be read: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _read_file(path) if os.path.lexists(path) else _File(tokens=[])
        yield found
        _replace(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        os.fsync(lock)
    finally:
        os.close(lock)


def _replace(path: str, data: bytes) -> None:
    file, made = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}-")  # of mode 0600
    try:
        with open(file, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(file)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise
