"""Real traffic over a cluster of three hosts while instances and hosts come and go.

A hundred connections say numbers and check what comes back, and downloads are compared by their
SHA-256, through a firewall, a NAT and a load balancer that lose whom they do not know. Nothing of
it may fail but what was led through a host that was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from traffic import CONNECTIONS, Traffic, missing, traffic_over
from traffic_cluster import HOSTS, TrafficCluster

from onvm_core.manager.api import messages as m

MISSING = missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
REASONS = (
    "no_chain",
    "no_instance",
    "shed",
    "ring_full",
    "nf_died",
    "no_path",
    "waiting",
    "foreign",
)
"""Why a manager, and no NF, drops packets when something changes."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[TrafficCluster]:
    with TrafficCluster() as made:
        yield made


@pytest.fixture
def traffic(cluster: TrafficCluster) -> Iterator[Traffic]:
    """Connections and downloads that go on; afterwards everything is as it must be."""
    yield from traffic_over(cluster)


def test_scale_out_and_scale_in(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    through_b = traffic.led_through("b")
    assert len(through_b) == CONNECTIONS
    shown = cluster.onvm("cluster", "scale", "out", "translator", "--prefer", "c")
    assert "translator-1 on c" in shown
    traffic.goes_on()
    # Running connections have stayed; those of new flows are shared out.
    assert traffic.led_through("b") == through_b
    cluster.wait(
        lambda: any("translator-1@c" in path for path in cluster.flows().values()),
        "new flows at the new instance",
    )
    # All that the first has goes to the second, on another host.
    assert "translator-1 on b" in cluster.onvm(
        "cluster", "scale", "in", "translator", "--host", "b"
    )
    cluster.wait(lambda: not cluster.instances() & {"translator-1@b"}, "the move")
    traffic.goes_on()
    assert traffic.led_through("b") == frozenset()


def test_drain_of_a_host(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="ab", translator="bc", balancer="bc")
    traffic.begin()
    assert len(traffic.led_through("b")) >= CONNECTIONS // 4
    cluster.onvm("cluster", "drain", "b")
    cluster.wait(lambda: not any(one.endswith("@b") for one in cluster.instances()), "the moves")
    traffic.goes_on()
    assert traffic.led_through("b") == frozenset()
    cluster.onvm("cluster", "drain", "b", "--undo")


def test_drain_of_the_only_host_of_a_service(cluster: TrafficCluster, traffic: Traffic) -> None:
    """Another instance is asked for, and takes the state when it serves."""
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    cluster.onvm("cluster", "drain", "b")
    cluster.wait(lambda: not any(one.endswith("@b") for one in cluster.instances()), "the move")
    traffic.goes_on()
    cluster.onvm("cluster", "drain", "b", "--undo")


def test_rolling_restart_keeps_configured_instances(
    cluster: TrafficCluster, traffic: Traffic
) -> None:
    """As the manual says: drain, wait, down, up, undo. The agent goes on meanwhile.

    The NAT comes back under another name, for its successor uses the ports of the old one.
    """
    cluster.arrange(guard="a", translator="bc", balancer="c")
    traffic.begin()

    def at_b() -> set[str]:
        return {one for one in cluster.seen() if one.endswith("@b")}

    before = at_b()
    cluster.onvm("cluster", "drain", "b")
    cluster.wait(lambda: not any(one.endswith("@b") for one in cluster.instances()), "the moves")
    cluster.ask("b", m.DownRequest())
    cluster.wait(lambda: cluster.processes["b-manager"].poll() is not None, "its end")
    cluster.start_manager("b")
    cluster.wait(at_b, "the configured instance")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()
    assert cluster.serving("translator") == {"b", "c"}
    cluster.onvm("cluster", "drain", "b", "--undo")
    traffic.goes_on()
    assert len(at_b()) == 1
    assert at_b().isdisjoint(before)


def test_host_leaves_and_comes_back(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="bc", balancer="bc")
    traffic.begin()
    assert traffic.led_through("b")
    assert "b has left" in cluster.onvm("cluster", "leave", "--host", "b")
    cluster.wait(lambda: cluster.processes["b-agent"].poll() is not None, "the end of its agent")
    traffic.goes_on()
    assert not any(one.endswith("@b") for one in cluster.instances())
    cluster.start_agent("b")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()


def dropped(cluster: TrafficCluster, hosts: str) -> Counter[str]:
    """Packets that managers have dropped, by host and reason."""
    drops = {name: cluster.report(name)["drops"] for name in hosts}
    return Counter(
        {f"{name}: {why}": one.get(why, 0) for name, one in drops.items() for why in REASONS}
    )


def test_chain_changes_and_loses_no_packet(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    before = dropped(cluster, HOSTS)
    for services in ("guard,guard,translator,balancer", "guard,translator,balancer"):
        ends = ("--in", "a:client", "--out", "c:server")
        cluster.onvm("cluster", "chain", "add", "web", *ends, "--services", services)
        cluster.wait(lambda: not cluster.status().chains["web"].is_staged, "the change")
        traffic.goes_on()
        assert traffic.led_through("b")
    assert dropped(cluster, HOSTS) - before == {}


def test_hosts_that_come_and_go_elsewhere_lose_no_packet(
    cluster: TrafficCluster, traffic: Traffic
) -> None:
    cluster.arrange(guard="a", translator="c", balancer="c")
    traffic.begin()
    before = dropped(cluster, "ac")
    cluster.onvm("cluster", "leave", "--host", "b")
    cluster.wait(lambda: cluster.processes["b-agent"].poll() is not None, "the end of its agent")
    traffic.goes_on()
    cluster.start_agent("b")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()
    assert dropped(cluster, "ac") - before == {}


def test_host_is_killed(cluster: TrafficCluster, traffic: Traffic) -> None:
    # A client's flows meet one NAT, and are shared out among balancers.
    cluster.arrange(guard="a", translator="c", balancer="bc")
    traffic.begin()
    # Shares follow what instances have to spare, of which little is known at first.
    while not 0 < len(lost := traffic.led_through("b")) < CONNECTIONS:
        traffic.end()
        traffic.begin()
    cluster.kill_host("b")
    traffic.goes_on(lost)
    cluster.wait(
        lambda: not any(one.endswith("@b") for path in cluster.flows().values() for one in path),
        "other instances for its flows",
    )
    traffic.end()
    cluster.wait(lambda: traffic.talk.tell("stat")["loads"] == 0, "the end of downloads")
    traffic.talk.tell("forget")
    traffic.begin()  # new flows are served by others
    cluster.wait(lambda: cluster.is_whole(2), "two hosts that know the same")
    cluster.start_host("b")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()
