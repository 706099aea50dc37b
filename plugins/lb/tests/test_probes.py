# SPDX-License-Identifier: Apache-2.0
"""Checks of real servers on this host."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from onvm_nf_lb import probes
from onvm_nf_lb.check import CheckText, Target, read_check

HERE, HERE6 = "127.0.0.1", "::1"
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def target(kind: str, port: int = 0, address: str = HERE, **more: Any) -> Target:
    check = read_check(CheckText(kind, timeout_s=more.pop("timeout_s", 5.0), **more))
    assert check is not None
    return Target(check, address, port)


def probe(one: Target) -> str | None:
    return asyncio.run(probes.probe(one))


def against(
    kind: str, handler: _Handler, *, tls: ssl.SSLContext | None = None, **more: Any
) -> str | None:
    """Probe a server for one connection."""

    async def run() -> str | None:
        server = await asyncio.start_server(handler, HERE, 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        found = await probes.probe(target(kind, port, **more))
        server.close()
        return found

    return asyncio.run(run())


def answering(text: str, asked: list[str] | None = None) -> _Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request.decode())
        writer.write(text.encode())
        writer.close()

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def test_tcp() -> None:
    assert against("tcp", silent) is None
    assert probe(target("tcp", 1)) == "connection refused"


@pytest.mark.parametrize(
    ("status", "text", "failure"),
    [
        (None, "HTTP/1.1 200 OK\r\n\r\n", None),
        (None, "HTTP/1.0 302 Found\r\n\r\n", None),
        (None, "HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        ("204", "HTTP/1.1 200 OK\r\n\r\n", "status 200"),
        ("204, 503-504", "HTTP/1.1 503 x\r\n\r\n", None),
        (None, "SSH-2.0-OpenSSH\r\n", "no status line of HTTP"),
        (None, "", "no status line of HTTP"),
        (None, "x" * 20_000, "no status line of HTTP"),
    ],
)
def test_http(status: str | None, text: str, failure: str | None) -> None:
    assert against("http", answering(text), status=status) == failure


def test_http_asks_for_path_and_host() -> None:
    asked: list[str] = []
    handler = answering("HTTP/1.1 200 OK\r\n\r\n", asked)
    assert against("http", handler, path="/health?x=1", host="www.example") is None
    assert asked[0].startswith("GET /health?x=1 HTTP/1.1\r\nHost: www.example\r\n")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl for a certificate")
def test_https_takes_any_certificate(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-subj", "/CN=other.example", "-days", "1"]
    subprocess.run(
        [*made, "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    assert against("https", answering("HTTP/1.1 200 OK\r\n\r\n"), tls=tls) is None
    assert against("https", answering("HTTP/1.1 500 x\r\n\r\n"), tls=tls) == "status 500"


def test_a_silent_server_is_given_up() -> None:
    assert against("http", silent, timeout_s=0.05) == "no answer within 0.05 s"


@pytest.mark.parametrize("address", [HERE, HERE6])
def test_icmp(address: str) -> None:
    if not probes.may_send_icmp():
        pytest.skip("this process may not open sockets for ICMP")
    assert probe(target("icmp", address=address)) is None


def test_script_gets_the_backend_and_is_ended_when_it_takes_too_long(tmp_path: Path) -> None:
    script = "import os; assert os.environ['ONVM_LB_ADDRESS'] == '127.0.0.1'; "
    script += "assert os.environ['ONVM_LB_PORT'] == '80'"
    assert probe(target("script", 80, command=[sys.executable, "-c", script])) is None
    failing = [sys.executable, "-c", "raise SystemExit(7)"]
    assert probe(target("script", command=failing)) == "exit status 7"
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert probe(target("script", command=hanging, timeout_s=0.1)) == "no answer within 0.1 s"
