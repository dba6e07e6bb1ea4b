"""wss://: whom a client trusts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from solarwind import Event, ProtocolError, SolarWind, Unavailable
from solarwind.testing.contract import on_loop, until

from .serving import Serving


def make_certificate(folder: Path, name: str, alternatives: str) -> tuple[Path, Path]:
    """Make a self-signed certificate, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    names = f"subjectAltName={alternatives}"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=solarwind", "-addext", names, "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.mark.long
@on_loop
async def test_a_client_trusts_the_certificates_it_is_told_to(
    serving: Callable[..., Serving], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other, nor one of another name; and it comes again when the server does."""
    certificate, key = make_certificate(tmp_path, "right", "IP:127.0.0.1,DNS:events.test")
    wrong, _ = make_certificate(tmp_path, "wrong", "IP:127.0.0.1")
    server = serving("--cert", certificate, "--cert-key", key, scheme="wss")
    await server.start()
    for trusted, url in ((wrong, server.url), (certificate, server.url.replace("127.0.0.1", "localhost"))):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        with pytest.raises(Unavailable, match=r"expected a certificate of wss://.* trusted here .*SSL_CERT_FILE"):
            await SolarWind(url).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(ProtocolError, match="expected TLS, got a plain request"):
        await SolarWind(server.url.replace("wss:", "ws:")).start()
    wind = SolarWind(server.url)
    seen = []

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        seen.append(event.payload)

    async with wind:
        await wind.fire("T", "x" * 500_000)
        await wind.settled(60)
        assert await server.end() == 0
        await server.start()
        await wind.fire("T", 2)
        await until(lambda: len(seen) == 2)
    assert await server.end() == 0
    assert server.complaints() == ""


@on_loop
async def test_a_server_without_tls_is_one_refusal(serving: Callable[..., Serving]) -> None:
    server = serving()
    await server.start()
    with pytest.raises(Unavailable, match=r"expected TLS .* is it ws://\?"):
        await SolarWind(server.url.replace("ws:", "wss:")).start()
