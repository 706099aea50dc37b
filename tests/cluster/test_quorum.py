"""A minute without a quorum: real managers, real packets, three real servers of which two are dead.

`test_faults` has the same for some seconds, with simulated managers and changes at once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from bench import wait
from buffers import are_back
from namespaces import missing
from processes import SERVICES

from onvm_core.cluster.dev.dev_cluster import DevCluster
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client

MISSING = missing()
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete"),
    pytest.mark.skipif("firewall" not in SERVICES, reason="onvm-nf-firewall is not installed"),
]
OUTAGE_S = 60.0


@pytest.fixture
def dev() -> Iterator[DevCluster]:
    with DevCluster(3, ["firewall"], servers=3) as made:
        yield made


def ask(dev: DevCluster, name: str, request: m.Request) -> dict[str, Any]:
    with Client(dev.folder / "r" / name) as client:
        return msgspec.to_builtins(client.ask(request, object))  # type: ignore[no-any-return]


def tables(dev: DevCluster) -> list[tuple[str, list[Any]]]:
    """Of each manager: the digest of its tables, and the processes of its NFs."""
    return [
        (
            ask(dev, name, m.ClusterLocalRequest())["digest"],
            [one["pid"] for one in ask(dev, name, m.InstancesRequest())["launched"]],
        )
        for name in dev.names
    ]


def balances(dev: DevCluster) -> bool:
    """Whether all packets are accounted for, and all buffers are back."""
    reports = [ask(dev, name, m.StatusRequest())["report"] for name in dev.names]
    return all(
        one["rx"] + one["originated"] == one["tx"] + sum(one["drops"].values()) and are_back(one)
        for one in reports
    )


def test_a_minute_without_quorum_packets_go_on_and_nothing_is_decided(dev: DevCluster) -> None:
    before = tables(dev)
    assert len({digest for digest, _ in before}) == 1
    sent = answered = 0
    dev.stop_server(0)
    dev.stop_server(1)
    end = time.monotonic() + OUTAGE_S
    asking = subprocess.Popen(
        [dev.folder / "onvm", "cluster", "scale", "out", "firewall", "--deadline-s", "30"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while time.monotonic() < end:
        answered += dev.probe(5)[0]
        sent += 5
        assert tables(dev) == before
        time.sleep(0.2)
    assert asking.wait(60) != 0
    print(f"{answered} of {sent} datagrams were answered")
    assert answered >= sent - sent // 50  # a busy machine may be late with some
    dev.start_server(0)
    dev.start_server(1)

    def is_whole() -> bool:
        shown = dev.status()
        return shown.is_equal and [one.state for one in shown.hosts] == ["up"] * 3

    def has_come_back() -> bool:
        try:
            return is_whole()
        except Exception:  # noqa: BLE001 -- the session of the test has to come back, too
            return False

    wait(has_come_back, 120, "the cluster's return")
    assert tables(dev) == before
    wait(lambda: balances(dev), 30, "all packets and buffers")
