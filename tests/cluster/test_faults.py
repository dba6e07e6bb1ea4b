"""A cluster under load that nodes and processes fall out of: nothing accepted is lost or stored twice, nothing whose
settle was confirmed comes again, the order of a key holds, and every service is soon at work again.

`make test-cluster` does it for longer, and prints how long it took.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from time import monotonic
from typing import Any

import pytest

from .lives import CHILDREN, KEYS, TOGETHER, TOPICS
from .servers import NatsCluster, NatsServer
from .story import Note, Story
from .wires import WiredCluster

SECONDS = float(os.environ.get("FAULTS_S", "0"))  # of each kind; 0 for all kinds once, in turn
# `make test-cluster` has the machine to itself; a round among the other tests shares it with them.
BACK_S = 5.0 if SECONDS else 15.0
BETWEEN_KILLS_S = 2.0
LEADER_S = 0.5  # that somebody has to say who leads; while nobody knows, any node will do
AWAY_S = 10.0  # that a node stands still or is cut off: its cluster may need 9 to elect others in its place
HELD_S = 7.0  # that an owner stands still: it is replaced after 3
DOWN_S = 4.0  # that all nodes are down
SETTLE_S = 4.0  # that nodes have to copy new streams, before anything is done to them
MAX_BUSY = 0.1  # of a processor
MAX_LINES = 150  # that a process logs about a fault
IN_HAND_S = 6.0  # that somebody who stands still is given events: two heartbeats, and until its owner looks
Number = tuple[str, str, int]


async def victim(story: Story, chance: random.Random) -> NatsServer:
    """Return the leader of some stream, or any node."""
    stream = chance.choice(["events", "state", "bucket", ""])
    names = {
        "events": story.layout.events_stream(story.layout.partition(chance.choice(TOPICS))),
        "state": story.layout.state_stream,
        "bucket": story.layout.bucket_stream,
    }
    leader = None
    if stream:
        with suppress(TimeoutError):
            async with asyncio.timeout(LEADER_S):
                leader = await story.cluster.leader(names[stream])
    return leader or chance.choice(story.cluster.nodes)


async def kill_nodes(story: Story, chance: random.Random, seconds: float) -> None:
    """Kill nodes with SIGKILL, one every two seconds."""
    end = monotonic() + seconds
    while True:
        next_kill = monotonic() + BETWEEN_KILLS_S
        node = await victim(story, chance)
        story.fault(f"kill -9 {node.name}")
        node.kill()
        await asyncio.sleep(chance.random() * BETWEEN_KILLS_S / 2)
        node.launch()
        if monotonic() > end:
            break
        await asyncio.sleep(max(0.0, next_kill - monotonic()))
    await story.cluster_ready()


async def hold_up_node(story: Story, chance: random.Random, seconds: float) -> None:
    end = monotonic() + seconds
    while True:
        node = await victim(story, chance)
        story.fault(f"SIGSTOP {node.name}")
        node.pause()
        await asyncio.sleep(AWAY_S)
        story.fault(f"SIGCONT {node.name}")
        node.resume()
        await story.cluster_ready()
        await story.are_at_work(monotonic())
        if monotonic() > end:
            break


async def cut_off(story: Story, chance: random.Random, seconds: float) -> None:
    cluster = story.cluster
    assert isinstance(cluster, WiredCluster)
    end = monotonic() + seconds
    number = 0
    while True:
        node = await victim(story, chance)
        from_clients = bool(number % 2)
        story.fault(f"cut off {node.name}, from clients too: {from_clients}")
        cluster.cut_off(node, from_clients=from_clients)
        await asyncio.sleep(AWAY_S)
        story.fault(f"heal {node.name}")
        cluster.heal(node)
        await story.cluster_ready()
        await story.are_at_work(monotonic())
        number += 1
        if monotonic() > end and number > 1:
            break


async def restart_all(story: Story, chance: random.Random, seconds: float) -> None:
    """Restart all nodes: by SIGKILL, in order, or all but one, which is no quorum either."""
    end = monotonic() + seconds
    number = 0
    while True:
        gone = story.cluster.nodes[number % 3 // 2 :]
        story.fault(f"{len(gone)} nodes go")
        await asyncio.gather(*(node.stop() for node in gone if number % 3 == 1))
        for node in gone:
            node.kill()
        await story.idle(DOWN_S)
        for node in gone:
            node.launch()
        await story.cluster_ready()
        story.fault("all nodes are back")
        await story.are_at_work(monotonic())
        number += 1
        if monotonic() > end:
            break


async def kill_processes(story: Story, chance: random.Random, seconds: float) -> None:
    end = monotonic() + seconds
    while True:
        await story.are_at_work(monotonic())
        owner = await story.owner(chance.choice((*TOPICS, CHILDREN)))
        what = chance.choice(["owner", "owner", "producer", "service", "hold up"])
        if what == "hold up":
            await hold_up(story, owner)
        elif what == "producer":
            story.kill(chance.choice(list(story.producers)))
        else:
            story.kill(owner if what == "owner" else chance.choice(list(story.services)))
        if monotonic() > end:
            break
    await story.are_at_work(monotonic())
    await hold_up(story, await story.owner(TOPICS[0]))
    await story.are_at_work(monotonic())


async def hold_up(story: Story, name: str) -> None:
    """Stop an owner for a moment, wherever it is."""
    life = story.services[name]
    story.fault(f"SIGSTOP {name}")
    start = monotonic()
    life.send(SIGSTOP)
    await asyncio.sleep(HELD_S)
    story.fault(f"SIGCONT {name}")
    life.send(SIGCONT)
    story.excuses.append((name, start, monotonic()))


KINDS: dict[str, Callable[[Story, random.Random, float], Awaitable[None]]] = {
    "kill -9 of nodes": kill_nodes,
    "nodes stand still": hold_up_node,
    "nodes are cut off": cut_off,
    "all nodes are restarted": restart_all,
    "processes are killed": kill_processes,
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_no_event_is_lost_stored_twice_or_out_of_order_under_faults(
    kind: str, own: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = own(WiredCluster if kind == "nodes are cut off" else NatsCluster)
    chance = random.Random(int(os.environ.get("SEED", random.randrange(1000))))

    async def run() -> tuple[Story, dict[str, list[tuple[str, int]]]]:
        await cluster.start()
        story = Story(cluster, tmp_path)
        async with story.told():
            await asyncio.sleep(SETTLE_S)
            await KINDS[kind](story, chance, SECONDS)
            stored = await story.end()
        return story, stored

    story, stored = asyncio.run(run())
    with capsys.disabled() if SECONDS else nullcontext():
        story.show(kind)
    check_what_is_stored(story, stored)
    check_that_all_is_handled(story, stored)
    check_that_nothing_confirmed_comes_again(story)
    check_the_order_of_keys(story)
    check_that_all_are_soon_at_work(story)
    check_that_nobody_is_busy_with_nothing(story)


def check_what_is_stored(story: Story, stored: dict[str, list[tuple[str, int]]]) -> None:
    """Check that accepted events are stored once, and of those under way when a producer was killed only some."""
    for topic, events in stored.items():
        twice = [event for event, count in Counter(events).items() if count > 1]
        assert not twice, f"{len(twice)} on {topic} are stored twice, such as {twice[:5]}"
    for topic in TOPICS:
        expected = {(name, number) for name, count in story.accepted(topic).items() for number in range(count)}
        lost = expected - set(stored[topic])
        assert not lost, f"{len(lost)} on {topic} are lost, such as {sorted(lost)[:5]}"
        more = set(stored[topic]) - expected
        assert all(number < story.accepted(topic).get(name, 0) + TOGETHER for name, number in more), more
    children = {(f"{topic}/{name}", number) for topic in TOPICS for name, number in stored[topic]}
    assert children == set(stored[CHILDREN]), "each event has its child, and no other has"


def check_that_all_is_handled(story: Story, stored: dict[str, list[tuple[str, int]]]) -> None:
    handled: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for note in story.notes():
        if note.verb == "handled":
            handled.setdefault((note.topic, note.purpose), set()).add((note.producer, note.number))
    for (topic, purpose), numbers in handled.items():
        missing = set(stored[topic]) - numbers
        assert not missing, f"{len(missing)} on {topic} not handled for {purpose}: {sorted(missing)[:5]}"
    for (topic, purpose), counts in story.statistics.purposes.items():
        assert (counts.settled, counts.dead, counts.pending) == (len(stored[topic]), 0, 0), (topic, purpose, counts)


def check_that_nothing_confirmed_comes_again(story: Story) -> None:
    """Check that no settled event comes again, but for those in hand of a process that stood still and was replaced."""
    confirmed: dict[Number, Note] = {}
    for note in story.notes():
        event = (note.topic, note.producer, note.number)
        if note.verb == "confirmed":
            assert event not in confirmed, f"confirmed twice: {note}, {confirmed[event]}"
            confirmed[event] = note
        elif note.purpose == "confirmed" and event in confirmed:
            stood_still = story.stood_still(note.service, confirmed[event].time, note.time)
            had_it = stood_still is not None and story.accepted_at(event) < stood_still + IN_HAND_S
            assert had_it, f"{note} comes again after {confirmed[event]}"
    assert len(confirmed) > 100


def check_the_order_of_keys(story: Story) -> None:
    """Check that no event overtakes another of its key: after a fault, a key at most begins anew a little way back."""
    reached: dict[Number, int] = {}
    for note in story.notes():
        if note.purpose == "keyed":
            key = (note.topic, note.producer, note.number % KEYS)
            before = reached.get(key, note.number % KEYS - KEYS)
            assert note.number <= before + KEYS, f"{note} came before {before + KEYS}"
            reached[key] = max(before, note.number)


def check_that_all_are_soon_at_work(story: Story) -> None:
    """Check that each service is soon at work for each purpose, from when NATS takes messages again, or from the fault
    if that is not NATS's."""
    late = [pause for pause in story.pauses(BACK_S) if pause.own > BACK_S]
    assert not late, late


def check_that_nobody_is_busy_with_nothing(story: Story) -> None:
    assert all(share < MAX_BUSY for _, share in story.busy), story.busy
    for life in story.all():
        lines = len(life.errors.splitlines())
        assert lines < MAX_LINES * len(story.faults), life.errors[-4000:]
