"""Faults of ZooKeeper, agents and networks, with real managers and traffic that goes on.

Three servers of ZooKeeper, three hosts; a hundred connections and downloads through a firewall, a
NAT and a load balancer. After each fault: equal tables, no unknown instance, all buffers
back, every packet accounted for. A minute without quorum is in test_quorum.py, a host that dies in
tests/integration/spanning/test_cluster_traffic.py.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import pytest
from traffic import Traffic, missing, traffic_over
from traffic_cluster import CLUSTER, DATA, HOSTS, TrafficCluster

from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.tree.nodes import Paths, RequestNode
from onvm_core.manager.api import messages as m

MISSING = missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
ZOOKEEPER = f"{DATA}.254"
REQUESTS = 100


@pytest.fixture(scope="module")
def cluster() -> Iterator[TrafficCluster]:
    with TrafficCluster(servers=3) as made:
        yield made


@pytest.fixture
def traffic(cluster: TrafficCluster) -> Iterator[Traffic]:
    """Connections and downloads that go on; afterwards everything is as it must be."""
    yield from traffic_over(cluster)


def addresses(*hosts: str) -> list[str]:
    return [f"{DATA}.{HOSTS.index(name) + 1}" for name in hosts]


@pytest.mark.parametrize("role", ["follower", "leader"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_server_of_three_may_go(
    cluster: TrafficCluster, traffic: Traffic, role: str, fault: str
) -> None:
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    with cluster.server_gone(role, fault):
        cluster.onvm("cluster", "scale", "out", "translator", "--prefer", "c")
        cluster.wait(lambda: cluster.serving("translator") == {"b", "c"}, "the new instance")
        traffic.goes_on()
    traffic.goes_on()


def test_agent_that_is_killed_is_replaced(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="bc", balancer="c")
    traffic.begin()
    agent = cluster.processes["b-agent"]
    agent.kill()
    agent.wait()
    traffic.goes_on()
    cluster.start_agent("b")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "the new agent")
    traffic.goes_on()


def test_second_agent_of_a_name_is_refused(cluster: TrafficCluster, traffic: Traffic) -> None:
    traffic.begin()
    before = cluster.seen()
    cluster.onvm(
        "cluster",
        "join",
        "--manager",
        "c",
        "--name",
        "b",
        "--data-address",
        *addresses("c"),
        is_ok=False,
    )
    traffic.goes_on()
    # Digests may change all the while: a NAT gives up ports that it has inherited.
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)) and cluster.seen() == before, "all as it was")
    assert cluster.processes["b-agent"].poll() is None


def test_frozen_agent_is_away_and_comes_back(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="bc", balancer="c")
    traffic.begin()
    cluster.processes["b-agent"].send_signal(signal.SIGSTOP)
    cluster.wait(lambda: cluster.state("b") == "away", "the end of its session")
    traffic.goes_on()
    cluster.processes["b-agent"].send_signal(signal.SIGCONT)
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()


def test_cut_off_from_zookeeper_alone(cluster: TrafficCluster, traffic: Traffic) -> None:
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    with cluster.cut("b", ZOOKEEPER):
        cluster.wait(lambda: cluster.state("b") == "away", "the end of its session")
        traffic.goes_on()
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.goes_on()


def test_hosts_away_from_zookeeper_are_known_to_agents_that_begin(
    cluster: TrafficCluster, traffic: Traffic
) -> None:
    """The hosts of the clients and of the only NAT, while the third one gets another agent."""
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    agent = cluster.processes["a-agent"]
    agent.kill()
    agent.wait()
    with cluster.cut("b", ZOOKEEPER):
        cluster.wait(lambda: [cluster.state(name) for name in "ab"] == ["away"] * 2, "their end")
        agent = cluster.processes["c-agent"]
        agent.kill()
        agent.wait()
        cluster.wait(lambda: cluster.state("c") == "away", "the end of its session")
        cluster.start_agent("c")
        cluster.wait(lambda: cluster.is_whole(1), "its next agent's view")
        traffic.goes_on()
        traffic.end()
        traffic.talk.tell("forget")
        traffic.begin()  # new flows
        traffic.goes_on()
    cluster.start_agent("a")
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "their return")
    traffic.goes_on()


def answers(cluster: TrafficCluster, name: str) -> bool:
    """Whether the clients' host hears a peer."""
    peers = cluster.ask("a", m.ClusterLocalRequest())["peers"]
    return next(bool(one["is_up"]) for one in peers if one["name"] == name)


@pytest.mark.parametrize("also_from", [[], [ZOOKEEPER]], ids=["peers", "both"])
def test_cut_off_from_peers(
    cluster: TrafficCluster, traffic: Traffic, also_from: list[str]
) -> None:
    """Traffic through the host is lost, as its NAT is out of reach; all else goes on."""
    cluster.arrange(guard="a", translator="bc", balancer="c")
    traffic.begin()
    lost = traffic.led_through("b")
    with cluster.cut("b", *addresses("a", "c"), *also_from):
        cluster.wait(lambda: not answers(cluster, "b"), "what its peers see")
        # Downloads through the host wait for long: these are new.
        traffic.talk.tell("load 6")
        traffic.goes_on(lost)
        assert also_from or cluster.state("b") == "up"  # ZooKeeper sees nothing of it
        cluster.wait(
            lambda: not also_from or cluster.state("b") == "away", "the end of its session"
        )
        traffic.goes_on(lost)
    cluster.wait(lambda: cluster.is_whole(len(HOSTS)), "its return")
    traffic.end()
    cluster.wait(lambda: traffic.talk.tell("stat")["loads"] == 0, "the end of downloads")
    traffic.talk.tell("forget")
    traffic.begin()


def test_each_of_100_requests_has_one_instance_while_agents_are_killed(
    cluster: TrafficCluster, traffic: Traffic
) -> None:
    cluster.arrange(guard="a", translator="b", balancer="c")
    traffic.begin()
    chance = random.Random(4)
    queue = RequestQueue(cluster.ensemble, Paths(CLUSTER))
    keys = [f"r{index}" for index in range(REQUESTS)]
    for index, key in enumerate(keys):
        now = time.time()
        queue.put(
            RequestNode(
                key=key,
                service="dot",
                reason="test",
                preferred=[HOSTS[index % 3]],
                made=now,
                deadline=now + 300,
            )
        )
        if index % 12 == 5:
            name = chance.choice(HOSTS)
            agent = cluster.processes[f"{name}-agent"]
            agent.kill()
            agent.wait()
            cluster.start_agent(name)

    def have_ended() -> bool:
        outcomes = queue.outcomes()
        return all(key in outcomes and outcomes[key].state != "waiting" for key in keys)

    cluster.wait(have_ended, "the end of all requests", 180)
    outcomes = queue.outcomes()
    assert {outcomes[key].state for key in keys} == {"done"}
    served = sorted(f"{outcomes[key].instance}@{outcomes[key].host}" for key in keys)

    def dots() -> list[str]:
        return sorted(one for one in cluster.instances() if one.startswith("dot-"))

    cluster.wait(lambda: dots() == served, "one instance for each request")
    traffic.goes_on()
    for name in HOSTS:
        if any(one.endswith(f"@{name}") for one in dots()):
            cluster.ask(name, m.NfStopRequest("dot"))
    cluster.wait(lambda: not dots(), "their end")
