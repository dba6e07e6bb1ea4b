"""The signatures of webhooks, as the libraries of Standard Webhooks verify them, in Python and in JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import standardwebhooks

from solarwind.server.cloudevents import STRUCTURED
from solarwind.testing.contract import on_loop

from ..npm import Refused, needs_npm
from .place import TOPIC, Request, put, receiving, sending, settled
from .test_delivery import OTHER, SECRET

Verify = Callable[[str, Request], Any]
THIRD = "whsec_" + base64.b64encode(bytes(range(2, 34))).decode()
NOT_GENUINE = standardwebhooks.WebhookVerificationError, Refused


@pytest.fixture(params=["Python", pytest.param("JavaScript", marks=needs_npm)])
def verify(request: pytest.FixtureRequest) -> Verify:
    """Return a function that gives the body of a message, if that is genuine."""
    if request.param == "Python":
        return lambda secret, message: standardwebhooks.Webhook(secret).verify(message.body, message.headers)
    judge = request.getfixturevalue("judge")
    return lambda secret, message: judge.verify(secret, message.headers, message.body)


@pytest.mark.parametrize("mode", ["binary", "structured"])
@on_loop
async def test_a_message_is_verified_with_the_secret_that_was_given_out_and_no_other(verify: Verify, mode: str) -> None:
    payload = {"größe": [1.5, None, "\u2028 😀"]}
    async with receiving() as receiver, sending() as server:
        secret = (await put(server, receiver.url, mode=mode))["secret"]
        await server.wind.fire(TOPIC, payload, id="order.7 ü", extensions={"subject": "ü"})
        await settled(server)
    (message,) = receiver.posts
    found = verify(secret, message)
    assert (found if mode == "binary" else found["data"]) == payload
    changed = message._replace(body=message.body.replace(b"1.5", b"2.5"))
    older = message._replace(headers=message.headers | {"webhook-timestamp": "1700000000"})
    renamed = message._replace(headers=message.headers | {"webhook-id": "another"})
    for wrong in (changed, older, renamed):
        with pytest.raises(NOT_GENUINE):
            verify(secret, wrong)
    with pytest.raises(NOT_GENUINE):
        verify(OTHER, message)


@on_loop
async def test_while_a_secret_changes_either_verifies_and_one_before_them_does_not(verify: Verify) -> None:
    async with receiving() as receiver, sending() as server:
        for secret in (SECRET, OTHER):
            await put(server, receiver.url, secret=secret)
        await server.wind.fire(TOPIC, 1)
        await settled(server)
        await put(server, receiver.url, secret=THIRD)
        await server.wind.fire(TOPIC, 2)
        await settled(server, 2)
    first, second = receiver.posts
    assert [verify(secret, first) for secret in (SECRET, OTHER)] == [1, 1]
    assert [verify(secret, second) for secret in (OTHER, THIRD)] == [2, 2]
    for secret, message in ((THIRD, first), (SECRET, second)):
        with pytest.raises(NOT_GENUINE):
            verify(secret, message)


@on_loop
async def test_bytes_that_are_no_text_are_verified_in_structured_mode(verify: Verify) -> None:
    """The libraries take each body for text, so a target that gets bytes as they are has to compute by itself."""
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, secret=SECRET, mode="structured")
        await server.wind.fire(TOPIC, b"\x00\xff\xfe")
        await settled(server)
    (message,) = receiver.posts
    assert message.headers["content-type"] == STRUCTURED
    assert base64.b64decode(verify(SECRET, message)["data_base64"]) == b"\x00\xff\xfe"
