"""`onvm bench cluster`: it measures what it says, and says in one line what it cannot measure."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from bench import wait
from namespaces import missing
from processes import SERVICES

from onvm_core.bench import suites
from onvm_core.bench.cluster import FIGURES
from onvm_core.bench.probes import probes
from onvm_core.bench.scenario import Scenario, run_scenario

MISSING = missing()


class Server:
    """Sends back what it gets, unless told not to answer some."""

    def __init__(self) -> None:
        self.is_deaf_to: set[int] = set()
        self.is_deaf = False
        self.heard: set[int] = set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            data, (_, port) = self.socket.recvfrom(64)
            if data == b"end":
                return
            self.heard.add(port)
            if not self.is_deaf and port not in self.is_deaf_to:
                self.socket.sendto(data, ("127.0.0.1", port))

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.address)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_probes_see_a_pause_of_running_flows_and_lost_new_ones(server: Server) -> None:
    with probes(server.address, lambda call: call()) as seen:
        wait(lambda: len(server.heard) > 30, what="datagrams")
        begin = time.monotonic()
        server.is_deaf = True
        time.sleep(0.4)
        server.is_deaf = False
        now = len(server.heard)
        wait(lambda: len(server.heard) > now + 30, what="more datagrams")
        end = time.monotonic()
    # A slow server answers at the end what was sent a while before.
    assert 200 <= seen.pause_ms(begin) <= (end - begin) * 1000 + 500
    assert 200 <= seen.lost_until_ms(begin) <= (end - begin) * 1000
    assert seen.lost_until_ms(end) == 0


def test_probes_see_that_one_running_flow_does_not_come_back(server: Server) -> None:
    with probes(server.address, lambda call: call()) as seen:
        wait(lambda: len(server.heard) > 30, what="datagrams")
        begin = time.monotonic()
        server.is_deaf_to.add(seen.ports[0])
        now = len(server.heard)
        wait(lambda: len(server.heard) > now + 30, what="more datagrams")
    assert math.isinf(seen.pause_ms(begin))


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
@pytest.mark.skipif("firewall" not in SERVICES, reason="onvm-nf-firewall is not installed")
def test_all_figures_are_measured() -> None:
    figures = run_scenario(Scenario(kind="cluster"))
    assert tuple(figures) == FIGURES
    print(figures)
    # No goals here, for any machine may be slow: only what must be so.
    assert all(0 <= value < 60_000 for value in figures.values())
    assert figures["join"] > figures["join.tables"]
    assert figures["scale"] == pytest.approx(figures["scale.launch"] + figures["scale.outside"])
    assert figures["scale.outside"] >= figures["nf"] > 0
    # No datagram came through a host that was cut off, so some time there must have been.
    assert figures["failover.cut.running"] > 10


def test_without_root_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(suites, "_remote", lambda runs, seconds: iter(()))
    assert list(suites.run_suite("cluster", 1, 0.1)) == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(f"cluster.{name}" in said for name in FIGURES)
    assert said.startswith("not measured: ")
    assert "expected root" in said
