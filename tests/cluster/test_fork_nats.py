"""A child that was forked from a process on nats://: what is its parent's is left alone, and says so."""

from __future__ import annotations

from test_fork import FORK, POOL, said

from .servers import NatsServer


def test_a_forked_child_on_nats_is_told_that_the_solarwind_is_its_parents(server: NatsServer, namespace: str) -> None:
    assert said(FORK, server.url(namespace, streams=1)) == ["handled [1, 2] 2"]


def test_children_of_handlers_on_nats_leave_the_parents_alone(server: NatsServer, namespace: str) -> None:
    expected = ["pool True", "process True", "pool True", "process True", "fired 2"]
    assert said(POOL, server.url(namespace, streams=1)) == expected
