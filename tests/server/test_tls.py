"""TLS by certificate files: what is spoken, how a certificate is renewed, and who comes with something else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from leaping import leap_until
from solarwind import SolarWind, wire
from solarwind.batch import Batch
from solarwind.server import Server, Settings
from solarwind.server.listener import Listener
from solarwind.server.tls import tls_context
from solarwind.testing.contract import on_loop, until

from .peers import batch, peer, request, talker
from .serving import Serving

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
A_RECORD = 1 << 14


NEW_KEY = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}


def make_certificate(folder: Path, name: str = "one", key: str = "ec") -> tuple[Path, Path]:
    """Make a certificate of an authority of its own, for localhost, and its key, which is of the kind `key`."""
    cert, its_key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        *NEW_KEY[key],
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        f"/CN={name}",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(its_key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, its_key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def trusting(cert: Path, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cert))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def served(certificate: tuple[Path, Path], **settings: Any) -> AsyncIterator[tuple[int, Listener]]:
    cert, key = certificate
    server = Server("memory://", settings=Settings(**settings))
    listener = Listener(server, port=0, tls=tls_context(str(cert), str(key)), grace=60.0)
    await server.start()
    await listener.start()
    try:
        yield listener.port, listener
    finally:
        listener.close()
        await server.stop()
        await listener.stop()
    assert not listener.admission.count("127.0.0.1")


# --- what is spoken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@on_loop
async def test_requests_and_sockets_go_over_tls(certificate: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    tls = trusting(certificate[0], version)
    async with served(certificate) as (port, _):
        async with peer(port, tls) as made:
            assert (await made.ask("GET", "/healthz")).status == 200
            assert (
                await made.ask("POST", "/v1/topics/t/events", {"content-type": "application/json"}, b"1")
            ).status == 202
            own = {"origin": f"https://localhost:{port}", "host": f"localhost:{port}"}
            assert (await made.ask("GET", "/v1/topics", own)).status == 200
            assert (await made.ask("GET", "/v1/topics", own | {"origin": f"http://localhost:{port}"})).status == 403
        async with talker(port, ssl=tls) as socket:
            await socket.hello()
            await socket.submit("t")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@on_loop
async def test_a_version_of_tls_below_1_2_is_refused(certificate: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = old.maximum_version = version
    async with served(certificate) as (port, _):
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            async with peer(port, old):
                pass
        async with peer(port, trusting(certificate[0])) as made:
            assert (await made.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("key", NEW_KEY)
@on_loop
async def test_a_cipher_without_forward_secrecy_or_authenticated_encryption_is_refused(
    tmp_path: Path, key: str
) -> None:
    certificate = make_certificate(tmp_path, key=key)
    async with served(certificate) as (port, _):
        for weak in ("ECDHE+SHA256:ECDHE+SHA384:ECDHE+SHA1:!AESGCM:!CHACHA20", "kRSA"):
            tls = trusting(certificate[0], ssl.TLSVersion.TLSv1_2)
            tls.set_ciphers(f"{weak}:@SECLEVEL=0")
            with pytest.raises(ssl.SSLError, match=r"(?i)alert handshake failure"):
                async with peer(port, tls):
                    pass
        async with peer(port, trusting(certificate[0], ssl.TLSVersion.TLSv1_2)) as made:
            assert (await made.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("version", VERSIONS)
@on_loop
async def test_large_things_go_through_both_ways_however_they_are_cut(
    certificate: tuple[Path, Path], version: ssl.TLSVersion
) -> None:
    """Many records at once, and parts of one; while the other side is slow to read."""
    payloads = [os.urandom(size) for size in (0, 1, A_RECORD - 1, A_RECORD, A_RECORD + 1, 700_000, 1_000_000)]
    tls = trusting(certificate[0], version)
    async with served(certificate) as (port, _), talker(port, ssl=tls) as made:
        await made.hello()
        await made.join(1, "t", "p", room=100)
        for payload in payloads:
            await made.say(wire.Submit(made.ref, batch("t", payload, content="application/octet-stream").data))
        came: list[bytes] = []
        while len(came) < len(payloads):
            offer = await made.hear(wire.Offer)
            found = Batch.read(offer.batch)
            came += [found.payload(index) for index in range(len(found))]
        assert came == payloads
        async with peer(port, tls) as slow:
            data = request("POST", "/v1/topics/t/events", {"content-type": "application/octet-stream"}, payloads[-1])
            for at in range(0, len(data), 99_999):
                await slow.send(data[at : at + 99_999])
            assert (await slow.answer()).status == 202


@on_loop
async def test_a_client_of_ours_trusts_whom_the_system_trusts(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(certificate) as (port, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        async with SolarWind(f"wss://localhost:{port}") as wind:
            await wind.fire("t", 1)
            assert (await wind.statistics()).topics["t"].fired == 1


@pytest.mark.parametrize("polite", [True, False])
@on_loop
async def test_a_peer_may_say_goodbye_or_just_hang_up(certificate: tuple[Path, Path], polite: bool) -> None:
    async with served(certificate) as (port, listener):
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting(certificate[0]))
        writer.write(request("GET", "/healthz"))
        await reader.readuntil(b"\r\n\r\n")
        if polite:
            writer.close()
        else:
            writer.transport.abort()
        await until(lambda: not listener.admission.count("127.0.0.1"), "the connection is gone")


# --- renewal ----------------------------------------------------------------------------------------------------


@on_loop
async def test_a_certificate_is_renewed_by_sighup_and_connections_go_on(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    serving = Serving(tmp_path, "--cert", cert, "--cert-key", key)
    try:
        await serving.start()
        port = int(serving.port)
        async with peer(port, trusting(cert)) as old:
            assert (await old.ask("GET", "/healthz")).status == 200
            first = cert.read_bytes()
            # What cannot be is refused, and changes nothing: a key of another's, a cut file, none.
            for spoil in (
                lambda: make_certificate(tmp_path, "two")[1].rename(key),
                lambda: os.truncate(cert, 100),
                cert.unlink,
            ):
                complaints = serving.complaints()
                spoil()
                serving.send(signal.SIGHUP)
                await until(lambda said=complaints: serving.complaints() != said, "the server complains")
                assert await certificate_at(port) == ssl.PEM_cert_to_DER_cert(first.decode())
            cert, key = (each.replace(each.with_stem("one")) for each in make_certificate(tmp_path, "three"))
            serving.send(signal.SIGHUP)

            async def renewed() -> bool:
                return await certificate_at(port) == ssl.PEM_cert_to_DER_cert(cert.read_text())

            await until(renewed, "new connections get the new certificate")
            assert (await old.ask("GET", "/healthz")).status == 200
            async with peer(port, trusting(cert)) as made:
                assert (await made.ask("GET", "/healthz")).status == 200
        await serving.end()
    finally:
        serving.kill()


async def certificate_at(port: int) -> bytes:
    any_ = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    any_.check_hostname, any_.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=any_)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    return found


# --- who comes with something else ------------------------------------------------------------------------------


def hello_of(length: int) -> bytes:
    """Return the beginning of a handshake whose first message says that it has so many bytes."""
    return b"\x16\x03\x01\x40\x00\x01" + length.to_bytes(3, "big")


OTHERS = {
    "a request": request("GET", "/healthz"),
    "a long request": request("POST", "/v1/topics/t/events", {}, b"x" * 100_000),
    "a WebSocket": request("GET", "/v1/connect", {"upgrade": "websocket", "connection": "upgrade"}),
    "nothing at all": b"",
    "a byte": b"\x16",
    "most of a head": hello_of(100)[:8],
    "a hello that is too long": hello_of(130_000),
    "a hello in bits": b"\x16\x03\x01\x00\x01\x01\x16\x03\x01",
    "an invalid hello": hello_of(4) + b"\x00" * (1 << 14),
    "half a hello": hello_of(10_000) + b"\x00" * 5_000,
    "zeros": bytes(1 << 16),
    "text": b"hello, is there anybody?\n" * 10,
    "SSL 2": b"\x80\x2e\x01\x00\x02" + bytes(50),
}
WAITS = {"nothing at all", "a byte", "most of a head", "half a hello"}


@pytest.mark.parametrize("what", OTHERS)
@on_loop
async def test_what_is_no_tls_ends_at_once_or_in_time_and_others_are_served(
    certificate: tuple[Path, Path], what: str
) -> None:
    async with served(certificate, authenticate_s=30.0) as (port, _):
        async with peer(port, trusting(certificate[0])) as other, peer(port) as made:
            await made.send(OTHERS[what])
            assert (await other.ask("GET", "/v1/statistics")).status == 200
            if OTHERS[what][:4] in (b"GET ", b"POST"):
                answer = await made.answer()
                assert (answer.status, answer.code) == (400, "protocol")
                assert "https or wss" in answer.problem["detail"]
            ended = asyncio.ensure_future(made.read())
            if what in WAITS:
                assert await leap_until(ended.done) >= 20
            await ended
            assert (await other.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("version", VERSIONS)
@on_loop
async def test_what_is_no_record_any_more_ends_the_connection(
    certificate: tuple[Path, Path], version: ssl.TLSVersion
) -> None:
    """After hands were shaken, as somebody on the way would do it."""
    async with served(certificate) as (port, listener):
        plain = socket.create_connection(("127.0.0.1", port))
        context = trusting(certificate[0], version)
        client = await asyncio.to_thread(context.wrap_socket, plain, server_hostname="localhost")
        try:
            os.write(client.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
            await until(lambda: not listener.admission.count("127.0.0.1"), "the connection is gone")
        finally:
            client.close()


@on_loop
async def test_tls_at_a_port_without_is_no_request() -> None:
    server = Server("memory://")
    listener = Listener(server, port=0)
    await server.start()
    await listener.start()
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with peer(listener.port, ssl.create_default_context()):
                pass
        async with peer(listener.port) as made:
            assert (await made.ask("GET", "/healthz")).status == 200
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


@on_loop
async def test_a_server_that_stops_does_not_wait_for_hands_that_are_not_shaken(certificate: tuple[Path, Path]) -> None:
    async with served(certificate, authenticate_s=60.0) as (port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hello_of(10_000))
        async with peer(port, trusting(certificate[0])) as made:
            assert (await made.ask("GET", "/healthz")).status == 200
        start = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - start < 30.0
    writer.close()


# --- who can reach it -------------------------------------------------------------------------------------------


@on_loop
async def test_only_this_machine_can_reach_it_unless_told_otherwise(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    try:
        await serving.start()
        async with peer(int(serving.port)) as made:
            assert (await made.ask("GET", "/healthz")).status == 200
        for other in ("127.0.0.2", *addresses()):
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection(other, int(serving.port))
        await serving.end()
    finally:
        serving.kill()


def addresses() -> list[str]:
    """Return the addresses of this machine, without loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return []
        return [probe.getsockname()[0]]


# --- a second hello ---------------------------------------------------------------------------------------------


@on_loop
async def test_a_second_hello_is_no_longer_than_the_first_may_be(certificate: tuple[Path, Path]) -> None:
    """The server asks for another where the first has no key that it can use."""
    async with served(certificate, authenticate_s=60.0) as (port, listener):
        assert listener._tls is not None
        listener._tls.set_ecdh_curve("secp384r1")
        for rest in (b"", b"\x14\x03\x03\x00\x01\x01"):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = trusting(certificate[0]).wrap_bio(incoming, outgoing, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            hello = outgoing.read()
            for together in (True, False):
                async with peer(port) as made:
                    second = rest + hello_of(131_000)[:64]
                    await made.send(hello + second if together else hello)
                    if not together:
                        assert (await made.exactly(1)) == b"\x16"
                        await made.send(second)
                    await asyncio.wait_for(made.read(), 60)
        async with peer(port, trusting(certificate[0])) as made:
            assert (await made.ask("GET", "/healthz")).status == 200
