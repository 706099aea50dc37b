# SPDX-License-Identifier: Apache-2.0
"""Rules of the firewall on a wire: ports by name, answers to rejected packets, and log lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from namespaces import onvm
from wire_bed import CLIENT, MISSING, SERVER, V4, V6, Bed, bed

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
RULES = """
default = "drop"
set_files = ["blocked.txt"]

[[rules]]
action = "reject"
dst = "@blocked"
protocol = "tcp"

[[rules]]
action = "accept"
icmp = ["echo-request", "router-solicitation"]

[[rules]]
action = "accept"
in = "client"
protocol = "tcp"
dst_ports = 5201

[[rules]]
action = "log"
in = "client"
protocol = "udp"
prefix = "refused"

[[rules]]
action = "reject"
in = "client"
"""
ASK = """
import socket, sys
host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
end = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, getattr(socket, kind))
end.settimeout(float(sys.argv[4]))
try:
    end.connect((host, port))
    if kind == "SOCK_DGRAM":
        end.send(b"hello")
        end.recv(100)
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
LOG_S = 10


@pytest.fixture(scope="module")
def wire() -> Iterator[Bed]:
    with bed("af_packet") as made:
        made.serve()
        (made.folder / "blocked.txt").write_text("192.0.2.0/24\n")
        made.start(firewall=RULES)
        yield made
        made.stop()


def ask(wire: Bed, role: str, host: str, port: int, kind: str, timeout_s: float = 10) -> str:
    """Say what becomes of a connection."""
    command = [sys.executable, "-c", ASK, host, str(port), kind, str(timeout_s)]
    return wire.net.run(role, *command).strip()


@pytest.mark.parametrize("host", [V4, V6])
def test_allowed_port_connects(wire: Bed, host: str) -> None:
    assert ask(wire, CLIENT, host, 5201, "SOCK_STREAM") == "connected"


@pytest.mark.parametrize("host", [V4, V6])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_rejected_connection_is_refused_at_once(wire: Bed, host: str, kind: str) -> None:
    begin = time.monotonic()
    assert ask(wire, CLIENT, host, 99, kind, 20) == "ConnectionRefusedError"
    assert time.monotonic() - begin < 10


def test_the_other_side_gets_no_answer(wire: Bed) -> None:
    """Rules name the port that a packet came in by."""
    assert ask(wire, SERVER, "10.9.0.1", 99, "SOCK_STREAM", 0.5) == "TimeoutError"


def test_logged_packets_are_lines_of_json(wire: Bed) -> None:
    ask(wire, CLIENT, V4, 98, "SOCK_DGRAM")
    (log,) = (wire.folder / "r" / "main" / "logs").glob("firewall-*.log")
    deadline = time.monotonic() + LOG_S
    while '"dst_port": 98' not in (text := log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    found = next(line for line in lines if line["dst_port"] == 98)
    assert (found["prefix"], found["in"], found["dst"]) == ("refused", "client", V4)
    assert found["rule"] == "rules[3]"


def test_status_counts_what_was_rejected(wire: Bed) -> None:
    ask(wire, CLIENT, V4, 97, "SOCK_STREAM")
    counted = re.findall(r'"rejected": (\d+)', json.dumps(wire.report()))
    assert sum(map(int, counted)) >= 1


def test_reload_takes_a_changed_file_of_a_set(wire: Bed) -> None:
    file = wire.folder / "blocked.txt"
    environment = {"ONVM_RUNTIME_DIR": str(wire.folder / "r")}
    assert ask(wire, CLIENT, V4, 5201, "SOCK_STREAM") == "connected"
    for text, said in ((f"{V4}/32 # no more", "ConnectionRefusedError"), ("", "connected")):
        file.write_text(text)
        subprocess.run(
            onvm("reload"), env={**os.environ, **environment}, check=True, capture_output=True
        )
        assert ask(wire, CLIENT, V4, 5201, "SOCK_STREAM") == said
    assert ask(wire, CLIENT, V4, 99, "SOCK_STREAM") == "ConnectionRefusedError", "ports have names"
