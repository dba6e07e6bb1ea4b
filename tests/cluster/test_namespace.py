"""Namespaces: what is there already is taken as it is or refused with the difference, and never altered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from solarwind import BadArgument, ConflictError, SolarWind
from solarwind.cluster.namespace import FORMAT
from solarwind.testing.contract import on_loop, until

from .processes import process
from .servers import NatsServer, ask, connected, streams

Change = Callable[[dict[str, Any]], dict[str, Any]]


async def config_of(urls: list[str], stream: str) -> dict[str, Any]:
    async with connected(urls) as client:
        config: dict[str, Any] = (await ask(client, f"STREAM.INFO.{stream}"))["config"]
        return config


@on_loop
async def test_two_namespaces_on_a_server_do_not_see_each_other(server: NatsServer, namespace: str) -> None:
    """Not even where one's name begins with the other's."""
    handled: list[tuple[str, str]] = []
    names = [namespace, f"{namespace}-1", namespace.upper()]
    winds = [SolarWind(server.url(name)) for name in names]

    def register(wind: SolarWind, name: str) -> None:
        @wind.on("T", purpose="p")
        async def handle(payload: str) -> None:
            handled.append((name, payload))

    for wind, name in zip(winds, names, strict=True):
        register(wind, name)
    async with winds[0], winds[1], winds[2]:
        for wind, name in zip(winds, names, strict=True):
            await wind.fire("T", name, id="one")
        for wind in winds:
            await wind.settled()
        assert sorted(handled) == sorted((name, name) for name in names)
        for wind in winds:
            assert [each.kept for each in await wind.topics()] == [1]
    async with connected(server.urls) as client:
        for name in names[1:]:
            for stream in [f"KV_SOLARWIND_{name}", f"SOLARWIND_{name}_state"]:
                await ask(client, f"STREAM.DELETE.{stream}")
            for stream in await streams(client):
                if stream.startswith(f"SOLARWIND_{name}_"):
                    await ask(client, f"STREAM.DELETE.{stream}")


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"num_replicas": 1, "retention": "workqueue"}, ['retention "limits", got "workqueue"']),
        ({"duplicate_window": 60_000_000_000}, ["duplicate_window 120000000000, got 60000000000"]),
        ({"allow_atomic": False, "discard": "old"}, ["allow_atomic true, got", 'discard "new", got "old"']),
        ({"metadata": {}}, [f"metadata solarwind={FORMAT}, got none"]),
        ({"metadata": {"solarwind": "1"}}, [f"metadata solarwind={FORMAT}, got 1"]),
        ({"max_age": 3_600_000_000_000, "no_ack": True}, ["max_age 0, got 3600000000000", "no_ack false, got true"]),
        ({"storage": "memory"}, ['storage "file", got "memory"']),
        ({"subjects": ["elsewhere.{namespace}.>"]}, ["subjects [", 'got ["elsewhere.']),
        ({"mirror_of": "subjects"}, ["subjects"]),
    ],
    ids=str,
)
@on_loop
async def test_a_stream_that_is_not_as_it_has_to_be_is_refused(
    change: dict[str, Any], differences: list[str], server: NatsServer, namespace: str
) -> None:
    """With the difference, for the state, the events and the bucket alike; and it is left as it was."""
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as wind:
        await wind.fire("T", 1)
    for stream in (f"SOLARWIND_{namespace}_0", f"SOLARWIND_{namespace}_state", f"KV_SOLARWIND_{namespace}"):
        if stream.startswith("KV") and "allow_atomic" in change:
            continue
        before = await remade(server, stream, change, namespace)
        with pytest.raises(ConflictError) as caught:
            async with SolarWind(url) as wind:
                await wind.fire("T", 2)
        assert stream in str(caught.value)
        for each in differences:
            assert each in str(caught.value)
        assert "\n" not in str(caught.value)
        async with connected(server.urls) as client:
            about = await ask(client, f"STREAM.INFO.{stream}")
            assert about["config"] == before
            await ask(client, f"STREAM.DELETE.{stream}")
        async with SolarWind(url) as wind:  # makes it anew, as it has to be
            await wind.fire("T", 3)


async def remade(server: NatsServer, stream: str, change: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Replace a stream by one that another program made."""
    config = await config_of(server.urls, stream)
    config.update(change)
    if "subjects" in change:
        config["subjects"] = [each.format(namespace=f"{namespace}.{stream}") for each in change["subjects"]]
    if config.pop("mirror_of", None):
        config["subjects"].append(f"more.{namespace}.{stream}")
    async with connected(server.urls) as client:
        await ask(client, f"STREAM.DELETE.{stream}")
        made: dict[str, Any] = (await ask(client, f"STREAM.CREATE.{stream}", config))["config"]
        return made


@on_loop
async def test_somebody_elses_stream_over_our_subjects_is_named(server: NatsServer, namespace: str) -> None:
    """It would have what is fired too, or in place of ours."""
    config = {"name": f"OTHER_{namespace}", "subjects": [f"solarwind.{namespace}.0.>"]}
    async with connected(server.urls) as client:
        await ask(client, f"STREAM.CREATE.{config['name']}", config)
        try:
            async with SolarWind(server.url(namespace, streams=1)) as wind:
                with pytest.raises(ConflictError, match=r"SOLARWIND_.*_0.*subjects overlap"):
                    await wind.fire("T", 1)
        finally:
            await ask(client, f"STREAM.DELETE.{config['name']}")


@on_loop
async def test_settings_of_an_operator_that_we_do_not_need_are_his(server: NatsServer, namespace: str) -> None:
    """More room, compression, a placement: whatever we do not state may be altered with NATS's own tools."""
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as wind:
        await wind.fire("T", 1)
    own = {"max_bytes": 1 << 30, "compression": "s2", "description": "ours", "max_msg_size": 1 << 20}
    for stream in (f"SOLARWIND_{namespace}_0", f"SOLARWIND_{namespace}_state"):
        config = await config_of(server.urls, stream)
        async with connected(server.urls) as client:
            await ask(client, f"STREAM.UPDATE.{stream}", config | own)
    async with SolarWind(url) as wind:
        await wind.fire("T", 2)
        assert [each.kept for each in await wind.topics()] == [2]


@pytest.mark.parametrize(
    ("option", "made", "stated"),
    [("streams", 4, 8), ("words", 1, 0), ("replicas", 1, 3), ("dedup", 60, 120), ("keep", 3600, 7200.5)],
)
@on_loop
async def test_a_url_that_contradicts_a_namespace_is_refused(
    option: str, made: float, stated: float, server: NatsServer, namespace: str
) -> None:
    """And one that states nothing takes what is there."""
    async with SolarWind(server.url(namespace, **{option: made})):
        pass
    with pytest.raises(BadArgument) as caught:
        async with SolarWind(server.url(namespace, **{option: stated})):
            pass
    assert f"expected {option}={made:g}" in str(caught.value)
    assert f"got {option}={stated:g}" in str(caught.value)
    async with SolarWind(server.url(namespace)) as wind:
        await wind.fire("T", 1)
    async with SolarWind(server.url(namespace, **{option: made})) as wind:
        assert [each.kept for each in await wind.topics()] == [1]


@on_loop
async def test_a_namespace_that_several_make_at_the_same_moment_is_one(server: NatsServer, namespace: str) -> None:
    """Processes of their own and others; who states something else than the first of them is refused."""
    topics = ["T", "T1", "T2", "T3"]
    streams = [2, 3, 2, 3, 2]
    winds = [SolarWind(server.url(namespace, streams=each)) for each in streams]
    starts = await asyncio.gather(*(wind.start() for wind in winds), return_exceptions=True)
    opened = {each for each, refusal in zip(streams, starts, strict=True) if refusal is None}
    assert len(opened) == 1, "all who agree with the first"
    for each, refusal in zip(streams, starts, strict=True):
        if each not in opened:
            assert isinstance(refusal, BadArgument)
            assert f"got streams={each}" in str(refusal)
    running = [wind for wind, refusal in zip(winds, starts, strict=True) if refusal is None]
    url = server.url(namespace)
    async with process(url, topics=topics) as first, process(url, topics=topics) as second:
        await asyncio.gather(*(wind.fire(topic, 1) for wind in running for topic in topics))
        count = len(running) * len(topics)
        await until(lambda: len(first.handled()) + len(second.handled()) == count)
        for wind in running:
            assert {each.kept for each in await wind.topics()} == {len(running)}
            await wind.stop()


def test_what_is_no_namespace_is_refused() -> None:
    for url in ("nats://h/a.b", "nats://h/a b", "nats://h/a*", "nats://h/%3E", "nats://h/" + "a" * 65, "nats://h/a/b"):
        with pytest.raises(BadArgument, match="expected a namespace"):
            SolarWind(url)
    for url, word in (
        ("nats://h/?streams=0", "streams"),
        ("nats://h/?streams=1001", "streams"),
        ("nats://h/?streams=2.5", "streams"),
        ("nats://h/?replicas=x", "replicas"),
        ("nats://h/?dedup=0.1", "dedup"),
        ("nats://h/?keep=-1", "keep"),
        ("nats://h/?keep=nan", "keep"),
        ("nats://h/?steams=1", "one of creds, tls, streams"),
        ("nats://h/?streams=1&streams=2", "once"),
        ("nats://h/?tls=maybe", "tls"),
        ("nats://h:0/", "server"),
        ("nats:///x", "server"),
        ("nats://h,/x", "server"),
        ("nats://user:secret@h:99999/", "server"),
        ("nats://h/x#y", "#"),
    ):
        with pytest.raises(BadArgument) as caught:
            SolarWind(url)
        assert word in str(caught.value)
        assert "secret" not in str(caught.value)
