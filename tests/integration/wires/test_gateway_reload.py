"""A gateway is reloaded in the middle of real traffic, and no connection fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_bed import (
    ADDRESSES,
    CLIENT,
    OTHER,
    SERVER,
    Gateway,
    configuration,
    connect,
    gateway_net,
    run_manager,
    until_said,
)
from namespaces import Net, missing
from talk import TALK

MISSING = missing("ping")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

VIP, SERVER_V4 = "203.0.113.80", "198.51.100.9"
N_CONNECTIONS, N_DOWNLOADS = 40, 3
TIMEOUT_S = 30
BACKEND = f'backends = [{{ address = "{SERVER_V4}" }}]'
NFS = f"""
[nfs.firewall.config]
default = "drop"
rules = [{{ action = "accept", src = "10.0.0.0/24" }}]
[nfs.lb.config]
vips = [
    {{ address = "{VIP}", port = 7000, {BACKEND} }},
    {{ address = "{VIP}", port = 7001, {BACKEND} }},
]
"""
THIRD_PORT = """
[ports.dmz]
uri = "af_packet:d2"
addresses = ["192.0.2.1/28", "2001:db8:3::1/64"]
"""
RULES = (
    'rules = [{ action = "accept"',
    'rules = [{ action = "drop", dst = "198.51.100.77/32" }, { action = "accept"',
)
VIPS = ("vips = [", f'vips = [\n{{ address = "203.0.113.81", port = 80, {BACKEND} }},')
SERVICES = ["router", "firewall", "lb"]


class Talk:
    """Connections and downloads of the client."""

    def __init__(self, net: Net, log: Path) -> None:
        command = ["ip", "netns", "exec", net.space(CLIENT), *TALK, "talk", VIP, "7000", "7001"]
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def say(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def goes_on(self) -> None:
        """Wait until each connection has said something more, and a download has ended."""
        before, deadline = self.say("stat"), time.monotonic() + TIMEOUT_S
        while True:
            now = self.say("stat")
            assert (now["failed"], now["bad_downloads"]) == ({}, [])
            talked = sum(
                count > before["messages"].get(number, 0)
                for number, count in now["messages"].items()
            )
            if talked == N_CONNECTIONS and now["downloads"] > before["downloads"]:
                return
            assert time.monotonic() < deadline, now
            time.sleep(0.05)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._log.close()


@pytest.fixture
def net() -> Iterator[Net]:
    with gateway_net() as made:
        yield made


@pytest.fixture
def gateway(net: Net, tmp_path: Path) -> Iterator[Gateway]:
    connect(net, OTHER, "z0", "d2")
    with run_manager(net, tmp_path, configuration(SERVICES, others=NFS)) as made:
        yield made


@pytest.fixture
def talk(gateway: Gateway, net: Net, tmp_path: Path) -> Iterator[Talk]:
    log = tmp_path / "serve.log"
    server = net.start(SERVER, *TALK, "serve", "7000", "7001", log=log)
    until_said(log, "ready", server)
    made = Talk(net, tmp_path / "talk.log")
    try:
        made.say(f"open {N_CONNECTIONS}")
        made.say(f"load {N_DOWNLOADS}")
        made.goes_on()
        yield made
    finally:
        made.close()
        net.stop(server)


def reload(gateway: Gateway, text: str) -> list[str]:
    (gateway.folder / "onvm.toml").write_text(text, encoding="utf-8")
    done = json.loads(gateway.call("reload", "--json"))
    return sorted(one["place"] for one in done["changes"])


def test_no_connection_fails_while_the_gateway_changes(
    gateway: Gateway, talk: Talk, net: Net
) -> None:
    more_rules, more = NFS.replace(*RULES), NFS.replace(*RULES).replace(*VIPS)
    assert reload(gateway, configuration(SERVICES, others=more_rules)) == [
        "nfs.firewall.config.rules"
    ]
    talk.goes_on()
    assert reload(gateway, configuration(SERVICES, others=more)) == ["nfs.lb.config.vips"]
    talk.goes_on()
    third = configuration(SERVICES, others=more + THIRD_PORT, ports=("dmz",))
    assert "ports.dmz" in reload(gateway, third)
    host = ADDRESSES[OTHER][0].split("/")[0]
    assert " 0% packet loss" in net.run(CLIENT, "ping", "-c3", "-i0.05", "-W5", host)
    talk.goes_on()
    assert reload(gateway, configuration([*SERVICES[:2], "nat", "lb"], others=more + NAT))
    talk.goes_on()
    assert reload(gateway, configuration(SERVICES, others=more))
    talk.goes_on()


NAT = """
[nfs.nat.config]
external = "198.51.100.1"
inside = ["10.9.0.0/24"]
"""
