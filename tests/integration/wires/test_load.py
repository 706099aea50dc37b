"""Ports on interfaces at rest, under more than they can take, and with several queues."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire_bed import MISSING, V4, V6, Bed, bed

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
IDLE_S = 1.0
WAKE_UPS = 100
"""A worker that others wake looks up 20 times a second; one that polls, 2,000 times."""


@pytest.fixture(params=["af_packet", "tap"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A bed without a manager."""
    with bed(request.param) as made:
        made.serve()
        yield made


def test_queues_share_the_flows(fresh: Bed) -> None:
    fresh.start(workers=2, queues=2)
    fresh.ping(V4)
    fresh.download(V6)
    fresh.client("talk", V4, 100, 20_000)
    fresh.client("ask", V6, 50, 4000)
    fresh.stream(V4, 10)
    fresh.check_counts()
    fresh.stop()


def test_what_the_socket_cannot_hold_is_counted() -> None:
    with bed("af_packet") as wire:
        wire.serve()
        wire.start(buffer=1, qdisc="false")
        assert wire.manager is not None
        wire.manager.send_signal(signal.SIGSTOP)
        try:
            wire.client("flood", V4, 3000, 1400)
        finally:
            wire.manager.send_signal(signal.SIGCONT)
        wire.await_reachable()
        wire.check_counts()
        lost = {port["name"]: port["lost"] for port in wire.report()["ports"]}
        assert lost["client"]["missed"] > 1000
        assert wire.report()["drops"]["rx_missed"] == lost["client"]["missed"]
        wire.stop()


def test_worker_sleeps_until_a_packet_comes(fresh: Bed) -> None:
    fresh.start()
    assert fresh.manager is not None
    fresh.ping(V4)
    time.sleep(0.2)
    before = _wake_ups(fresh.manager.pid)
    time.sleep(IDLE_S)
    assert _wake_ups(fresh.manager.pid) - before < WAKE_UPS
    fresh.stop()


def _wake_ups(pid: int) -> int:
    """How often the worker of a manager has slept."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith("rte-worker"):
            status = (task / "status").read_text(encoding="ascii").splitlines()
            line = next(one for one in status if one.startswith("voluntary_ctxt_switches"))
            return int(line.split()[1])
    raise AssertionError("there is no worker")
