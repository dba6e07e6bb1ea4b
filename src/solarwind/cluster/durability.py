"""Whether "accepted" means on disk: a setting of the servers decides it, and each process that relies on it logs a
line.

NATS acknowledges what it has written, and fsyncs every `sync_interval`: two minutes, or before it acknowledges where
that is `always`. Users cannot see it, unless their account imports the service that tells: see docs/NATS.md.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from nats.aio.msg import Msg

from .session import NoAnswer, Session

log = logging.getLogger("solarwind")

ASKED = "$SYS.REQ.SERVER.PING.JSZ"
ANSWERS_S = 0.5  # that all servers have to answer


class _Config(msgspec.Struct):
    sync_always: bool = False


class _Server(msgspec.Struct):
    name: str


class _Data(msgspec.Struct):
    config: _Config | None = None  # None where a server has no JetStream


class _Answer(msgspec.Struct):
    server: _Server
    data: _Data


async def log_durability(session: Session, replicas: int) -> None:
    """Log what a power cut may lose, unless the servers say that it loses nothing."""
    always = await _ask(session)
    late = sorted(name for name, is_always in always.items() if not is_always)
    cut = "a power cut" if replicas == 1 else f"a power cut of {replicas // 2 + 1} servers at once"
    if late:
        log.warning(
            "accepted does not mean on disk: NATS fsyncs later on %s, and %s may take what it has not; "
            "set sync_interval: always there, see docs/NATS.md",
            ", ".join(late),
            cut,
        )
    elif not always:
        log.info(
            "whether accepted means on disk is NATS's to say, and it tells this user nothing: unless its servers have "
            "sync_interval: always, %s may take what they have not fsynced; see docs/NATS.md",
            cut,
        )


async def _ask(session: Session) -> dict[str, bool]:
    """Return for each server that answers whether it fsyncs before it acknowledges."""
    always: dict[str, bool] = {}

    async def receive(message: Msg) -> None:
        try:
            answer = msgspec.json.decode(message.data, type=_Answer)
        except msgspec.MsgspecError:  # an answer that there is no responder
            return
        if answer.data.config is not None:
            always[answer.server.name] = answer.data.config.sync_always

    try:
        inbox = session.channel.new_inbox()
        subscription = await session.subscribe(inbox, receive)
        await session.tell(ASKED, b'{"config":true}', inbox)
        await asyncio.sleep(ANSWERS_S)
        await session.unsubscribe(subscription)
    except NoAnswer:
        pass
    return always
