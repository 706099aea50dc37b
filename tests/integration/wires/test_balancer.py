"""Two HTTP servers behind a load balancer that checks them: one is stopped and comes back.

Clients and servers are of one subnet, with the manager between them; checks leave from the
manager's host by another link. A client keeps connections, another opens one for each request.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from namespaces import Net, missing, namespaces, onvm

MISSING = missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")

CLIENT, MANAGER, SERVER = "c", "d", "s"
VIP, FIRST, SECOND = "10.9.0.100", "10.9.0.2", "10.9.0.3"
PORT = 8000
SERVER_MAC = "02:00:00:00:00:73"
DRIVER = str(Path(__file__).parents[1] / "drivers" / "web.py")
WAIT_S = 30.0
INTERVAL_S, TIMEOUT_S, FALL = 0.2, 0.5, 2
DETECTION_S = INTERVAL_S * FALL + TIMEOUT_S + 0.1
SLACK_S = 1.0
"""For a host that does other things as well."""
KEPT, PERIOD_S = 12, 0.02
CONFIG = f"""
[ports.client]
uri = "af_packet:dc"
[ports.server]
uri = "af_packet:ds"
[nfs.lb.config]
report = "REPORT"
[[nfs.lb.config.vips]]
address = "{VIP}"
port = {PORT}
backends = [{{ address = "{FIRST}" }}, {{ address = "{SECOND}" }}]
check = {{ type = "http", interval_s = {INTERVAL_S}, timeout_s = {TIMEOUT_S}, fall = {FALL} }}
[chains.main]
in = "client"
out = "server"
services = ["lb"]
"""


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


@dataclass
class Bed:
    net: Net
    folder: Path
    manager: Popen[bytes]

    def serve(self, address: str) -> Popen[bytes]:
        log = self.folder / f"{address}.log"
        command = (sys.executable, DRIVER, "serve", address, str(PORT))
        process = self.net.start(SERVER, *command, log=log)
        until(lambda: "listens" in log.read_text(), "a server")
        return process

    def states(self) -> dict[str, str]:
        file = self.folder / "report.json"
        if not file.exists():
            return {}
        (vip,) = json.loads(file.read_text())["vips"]
        return {row["backend"]: row["state"] for row in vip["backends"]}

    def requests(self) -> list[dict[str, Any]]:
        lines = (self.folder / "clients.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]


def connect(net: Net) -> None:
    for role, outer in ((CLIENT, "dc"), (SERVER, "ds")):
        peer = ("peer", "name", outer, "netns", net.space(MANAGER))
        address = f"02:00:00:00:00:{ord(role):02x}"
        net.ip(role, "link", "add", "e0", "address", address, "type", "veth", *peer)
        net.run(MANAGER, "sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1")
        net.ip(MANAGER, "link", "set", outer, "up")
        net.ip(role, "link", "set", "e0", "up")
    net.ip(CLIENT, "addr", "add", "10.9.0.1/24", "dev", "e0")
    net.ip(CLIENT, "neigh", "add", VIP, "lladdr", SERVER_MAC, "dev", "e0")
    for address in (FIRST, SECOND):
        net.ip(SERVER, "addr", "add", f"{address}/24", "dev", "e0")
    net.ip(MANAGER, "link", "add", "m0", "type", "veth", "peer", "m1", "netns", net.space(SERVER))
    for role, interface, address in ((MANAGER, "m0", "10.8.0.1"), (SERVER, "m1", "10.8.0.2")):
        net.ip(role, "addr", "add", f"{address}/24", "dev", interface)
        net.ip(role, "link", "set", interface, "up")
    net.ip(MANAGER, "route", "add", "10.9.0.0/24", "via", "10.8.0.2")


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with namespaces((CLIENT, MANAGER, SERVER)) as net:
        connect(net)
        config, log = tmp_path / "onvm.toml", tmp_path / "manager.log"
        config.write_text(CONFIG.replace("REPORT", str(tmp_path / "report.json")))
        environment = {"ONVM_RUNTIME_DIR": str(tmp_path / "run")}
        command = onvm("up", "-f", str(config))
        manager = net.start(MANAGER, *command, log=log, environment=environment)
        made = Bed(net, tmp_path, manager)
        until(lambda: "is ready" in log.read_text() or manager.poll() is not None, "a manager")
        assert manager.poll() is None, log.read_text()
        yield made


def test_a_server_that_stops_costs_only_the_requests_until_a_check_sees_it(bed: Bed) -> None:
    first, _ = bed.serve(FIRST), bed.serve(SECOND)
    both_up = {FIRST: "up", SECOND: "up"}
    until(lambda: bed.states() == both_up, "both up")
    command = (sys.executable, DRIVER, "ask", VIP, str(PORT), str(PERIOD_S), str(KEPT))
    clients = bed.net.start(CLIENT, *command, log=bed.folder / "clients.log")

    def all_serve() -> bool:
        answered = [r for r in bed.requests() if r["server"]]
        clients = {r["client"] for r in answered}
        return len(clients) == KEPT + 1 and {r["server"] for r in answered} == {FIRST, SECOND}

    until(all_serve, "an answer for each client, and of each server")

    stopped = time.monotonic()
    first.kill()
    until(lambda: bed.states() == {**both_up, FIRST: "down"}, "the first one down")
    bed.serve(FIRST)
    back = time.monotonic()
    until(lambda: bed.states() == both_up, "both up again")

    def is_used() -> bool:
        later = [r for r in bed.requests() if r["client"] == "new" and r["began"] > back]
        return any(r["server"] == FIRST for r in later)

    until(is_used, "new connections to the first")
    clients.terminate()
    clients.wait(WAIT_S)

    found = bed.requests()
    failed = [r for r in found if r["error"]]
    lost = [r for r in failed if r["client"] == "new"]
    first_of = {r["client"]: r["server"] for r in reversed(found) if r["server"]}
    print(f"{len(found)} requests, {len(failed)} failed, {len(lost)} of them on new connections")
    assert all(stopped <= r["began"] + 2 * PERIOD_S for r in failed)
    assert all(r["began"] <= stopped + DETECTION_S + SLACK_S for r in lost)
    assert len(lost) <= (DETECTION_S + SLACK_S) / PERIOD_S
    kept = [r for r in failed if r["client"] != "new"]
    assert {first_of[r["client"]] for r in kept} <= {FIRST}, "connections to the second go on"
    assert [r["client"] for r in kept] == list(dict.fromkeys(r["client"] for r in kept))
