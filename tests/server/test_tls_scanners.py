"""The TLS of a server, as two scanners judge that others look at servers with: SSLyze and testssl.sh."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from solarwind.testing.contract import on_loop

from .serving import Serving
from .test_tls import make_certificate

SSLYZE = Path(__file__).parents[2] / ".venv" / "sslyze" / "bin" / "sslyze"
TESTSSL = shutil.which("testssl")
MAX_S = 1_500
KEYS = ["ec", "rsa"]
# The certificate signs itself. Mozilla's list of curves is shorter than OpenSSL's, which has stronger ones too.
NOT_OF_THE_SERVER = {"certificate_path_validation", "tls_curves"}
# What is of the test's own certificate, and of the OpenSSL that testssl.sh finds.
NOT_JUDGED = {"cert_chain_of_trust", "cert_expirationStatus", "cert_notAfter", "cert_revocation", "DNS_CAArecord"}
NOT_JUDGED |= {"engine_problem", "sessionresumption_ticket"}


@asynccontextmanager
async def serving(folder: Path, key: str) -> AsyncIterator[int]:
    """Yield the port of `solarwind serve` with a certificate."""
    cert, its_key = make_certificate(folder, key=key)
    server = Serving(folder, "--cert", cert, "--cert-key", its_key)
    await server.start()
    try:
        yield server.port
    finally:
        await server.end()


async def output(*command: object) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), MAX_S)
    return out.decode(errors="replace")


@pytest.mark.long
@pytest.mark.skipif(not SSLYZE.exists(), reason="needs SSLyze, as `make test-long` has it")
@pytest.mark.parametrize("key", KEYS)
@on_loop
async def test_sslyze_finds_no_weak_protocol_or_cipher_and_no_vulnerability(tmp_path: Path, key: str) -> None:
    found = tmp_path / "found.json"
    async with serving(tmp_path, key) as port:
        out = await output(
            SSLYZE,
            "--early_data",
            "--resum",
            "--mozilla_config",
            "intermediate",
            "--json_out",
            found,
            f"localhost:{port}",
        )
    (server,) = json.loads(found.read_text())["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", out
    scans: dict[str, Any] = server["scan_result"]
    assert {name for name, scan in scans.items() if scan["status"] != "COMPLETED"} == {"http_headers"}, out
    faults = set(re.findall(r"^ +\* (\w+): ", out.partition("COMPLIANCE")[2], re.MULTILINE))
    assert "tls_curves" in faults, "it judges, and says so in this form"
    assert faults <= NOT_OF_THE_SERVER, out
    assert not scans["session_renegotiation"]["result"]["is_vulnerable_to_client_renegotiation_dos"]
    assert not scans["tls_1_3_early_data"]["result"]["supports_early_data"], "it could be sent again by somebody else"


@pytest.mark.long
@pytest.mark.skipif(TESTSSL is None, reason="needs testssl.sh, as `apt-get install testssl.sh` has it")
@on_loop
async def test_testssl_finds_no_weak_protocol_or_cipher_and_no_vulnerability(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    async with serving(tmp_path, "rsa") as port:
        out = await output(
            *(TESTSSL, "--quiet", "--color", 0, "--warnings", "off", "--ip", "one", "--jsonfile", found),
            *("--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable"),
            f"https://localhost:{port}",
        )
    findings = {each["id"]: each for each in json.loads(found.read_text())}
    assert {
        "SSLv3",
        "TLS1",
        "TLS1_2",
        "cipherlist_AVERAGE",
        "heartbleed",
        "ROBOT",
        "secure_client_renego",
    } <= findings.keys(), out
    bad = {
        name: f"{each['severity']}: {each['finding']}"
        for name, each in findings.items()
        if each["severity"] not in ("OK", "INFO") and name not in NOT_JUDGED
    }
    assert not bad, out
