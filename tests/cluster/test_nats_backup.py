"""A backup with NATS's own tools: restored, a namespace goes on where it was."""

from __future__ import annotations

import asyncio
import json

from nats.aio.client import Client

from solarwind import Reject, SolarWind
from solarwind.records import PurposeStatistics

from .servers import ANSWER_S, NatsServer, ask, connected, streams

Backup = tuple[dict[str, object], list[bytes]]


async def fired_and_handled(url: str, *numbers: int) -> tuple[PurposeStatistics, list[int]]:
    """Return what the purpose says in the end, and what its handler got. It rejects what is negative."""
    wind, got = SolarWind(url), []

    @wind.on("T", purpose="p", since="beginning")
    async def handle(number: int) -> None:
        got.append(number)
        if number < 0:
            raise Reject("negative")

    async with wind:
        await wind.fire_many("T", numbers)
        await wind.settled(timeout=60)
        return (await wind.statistics()).purposes["T", "p"], got


async def backed_up(client: Client, stream: str) -> Backup:
    """Return a backup, as `nats stream backup` makes it."""
    inbox, parts, over = client.new_inbox(), list[bytes](), asyncio.Event()

    async def take(message: object) -> None:
        data, reply = message.data, message.reply  # type: ignore[attr-defined]
        if not data:
            over.set()
            return
        parts.append(data)
        await client.publish(reply, b"")

    await client.subscribe(inbox, cb=take)
    about = await ask(client, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "no_consumers": True})
    async with asyncio.timeout(ANSWER_S):
        await over.wait()
    return {"config": about["config"], "state": about["state"]}, parts


async def restore(client: Client, stream: str, backup: Backup) -> None:
    about, parts = backup
    to = (await ask(client, f"STREAM.RESTORE.{stream}", about))["deliver_subject"]
    for part in (*parts, b""):
        answer = await client.request(to, part, timeout=ANSWER_S)
    assert "error" not in json.loads(answer.data), answer.data


async def of_namespace(client: Client, namespace: str) -> list[str]:
    return [each for each in await streams(client) if f"SOLARWIND_{namespace}" in each]


def test_what_was_backed_up_goes_on_where_it_was(server: NatsServer, namespace: str) -> None:
    async def go() -> None:
        url = server.url(namespace)
        before, got = await fired_and_handled(url, 1, -1, 2)
        assert (before.settled, before.dead, sorted(got)) == (2, 1, [-1, 1, 2])
        async with connected(server.urls) as client:
            names = await of_namespace(client, namespace)
            assert len(names) == 3, names
            backups = {name: await backed_up(client, name) for name in names}
            for name in names:
                await ask(client, f"STREAM.DELETE.{name}")
            for name in names:
                await restore(client, name, backups[name])
        after, got = await fired_and_handled(url, 3)
        assert got == [3]
        assert (after.settled, after.dead, after.pending) == (3, 1, 0)
        async with SolarWind(url) as wind:
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [-1]

    asyncio.run(go())


def test_a_stream_that_was_deleted_and_made_again_is_not_the_one_before(server: NatsServer, namespace: str) -> None:
    """It is as long as it was, and what is in it is new."""

    async def go() -> None:
        url = server.url(namespace)
        await fired_and_handled(url, 1)
        async with connected(server.urls) as client:
            kept = f"KV_SOLARWIND_{namespace}", f"SOLARWIND_{namespace}_state"
            (events,) = {*await of_namespace(client, namespace)}.difference(kept)
            await ask(client, f"STREAM.DELETE.{events}")
        async with SolarWind(url) as wind:
            await wind.fire("T", 2)
        after, got = await fired_and_handled(url, 3)
        assert got == [2, 3]
        assert (after.settled, after.pending) == (3, 0)

    asyncio.run(go())
