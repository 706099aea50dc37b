"""Connections and downloads through a cluster, and what must hold when they have ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import namespaces
from buffers import are_back
from traffic_cluster import ECHO_PORT, HOSTS, TrafficCluster

from onvm_core.cluster.dev.local_ensemble import JARS, JAVA
from onvm_core.plugins import discover

CONNECTIONS = 100


def missing() -> str:
    """The thing that a cluster with traffic needs and that is missing; "" when all is there."""
    if not (JAVA / JARS[0]).exists():
        return "not installed: zookeeper"
    if not {"firewall", "nat", "lb"} <= {package.name for package in discover()}:
        return "the NFs of plugins/ are not installed"
    return namespaces.missing()


def traffic_over(cluster: TrafficCluster) -> Iterator[Traffic]:
    """For a fixture: what goes on in a test, and the look at what is left after it."""
    made = Traffic(cluster)
    yield made
    made.end()
    assert_nothing_is_left(cluster)


class Traffic:
    def __init__(self, cluster: TrafficCluster) -> None:
        self.cluster = cluster
        self.talk = cluster.talk
        self.before: dict[str, Any] = {}

    def begin(self) -> None:
        known = len(self.talk.tell("stat")["ports"])
        self.talk.tell(f"open {CONNECTIONS}")
        self.cluster.wait(
            lambda: len(self.talk.tell("stat")["ports"]) == known + CONNECTIONS, "connections"
        )
        self.talk.tell("load 2")
        self.goes_on()

    def goes_on(self, lost: frozenset[str] = frozenset()) -> None:
        """Wait until each connection but those that are lost (numbers) has said more, and files
        have come.
        """
        before = self.talk.tell("stat")

        def has_gone_on() -> bool:
            now = self.talk.tell("stat")
            # Downloads through a host that was killed may wait for long: one by each.
            assert not now["bad_downloads"] or lost, now["bad_downloads"]
            failed = {number: why for number, why in now["failed"].items() if number not in lost}
            assert not failed, (failed, self.cluster.logs())
            said = all(
                now["messages"][number] >= before["messages"].get(number, 0) + 2
                for number in now["ports"].keys() - lost
                if number in now["messages"]
            )
            return said and now["downloads"] >= before["downloads"] + 2

        self.cluster.wait(has_gone_on, "traffic that goes on")

    def led_through(self, host: str) -> frozenset[str]:
        """Numbers of the connections that meet an instance on a host."""
        flows = self.cluster.flows()
        return frozenset(
            number
            for number, port in self.talk.tell("stat")["ports"].items()
            if any(one.endswith(f"@{host}") for one in flows[port, ECHO_PORT])
        )

    def end(self) -> None:
        self.talk.tell("load 0")
        self.talk.tell("close")


def assert_nothing_is_left(cluster: TrafficCluster) -> None:
    """Equal tables, no unknown instance, all buffers back, every packet accounted for."""
    cluster.wait(lambda: cluster.talk.tell("stat")["loads"] == 0, "the end of downloads")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "equal tables")
    cluster.wait(lambda: cluster.instances() == cluster.seen(), "no unknown instance")
    cluster.wait(
        lambda: len(cluster.nf_processes()) == len(cluster.instances()),
        "no process of an unknown NF",
    )

    def balances() -> bool:
        for name in HOSTS:
            report = cluster.report(name)
            came = report["rx"] + report["originated"]
            if came != report["tx"] + sum(report["drops"].values()):
                return False
            if not are_back(report):
                return False
        return True

    cluster.wait(balances, "all buffers and all packets")
