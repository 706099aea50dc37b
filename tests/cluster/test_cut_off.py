"""A host that is cut off from ZooKeeper, its peers, or both, with packets on their way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from bench import wait
from namespaces import missing
from processes import SERVICES

from onvm_core.cluster.dev import DATA, DevCluster

MISSING = missing()
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete"),
    pytest.mark.skipif("firewall" not in SERVICES, reason="onvm-nf-firewall is not installed"),
]


@pytest.fixture(scope="module")
def dev() -> Iterator[DevCluster]:
    with DevCluster(3, ["firewall"]) as made:
        yield made


@pytest.fixture(autouse=True)
def healed(dev: DevCluster) -> Iterator[None]:
    """Before and after each test: all hosts are there, know the same, and packets pass."""
    wait(lambda: is_whole(dev), 60, "a whole cluster")
    yield
    wait(lambda: is_whole(dev), 90, "a whole cluster")


def is_whole(dev: DevCluster) -> bool:
    shown = dev.status()
    return (
        shown.is_equal
        and [one.state for one in shown.hosts] == ["up"] * 3
        and not any(one.missing for one in shown.hosts)
        and dev.probe(5)[0] == 5
    )


class Cut:
    """Packets from a host to some addresses go nowhere."""

    def __init__(self, dev: DevCluster, host: str, *addresses: str) -> None:
        self._dev = dev
        self._host = host
        self._addresses = addresses

    def _route(self, action: str) -> None:
        for address in self._addresses:
            command = ["ip", "route", action, "blackhole", f"{address}/32"]
            subprocess.run(self._dev.command(self._host, *command), check=True)

    def __enter__(self) -> None:
        self._route("add")

    def __exit__(self, *_: object) -> None:
        self._route("del")


def answers(dev: DevCluster, seconds: float) -> tuple[int, int]:
    """Datagrams sent and answered while some time passes."""
    sent = answered = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answered += dev.probe(5)[0]
        sent += 5
        time.sleep(0.05)
    return sent, answered


def test_cut_off_from_zookeeper_alone_packets_go_on(dev: DevCluster) -> None:
    with Cut(dev, "h2", f"{DATA}.254"):
        wait(lambda: state(dev, "h2") == "away", 30, "the end of its session")
        sent, answered = answers(dev, 3.0)
    assert answered == sent  # its running flow stays with the instance at h2


def test_cut_off_from_peers_alone_another_instance_serves(dev: DevCluster) -> None:
    ask_for_another(dev)
    with Cut(dev, "h2", f"{DATA}.1", f"{DATA}.3"):
        wait(lambda: dev.probe(5)[0] == 5, 20, "service by another instance")
        assert state(dev, "h2") == "up"  # ZooKeeper sees nothing of it


def test_cut_off_from_both_another_instance_serves(dev: DevCluster) -> None:
    ask_for_another(dev)
    with Cut(dev, "h2", f"{DATA}.254", f"{DATA}.1", f"{DATA}.3"):
        wait(lambda: dev.probe(5)[0] == 5, 20, "service by another instance")
        wait(lambda: state(dev, "h2") == "away", 30, "the end of its session")
        sent, answered = answers(dev, 1.0)
        assert answered == sent


def state(dev: DevCluster, name: str) -> str:
    return next(one.state for one in dev.status().hosts if one.name == name)


def ask_for_another(dev: DevCluster) -> None:
    """Have instances of the firewall on two hosts."""
    if len(firewalls(dev)) < 2:
        done = subprocess.run(
            [dev.folder / "onvm", "cluster", "scale", "out", "firewall", "--prefer", "h1"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    wait(lambda: len(firewalls(dev)) >= 2, what="another instance")


def firewalls(dev: DevCluster) -> dict[str, int]:
    return next(one.instances for one in dev.status().services if one.name == "firewall")
