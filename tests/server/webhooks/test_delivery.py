"""What a webhook's target gets, and what becomes of an event by what it answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from solarwind.logs import limited
from solarwind.server import delivery
from solarwind.server.access import EVERYTHING
from solarwind.server.delivery import RateLimit
from solarwind.testing.contract import on_loop, until

from .place import ORIGIN, PURPOSE, TOPIC, Answer, Request, counts, dead, put, receiving, sending, settled

ONCE = {"attempts": 1}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def in_turn(*answers: Answer) -> Any:
    """Answer so, and the last again and again."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@on_loop
async def test_an_event_comes_as_a_cloudevent_and_is_settled() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        id = await server.wind.fire(TOPIC, {"number": 7}, key="k", extensions={"subject": "ü"})
        await settled(server)
        (request,) = receiver.posts
        assert (request.target, json.loads(request.body)) == ("/hook", {"number": 7})
        headers = request.headers
        assert headers["host"] == f"127.0.0.1:{receiver.port}"
        assert headers["content-type"] == "application/json"
        assert (headers["ce-specversion"], headers["ce-id"], headers["ce-type"]) == ("1.0", id, TOPIC)
        assert (headers["ce-partitionkey"], headers["ce-subject"]) == ("k", "%C3%BC")
        assert headers["webhook-request-origin"] == ORIGIN


@on_loop
async def test_structured_mode_has_everything_in_the_body() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, mode="structured")
        id = await server.wind.fire(TOPIC, {"number": 7}, extensions={"subject": "ü"})
        await settled(server)
        (request,) = receiver.posts
        event = json.loads(request.body)
        assert (event["id"], event["type"], event["subject"], event["data"]) == (id, TOPIC, "ü", {"number": 7})
        assert request.headers["content-type"] == "application/cloudevents+json"
        assert not [name for name in request.headers if name.startswith("ce-")]


@on_loop
async def test_what_is_long_is_made_and_signed_in_pieces_for_all_webhooks_together() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, mode="structured", concurrency=8)
        waits = 0

        async def line() -> None:
            nonlocal waits
            waits += 1

        server.host.slices.spend(1.0)
        server.host.slices.next = line  # type: ignore[method-assign]
        for number in range(4):
            await server.wind.fire(TOPIC, number)
        await settled(server, 4)
        assert waits == 4


@on_loop
async def test_a_connection_is_used_again() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, concurrency=1)
        for count in range(1, 4):
            await server.wind.fire(TOPIC, count)
            await settled(server, count)
        assert len({request.client for request in receiver.posts}) == 1


@on_loop
async def test_any_answer_of_2xx_settles_the_event() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, retry=ONCE)
        for count, status in enumerate((200, 201, 202, 204, 299), 1):
            receiver.behave = in_turn(Answer(status))
            await server.wind.fire(TOPIC)
            await settled(server, count)


@on_loop
async def test_what_fails_is_tried_again_under_the_same_id() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(500), Answer(404), Answer(200))
        await put(server, receiver.url, retry={"wait": 0})
        await server.wind.fire(TOPIC)
        await settled(server)
        assert [request.headers["ce-attempt"] for request in receiver.posts] == ["1", "2", "3"]
        assert len({request.headers["webhook-id"] for request in receiver.posts}) == 1


@on_loop
async def test_what_always_fails_is_a_dead_letter_that_says_why() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(500))
        await put(server, receiver.url, retry={"attempts": 2, "wait": 0})
        await server.wind.fire(TOPIC)
        assert await dead(server) == "Undelivered: expected the target to answer 2xx, got 500"
        assert len(receiver.posts) == 2


@on_loop
async def test_a_target_that_never_answers_is_given_up_and_others_go_on() -> None:
    async with receiving() as receiver, sending() as server:
        forever = asyncio.Event()

        async def wait(request: Request) -> Answer:
            await forever.wait()
            return Answer()

        receiver.behave = lambda request: wait(request) if request.target == "/silent" else Answer()
        silent = receiver.url.replace("hook", "silent")
        await put(server, silent, retry=ONCE, timeout=0.05)
        await put(server, receiver.url, purpose="Another")
        await server.wind.fire(TOPIC)
        assert "expected an answer within 0.05 s, got none" in await dead(server)
        await until(lambda: any(request.target == "/hook" for request in receiver.posts))
        forever.set()


@on_loop
async def test_a_target_that_is_not_there_is_a_failure() -> None:
    async with receiving() as receiver:
        url = receiver.url
    async with sending() as server:
        await put(server, url, handshake=False, retry=ONCE)
        await server.wind.fire(TOPIC)
        assert (await dead(server)).startswith("Unanswered: expected an answer, got ConnectError")


@on_loop
@pytest.mark.parametrize("answer", [Answer(200, body=bytes(1 << 20)), Answer(200, endless=True)])
async def test_a_body_without_end_is_not_read(answer: Answer) -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(answer)
        await put(server, receiver.url, retry=ONCE)
        await server.wind.fire(TOPIC)
        await settled(server)
        await server.wind.fire(TOPIC)
        await settled(server, 2)
        assert len({request.client for request in receiver.posts}) == 2


@on_loop
async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(307, {"location": f"http://127.0.0.1:{receiver.port}/elsewhere"}))
        await put(server, receiver.url, retry=ONCE)
        await server.wind.fire(TOPIC)
        assert "got 307: redirects are not followed" in await dead(server)
        assert {request.target for request in receiver.requests} == {"/hook"}


@on_loop
@pytest.mark.parametrize("status", [413, 415])
async def test_what_the_target_can_never_take_is_dead_at_once(status: int) -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(status))
        await put(server, receiver.url)
        await server.wind.fire(TOPIC)
        assert f"got {status}: no other attempt can help" in await dead(server)
        assert len(receiver.posts) == 1


@on_loop
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", ["0", format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)])
async def test_retry_after_is_not_counted_as_an_attempt(status: int, after: str) -> None:
    async with receiving() as receiver, sending() as server:
        busy = Answer(status, {"retry-after": after})
        receiver.behave = in_turn(busy, busy, Answer())
        await put(server, receiver.url, retry=ONCE)
        await server.wind.fire(TOPIC)
        await settled(server)
        assert [request.headers["ce-attempt"] for request in receiver.posts] == ["1", "1", "1"]


@on_loop
@pytest.mark.parametrize("after", [{}, {"retry-after": "soon"}])
async def test_too_many_requests_without_a_time_is_a_failure(after: dict[str, str]) -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(429, after))
        await put(server, receiver.url, retry=ONCE)
        await server.wind.fire(TOPIC)
        assert "got 429" in await dead(server)


@on_loop
async def test_retry_after_holds_for_all_events_of_the_webhook() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(429, {"retry-after": "3600"}))
        await put(server, receiver.url)
        await server.wind.fire(TOPIC, 1)

        async def standing(pending: int, in_flight: int) -> bool:
            found = await counts(server)
            return (found.pending, found.in_flight) == (pending, in_flight)

        await until(lambda: len(receiver.posts) == 1)
        await until(lambda: standing(1, 0), "the answer came, and the first is to be sent again later")
        await server.wind.fire(TOPIC, 2)
        await until(lambda: standing(1, 1), "the second waits for its turn")
        await server.webhooks.delete(TOPIC, PURPOSE, "shop", EVERYTHING)
        assert len(receiver.posts) == 1
        assert (await counts(server)).pending == 2


@on_loop
async def test_a_target_that_is_gone_ends_the_webhook_and_the_event_pends() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(410))
        await put(server, receiver.url, concurrency=1)
        for number in range(5):
            await server.wind.fire(TOPIC, number)
        await until(lambda: server.webhooks.get(TOPIC, PURPOSE, "shop")["state"] == "ended")
        assert server.webhooks.get(TOPIC, PURPOSE, "shop")["reason"] == "the target answered 410 Gone"

        async def all_pend() -> bool:
            found = await counts(server)
            return (found.instances, found.pending, found.in_flight) == (0, 5, 0)

        await until(all_pend)
        assert len(receiver.posts) == 1
        receiver.behave = in_turn(Answer())
        await put(server, receiver.url, concurrency=1)
        await settled(server, 5)


def independently(secret: str, request: Request) -> str:
    """Return the signature as Standard Webhooks describes it."""
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = b".".join(
        [request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body]
    )
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


@on_loop
async def test_a_message_is_signed_with_the_secret_that_was_given_out() -> None:
    async with receiving() as receiver, sending() as server:
        shown = await put(server, receiver.url)
        await server.wind.fire(TOPIC, {"amount": 3})
        await settled(server)
        (request,) = receiver.posts
        assert request.headers["webhook-signature"] == independently(shown["secret"], request)
        now = datetime.now(UTC).timestamp()
        assert now - 60 < int(request.headers["webhook-timestamp"]) <= now


@on_loop
async def test_an_id_of_a_producers_own_cannot_be_taken_for_other_parts_of_the_message() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, secret=SECRET)
        await server.wind.fire(TOPIC, 1, id='msg.1700000000.{"a":"ü"}')
        await settled(server)
        (request,) = receiver.posts
        assert "." not in request.headers["webhook-id"]
        assert request.headers["webhook-id"].isascii()
        assert request.headers["webhook-signature"] == independently(SECRET, request)


@on_loop
async def test_while_a_secret_changes_both_sign() -> None:
    async with receiving() as receiver, sending() as server:
        assert "secret" not in await put(server, receiver.url, secret=SECRET)
        assert "secret" not in await put(server, receiver.url, secret=OTHER)
        await server.wind.fire(TOPIC)
        await settled(server)
        (request,) = receiver.posts
        both = [independently(OTHER, request), independently(SECRET, request)]
        assert request.headers["webhook-signature"].split(" ") == both


def test_a_former_secret_signs_no_longer_than_its_time() -> None:
    known = [delivery.Secret(OTHER), delivery.Secret(SECRET, until=1000.0)]
    assert len(delivery.sign(known, "id", 999, b"").split(" ")) == 2
    assert delivery.sign(known, "id", 1000, b"") == delivery.sign(known[:1], "id", 1000, b"")


@on_loop
async def test_a_token_is_sent_to_the_target() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url + "?access_token=abc&x=%20", token="t0ken")
        await server.wind.fire(TOPIC)
        await settled(server)
        assert [request.method for request in receiver.requests] == ["OPTIONS", "POST"]
        for request in receiver.requests:
            assert request.headers["authorization"] == "Bearer t0ken"
            assert request.target == "/hook?access_token=abc&x=%20"


@on_loop
async def test_a_fan_out_posts_to_each_and_counts_what_fails() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = lambda request: Answer(500 if request.target == "/bad" else 200)
        await put(server, receiver.url, "one", exchange="fanout")
        await put(server, receiver.url.replace("hook", "bad"), "two", exchange="fanout")
        for number in range(3):
            await server.wind.fire(TOPIC, number)

        async def all_handled() -> bool:
            found = await counts(server)
            return (found.instances, found.settled, found.dropped) == (2, 3, 3)

        await until(all_handled)
        for target in ("/hook", "/bad"):
            assert sorted(request.body for request in receiver.posts if request.target == target) == [b"0", b"1", b"2"]


@on_loop
async def test_events_of_a_key_come_one_after_the_other() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(500), Answer())
        await put(server, receiver.url, exchange="keyed", key="$.video", retry={"wait": 0})
        for number in range(4):
            await server.wind.fire(TOPIC, {"video": 1, "n": number})
        await settled(server, 4)
        assert [json.loads(request.body)["n"] for request in receiver.posts] == [0, 0, 1, 2, 3]


@on_loop
async def test_two_webhooks_of_a_purpose_share_its_events() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, "one")
        await put(server, receiver.url, "two")
        assert (await counts(server)).instances == 2
        for number in range(10):
            await server.wind.fire(TOPIC, number)
        await settled(server, 10)
        assert len(receiver.posts) == 10


@on_loop
async def test_a_removed_webhook_gives_back_events_that_wait_for_their_turn() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, rate=1)
        for number in range(3):
            await server.wind.fire(TOPIC, number)
        await settled(server)
        await server.webhooks.delete(TOPIC, PURPOSE, "shop", EVERYTHING)
        found = await counts(server)
        assert (found.instances, found.pending, found.in_flight, found.dead) == (0, 2, 0, 0)
        assert len(receiver.posts) == 1


@on_loop
async def test_a_webhook_with_a_low_rate_holds_no_more_than_it_can_send() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, rate=1)
        for number in range(10):
            await server.wind.fire(TOPIC, number)
        await settled(server)

        async def most_are_anybodys() -> bool:
            found = await counts(server)
            return found.in_flight <= 5 and found.in_flight + found.pending == 9

        await until(most_are_anybodys)


@on_loop
async def test_a_request_under_way_when_the_server_stops_is_waited_for(tmp_path: Any) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Answer:
        begun.set()
        await go_on.wait()
        return Answer()

    async with receiving() as receiver:
        receiver.behave = slow
        async with sending(f"sqlite:///{tmp_path}/wind.db") as server:
            await put(server, receiver.url)
            await server.wind.fire(TOPIC)
            await begun.wait()
            asyncio.get_running_loop().call_soon(go_on.set)
        async with sending(f"sqlite:///{tmp_path}/wind.db") as server:
            assert ((await counts(server)).settled, len(receiver.posts)) == (1, 1)


@on_loop
async def test_a_purpose_that_is_retired_ends_its_webhooks() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        await server.wind.retire(TOPIC, PURPOSE, force=True)
        await until(lambda: server.webhooks.get(TOPIC, PURPOSE, "shop")["state"] == "ended")
        assert "was retired" in server.webhooks.get(TOPIC, PURPOSE, "shop")["reason"]


def test_the_pace_leaves_even_gaps_and_keeps_pauses() -> None:
    pace = RateLimit(60)
    assert [pace.turn(100.0), pace.turn(100.0), pace.turn(100.5), pace.turn(200.0)] == [100.0, 101.0, 102.0, 200.0]
    assert pace.left(101.0, 100.0) == 1.0
    pace.pause(100.0, 30.0)
    pace.pause(100.0, 10.0)
    assert pace.left(101.0, 100.0) == 30.0
    free = RateLimit(None)
    assert [free.turn(5.0), free.turn(5.0)] == [5.0, 5.0]


# --- a target that is down --------------------------------------------------------------------------------------


@on_loop
async def test_a_target_that_is_down_is_said_in_one_line_and_in_its_state(caplog: pytest.LogCaptureFixture) -> None:
    limited.flush()
    async with receiving() as receiver, sending() as server:
        receiver.behave = in_turn(Answer(500), Answer(500), Answer(500), Answer(200))
        await put(server, f"{receiver.url}?token=hunter2", retry={"wait": 0.2, "factor": 1}, handshake=False)
        caplog.clear()
        await server.wind.fire(TOPIC)

        def shown() -> dict[str, Any]:
            (found,) = server.webhooks.list(TOPIC, PURPOSE)
            return found

        await until(lambda: shown()["state"] == "failing", "it fails")
        assert shown()["reason"] == "expected the target to answer 2xx, got 500"
        assert datetime.fromisoformat(shown()["failing_since"]).tzinfo is not None
        (found,) = [each for each in await server.wind.attention() if each.kind == "webhook failing"]
        assert found.purpose == PURPOSE
        assert "expected the target to answer 2xx, got 500" in str(found.error)
        await settled(server)
        assert await server.wind.attention() == []
        assert (shown()["state"], shown()["reason"], shown()["failing_since"]) == ("live", None, None)
        lines = [each.getMessage() for each in caplog.records if "webhook shop" in each.getMessage()]
        assert len(lines) == 1, lines
        assert f"to http://127.0.0.1:{receiver.port}/hook?…: Undelivered: expected the target to answer 2xx" in lines[0]
        assert "attempt 1 of 12, again in " in lines[0]
        assert "Traceback" not in caplog.text
        assert "hunter2" not in caplog.text
        limited.flush()
