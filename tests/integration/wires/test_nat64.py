# SPDX-License-Identifier: Apache-2.0
"""An IPv6 client and an IPv4 server, both of them Linux, and a NAT64 in the gateway between."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_bed import (
    CLIENT,
    DOWNLOAD_BYTES,
    SERVER,
    SERVER_V4,
    configuration,
    gateway_net,
    run_manager,
)
from namespaces import Net, download, missing

MISSING = missing("ping")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
NAT64 = """
[nfs.nat.config]
external = "198.51.100.1"
inside = ["10.0.0.0/24"]
nat64 = "64:ff9b:1::/96"
"""
SERVER_V6 = f"64:ff9b:1::{SERVER_V4}"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with (
        gateway_net() as made,
        run_manager(made, tmp_path, configuration(["router", "nat"], others=NAT64)),
    ):
        yield made


def test_ipv6_client_reaches_ipv4_server(net: Net, tmp_path: Path) -> None:
    assert " 0% packet loss" in net.run(CLIENT, "ping", "-c2", "-i0.2", "-W5", SERVER_V6)
    download(net, tmp_path, f"[{SERVER_V6}]", DOWNLOAD_BYTES, CLIENT, SERVER, bind=SERVER_V4)
    assert " 0% packet loss" in net.run(CLIENT, "ping", "-c1", "-W5", SERVER_V4)


UNREACHABLE = """
import socket, sys
probe = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
probe.settimeout(5)
probe.connect((sys.argv[1], 33434))
probe.send(b"x")
try:
    probe.recv(1)
except ConnectionRefusedError:
    print("refused")
"""


def test_error_of_an_ipv4_server_reaches_the_socket_of_the_client(net: Net) -> None:
    said = net.run(CLIENT, sys.executable, "-c", UNREACHABLE, SERVER_V6)
    assert said.strip() == "refused"
    said = net.run(CLIENT, "sh", "-c", f"ping -c1 -W5 -t1 {SERVER_V6} || true")
    assert "ime to live exceeded" in said or "Hop limit" in said or "ime exceeded" in said, said
