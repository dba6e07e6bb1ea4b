"""Where a webhook may lead: addresses, names, URLs, and that nobody gets around the look at them."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from solarwind import BadArgument, NotAllowed, Unavailable
from solarwind.server.targets import Allowed, Dialer, Target, Unanswered, read_url, resolve
from solarwind.server.webhooks import Webhooks
from solarwind.testing.contract import on_loop

from .place import ORIGIN, TOPIC, dead, put, receiving, sending, served, settled

FORBIDDEN = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"],
    "private": [
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fc00::1", "fd12::1"),
        *("fec0::1", "::ffff:10.0.0.1", "::ffff:c0a8:101", "64:ff9b::a00:1", "2002:c0a8:101::"),
    ],
    "link-local": [
        *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%2", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
        "2002:a9fe:a9fe::",
    ],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "64:ff9b::"],
    "reserved": [
        *("240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
        *(
            "2001::1",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "3fff::1",
            "64:ff9b:1::7f00:1",
            "::127.0.0.1",
            "100::1",
            "4000::1",
        ),
        "5f00::1",
    ],
}
PUBLIC = [
    *("1.1.1.1", "93.184.216.34", "100.128.0.1", "172.32.0.1", "192.169.0.1", "223.255.255.255", "2606:4700::1111"),
    *("2a00:1450:4001::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"),
]


def answering(*answers: list[str]) -> Callable[..., object]:
    """Return a resolver that answers so, and the last again and again. It notes what it was asked."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        resolve.asked.append(host)  # type: ignore[attr-defined]
        return left.pop(0) if len(left) > 1 else left[0]

    resolve.asked = []  # type: ignore[attr-defined]
    return resolve


@pytest.mark.parametrize(("what", "address"), [(what, each) for what, found in FORBIDDEN.items() for each in found])
def test_an_address_that_is_not_out_there_is_refused(what: str, address: str) -> None:
    assert Allowed().fault("example.com", ip_address(address)) == what


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert Allowed().fault("example.com", ip_address(address)) is None


@pytest.mark.parametrize(
    ("stated", "host", "address", "allowed"),
    [
        ("10.0.0.0/8", "example.com", "10.1.2.3", True),
        ("10.0.0.0/8", "example.com", "1.1.1.1", True),
        ("10.0.0.0/8", "example.com", "192.168.0.1", False),
        ("10.0.0.0/8", "example.com", "::ffff:10.1.2.3", True),
        ("127.0.0.1", "localhost", "127.0.0.1", True),
        ("127.0.0.1", "localhost", "127.0.0.2", False),
        ("127.0.0.1", "localhost", "::1", False),
        ("fd00::/8", "example.com", "fd12::1", True),
        ("shop.internal", "shop.internal", "10.0.0.1", True),
        ("shop.internal", "Shop.Internal.", "10.0.0.1", True),
        ("shop.internal", "a.shop.internal", "10.0.0.1", False),
        ("localhost", "127.0.0.1", "127.0.0.1", False),
    ],
)
def test_stated_networks_are_allowed_too(stated: str, host: str, address: str, allowed: bool) -> None:
    assert (Allowed([stated]).fault(host, ip_address(address)) is None) == allowed
    assert (Allowed(stated).fault(host, ip_address(address)) is None) == allowed


@pytest.mark.parametrize("stated", ["10.0.0.1/8", "10.0.0", "", "a b", "http://shop", "10.0.0.0/33", "*"])
def test_what_is_no_network_address_or_host_is_refused(stated: str) -> None:
    with pytest.raises(BadArgument, match="expected a network such as"):
        Allowed([stated])


# Names ---------------------------------------------------------------------------------------------------


@on_loop
async def test_other_spellings_of_an_address_are_looked_at_as_what_they_are() -> None:
    dialer = Dialer(Allowed())
    for host in ("127.1", "2130706433", "0x7f.1", "017700000001", "localhost", "0", "[::1]".strip("[]")):
        with pytest.raises((NotAllowed, Unanswered)):
            await dialer.addresses(host, 80)
    with pytest.raises(NotAllowed, match=r"got 'localhost', which is at none: allow it with --webhook-network"):
        await dialer.addresses("localhost", 80)


@on_loop
async def test_a_name_that_leads_elsewhere_later_leads_nowhere() -> None:
    """It is public when the webhook is registered, and loopback when the connection is made."""
    async with receiving() as receiver, sending(networks=()) as server:
        resolver = answering(["93.184.216.34"], ["127.0.0.1"])
        server.webhooks = Webhooks(server.host, origin=ORIGIN, resolve=resolver)  # type: ignore[arg-type]
        await server.webhooks.start()
        await put(server, f"http://rebind.test:{receiver.port}/", handshake=False, retry={"attempts": 1})
        await server.wind.fire(TOPIC)
        assert "got 'rebind.test', which is at none" in await dead(server)
        assert receiver.requests == []
        assert resolver.asked == ["rebind.test"] * 2  # type: ignore[attr-defined]


@on_loop
async def test_the_connection_goes_to_the_address_that_was_looked_at_under_the_name() -> None:
    """A second look-up would give another address: there is none."""
    async with receiving() as receiver:
        resolver = answering(["10.0.0.1", "127.0.0.1"], ["10.0.0.1"])
        dialer = Dialer(Allowed(["127.0.0.1"]), resolver)  # type: ignore[arg-type]
        target = Target(dialer, read_url(f"http://hook.test:{receiver.port}/in"), 1)
        answer = await target.request("POST", {}, b"x", 5.0)
        await target.aclose()
        assert answer.status == 200
        assert receiver.posts[0].headers["host"] == f"hook.test:{receiver.port}"
        assert resolver.asked == ["hook.test"]  # type: ignore[attr-defined]


@on_loop
async def test_an_address_that_does_not_answer_leaves_the_next() -> None:
    async with receiving() as receiver:
        dialer = Dialer(Allowed(["127.0.0.0/8"]), answering(["127.0.0.9", "127.0.0.1"]))  # type: ignore[arg-type]
        target = Target(dialer, read_url(f"http://hook.test:{receiver.port}/in"), 1)
        assert (await target.request("POST", {}, b"", 5.0)).status == 200
        await target.aclose()


@on_loop
async def test_a_unix_socket_is_refused_as_a_target() -> None:
    with pytest.raises(NotAllowed, match="got a socket file"):
        await Dialer(Allowed()).connect_unix_socket("/run/docker.sock")


@on_loop
async def test_registering_refuses_what_may_not_be_reached_before_anything_is_sent() -> None:
    async with receiving() as receiver, sending(networks=()) as server:
        for handshake in (True, False):
            with pytest.raises(NotAllowed, match=r"which is loopback"):
                await put(server, receiver.url, handshake=handshake)
        with pytest.raises(NotAllowed, match=r"link-local"):
            await put(server, "http://169.254.169.254/latest/meta-data/")
        with pytest.raises(NotAllowed, match=r"loopback"):
            await put(server, f"http://[::ffff:127.0.0.1]:{receiver.port}/")
        assert receiver.requests == []
        assert (await server.wind.statistics()).purposes == {}


@on_loop
async def test_a_name_without_an_address_is_out_of_reach() -> None:
    async with sending() as server:
        server.webhooks = Webhooks(server.host, resolve=answering([]))  # type: ignore[arg-type]
        with pytest.raises(Unavailable, match=r"expected host 'nowhere\.test' to have an address"):
            await put(server, "http://nowhere.test/")
    with pytest.raises(Unanswered):
        await Dialer(Allowed()).addresses("a" * 64 + ".test", 80)
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]


@on_loop
async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        await server.wind.fire(TOPIC)
        await settled(server)
        assert receiver.posts[0].target == "/hook"


# TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for hook.test, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=hook.test", "-addext", "subjectAltName=DNS:hook.test"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=300)
    return certificate, key


@on_loop
async def test_a_certificate_has_to_be_the_names(certificate: tuple[Path, Path]) -> None:
    async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body"})  # type: ignore[misc]

    dialer = Dialer(Allowed(["127.0.0.1"]), answering(["127.0.0.1"]))  # type: ignore[arg-type]
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with served(app, ssl_certfile=certificate[0], ssl_keyfile=certificate[1]) as port:
        for host, tls, good in (
            ("hook.test", trusting, True),
            ("other.test", trusting, False),
            ("hook.test", None, False),
        ):
            target = Target(dialer, read_url(f"https://{host}:{port}/"), 1, tls)
            if good:
                assert (await target.request("POST", {}, b"", 5.0)).status == 204
            else:
                with pytest.raises(Unanswered, match="certificate verify failed"):
                    await target.request("POST", {}, b"", 5.0)
            await target.aclose()


BAD_HOSTS = (".a", "a..b", "a.b..", "-a.b", "a-.b", "..", f"{'x' * 64}.de", "a.b-", "%2e")

# URLs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "other than printable ASCII"),
        ("example.com/hook", "with http or https"),
        ("ftp://example.com/", "with http or https, got 'ftp'"),
        ("file:///etc/passwd", "with http or https"),
        ("unix:///run/docker.sock", "with http or https"),
        ("http:///hook", "whose host is neither a name nor an address"),
        ("http://", "whose host is neither a name nor an address"),
        ("http://user@example.com/", "a user or password"),
        ("http://user:hunter2@example.com/", "a user or password"),
        ("http://@example.com/", "a user or password"),
        ("http://example.com/#part", "a fragment"),
        ("http://example.com:0/", "whose host is neither a name nor an address"),
        ("http://example.com:65536/", "cannot be read"),
        ("http://example.com:x/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://[fe80::1%25eth0]/", "whose host is neither a name nor an address"),
        ("http://exa mple.com/", "other than printable ASCII"),
        ("http://example.com/\r\nX: y", "other than printable ASCII"),
        ("http://ex\u00e4mple.com/", "other than printable ASCII"),
        ("http://127.0.0.1\\@example.com/", "other than printable ASCII"),
        *((f"http://{host}/", "whose host is neither a name nor an address") for host in BAD_HOSTS),
        ("http://exa%6dple.com/", "whose host is neither a name nor an address"),
        ("http://example.com/" + "a" * 2_000, "of at most 2,000 characters"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_being_repeated(url: str, fault: str) -> None:
    with pytest.raises(BadArgument, match=fault) as refusal:
        read_url(url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("https://Example.com", ("https", "example.com", 443, "/"), "example.com"),
        ("http://example.com:8080/a;b?c=d&e", ("http", "example.com", 8080, "/a;b?c=d&e"), "example.com:8080"),
        ("http://example.com:80?x", ("http", "example.com", 80, "/?x"), "example.com"),
        ("https://[2606:4700::1111]:444/", ("https", "2606:4700::1111", 444, "/"), "[2606:4700::1111]:444"),
    ],
)
def test_a_url_is_taken_apart_once(url: str, parts: tuple[object, ...], authority: str) -> None:
    assert tuple(read_url(url)) == parts
    assert read_url(url).authority == authority


def test_the_query_of_a_target_is_not_shown() -> None:
    assert read_url("https://example.com/a?token=hunter2").shown == "https://example.com/a?…"


@on_loop
async def test_requests_wait_for_no_more_connections_than_stated() -> None:
    """A second request waits for the first one's connection, within its own time."""
    async with receiving() as receiver:
        target = Target(Dialer(Allowed(["127.0.0.1"])), read_url(receiver.url), 1)
        await asyncio.gather(*(target.request("POST", {}, b"", 5.0) for _ in range(5)))
        await target.aclose()
        assert len({request.client for request in receiver.posts}) == 1
