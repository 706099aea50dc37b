"""Agents and simulated managers on a real ZooKeeper: views, faults of agents, peers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from bench import Cluster, chain_node, expire, plugin, wait
from hosts import SimulatedHost, are_equal, instances_seen, start_hosts

from onvm_core.cluster.errors import FencedError, NameTakenError, NoClusterError
from onvm_core.cluster.member.membership import remove_host
from onvm_core.cluster.tree.definitions import check_chain
from onvm_core.cluster.view.cluster_view import mismatches, plugin_versions
from onvm_sdk.errors import ConfigError


def test_every_change_reaches_all_managers_with_equal_views(cluster: Cluster) -> None:
    a, b, c = hosts = start_hosts(cluster, 3)
    wait(lambda: are_equal(hosts), what="three hosts that know each other")

    def reaches(what: str, change: object, instances: dict[str, str]) -> float:
        assert callable(change)
        change()
        return wait(lambda: are_equal(hosts) and instances_seen(a) == instances, what=what)

    seconds = [
        reaches("an NF", lambda: a.manager.set_nfs("firewall-1"), {"a/firewall-1": "active"}),
        reaches(
            "another",
            lambda: c.manager.set_nfs("nat-1"),
            {"a/firewall-1": "active", "c/nat-1": "active"},
        ),
        reaches(
            "draining",
            lambda: a.manager.drain_nf("firewall-1"),
            {"a/firewall-1": "draining", "c/nat-1": "active"},
        ),
        reaches("an end", a.manager.set_nfs, {"c/nat-1": "active"}),
    ]
    check_chain(cluster.snapshot(), chain_node(services=["nat"]))
    cluster.chains.put("web", chain_node(services=["nat"]), "me")
    seconds.append(
        wait(
            lambda: (
                all(host.manager.view and host.manager.view.chains for host in hosts)
                and are_equal(hosts)
            )
        )
    )
    print(f"seconds from a change to all three managers: {[round(one, 3) for one in seconds]}")
    view = b.manager.view
    assert view is not None
    assert (view.cluster, view.vni, view.host) == (cluster.name, 77, "b")
    assert view.chains[0].services == ["nat"]
    wait(lambda: cluster.names("applied") == ["a", "b", "c"])


def test_agent_that_was_killed_goes_on_where_it_was(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2)
    a.manager.set_nfs("firewall-1", "nat-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(b)) == 2)
    before, digests = b.manager.view, b.manager.applied
    n_changes = len(digests)
    session = a.session
    a.stop_agent()
    assert a.manager.view is not None  # it goes on with what it was told
    a.start_agent()
    assert before is not None
    wait(lambda: a.agent is not None and a.agent.applies > 0, what="a view by the new agent")
    wait(lambda: a.live.session_thread.may_decide, what="its registration")
    expire(a.hosts, session)  # takes nothing with it
    wait(lambda: are_equal(hosts) and len(instances_seen(b)) == 2)
    assert b.manager.view is not None
    assert b.manager.view.instances == before.instances
    assert b.manager.view.peers == before.peers
    assert len(digests) == n_changes  # no agent noticed


def test_second_agent_of_a_name_is_refused(cluster: Cluster) -> None:
    a, b = start_hosts(cluster, 2)
    other = SimulatedHost(cluster, "a2", 3)
    other.name = "a"
    cluster.stack.callback(other.close)
    with pytest.raises(NameTakenError, match="another state directory has joined with it"):
        other.start_agent("a2")
    with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        other.start_agent("a")
    wait(lambda: are_equal([a, b]))
    assert a.error is None


def test_session_that_expires_is_replaced_and_views_stay(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2, linger_s=20.0)
    a.manager.set_nfs("firewall-1")
    b.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(b)) == 2)
    numbers = {one.number for one in a.manager.view.instances}  # type: ignore[union-attr]
    election_number = a.live.session_thread.membership.election_number
    expire(a.hosts, a.session)
    wait(
        lambda: a.live.session_thread.membership.election_number > election_number,
        what="a new election number",
    )
    wait(
        lambda: are_equal(hosts) and set(instances_seen(b).values()) == {"active"},
        what="equal views",
    )
    assert {one.number for one in b.manager.view.instances} == numbers  # type: ignore[union-attr]


def test_host_that_vanishes_gets_nothing_new_and_then_goes(cluster: Cluster) -> None:
    a, b, c = hosts = start_hosts(cluster, 3, linger_s=1.5)
    for host in hosts:
        host.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 3)
    c.vanish()
    rest = [a, b]
    wait(lambda: are_equal(rest, 3) and instances_seen(a).get("c/firewall-1") == "draining")
    for host in rest:
        host.manager.silent = frozenset("c")
    wait(lambda: are_equal(rest, 2) and len(instances_seen(a)) == 2)
    c.start_agent()
    wait(lambda: are_equal(hosts) and set(instances_seen(a).values()) == {"active"})


def test_host_without_an_agent_stays_while_its_manager_answers(cluster: Cluster) -> None:
    """Also for agents that begin while it is away; its own next agent finds all as it was."""
    a, b, c = hosts = start_hosts(cluster, 3, linger_s=0.2)
    b.manager.set_nfs("firewall-1")
    c.manager.set_nfs("nat-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 2)
    numbers = {one.number for one in a.manager.view.instances}  # type: ignore[union-attr]
    cluster.chains.put("web", chain_node(near="a", far="c", services=["nat"]), "me")
    wait(lambda: len(a.manager.view.chains) == 1)  # type: ignore[union-attr,arg-type]
    c.vanish()
    wait(lambda: cluster.names("hosts") == ["a", "b"])
    a.stop_agent()
    a.manager.close()
    a.manager = type(a.manager)(a.manager.directory)
    a.manager.start()
    a.start_agent()
    time.sleep(1.0)  # longer than it lingers
    for host in (a, b):
        assert instances_seen(host) == {"b/firewall-1": "active", "c/nat-1": "active"}
        assert [chain.name for chain in host.manager.view.chains] == ["web"]  # type: ignore[union-attr]
    b.manager.set_nfs("firewall-1", "firewall-2")  # a number that is given out now is another
    wait(lambda: len(instances_seen(a)) == 3)
    assert len(numbers | {one.number for one in a.manager.view.instances}) == 3  # type: ignore[union-attr]
    remove_host(cluster.ensemble, cluster.paths, "c")
    wait(lambda: are_equal([a, b]) and "c/nat-1" not in instances_seen(a))


def test_host_that_is_removed_is_gone_at_once_and_its_agent_ends(cluster: Cluster) -> None:
    a, b = start_hosts(cluster, 2)
    wait(lambda: are_equal([a, b]))
    remove_host(cluster.ensemble, cluster.paths, "b")
    wait(lambda: isinstance(b.error, FencedError), what="the end of its agent")
    wait(lambda: are_equal([a], 1))


def test_manager_that_restarts_gets_the_view_again(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2)
    b.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 1)
    b.manager.close()
    wait(lambda: a.manager.view is not None and not a.manager.view.instances, what="its end")
    b.manager = type(b.manager)(b.manager.directory)
    b.manager.start()
    b.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and instances_seen(a) == {"b/firewall-1": "active"})


def test_draining_host_gets_nothing_new(cluster: Cluster) -> None:
    a, _ = hosts = start_hosts(cluster, 2)
    for host in hosts:
        host.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 2)
    path = f"{cluster.paths.draining}/b"
    cluster.ensemble.client.create(path, b'{"format":2,"since":0}')
    wait(lambda: are_equal(hosts) and instances_seen(a)["b/firewall-1"] == "draining")
    cluster.ensemble.client.delete(path)
    wait(lambda: are_equal(hosts) and instances_seen(a)["b/firewall-1"] == "active")


def test_host_with_another_edition_gets_nothing_new(cluster: Cluster) -> None:
    a, _, c = hosts = start_hosts(cluster, 3)
    c.plugins = [plugin("firewall", version="2")]
    c.stop_agent()
    c.start_agent()
    for host in hosts:
        host.manager.set_nfs("firewall-1")
    wait(
        lambda: (
            are_equal(hosts)
            and instances_seen(a)
            == {"a/firewall-1": "active", "b/firewall-1": "active", "c/firewall-1": "draining"}
        )
    )
    cluster.chains.put("web", chain_node(services=["firewall", "nat"]), "me")
    snapshot = cluster.snapshot()
    assert plugin_versions(snapshot)["firewall"] == ("1", "d")
    assert mismatches(snapshot) == [
        "c: has firewall 2, the cluster runs 1; it is not chosen for it",
        "c: has no NF for nat; it is not chosen for it",
    ]


def test_damaged_nodes_harm_nobody(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2)
    wait(lambda: are_equal(hosts))
    create = cluster.ensemble.client.create
    create(f"{cluster.paths.chains}/bad", b"\x00")
    create(f"{cluster.paths.hosts}/bad", b"{}")
    create(f"{cluster.paths.entries}/entry-100-0000000000", b"[]")
    cluster.chains.put("good", chain_node(), "me")
    wait(lambda: all(host.manager.view and host.manager.view.chains for host in hosts))
    assert are_equal(hosts)
    assert (a.error, b.error) == (None, None)


def test_spare_capacity_travels_between_agents(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2)
    b.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 1)

    def spare() -> int:
        assert a.manager.view is not None
        return a.manager.view.instances[0].spare_pps

    b.manager.utilisation = 0.25
    wait(lambda: spare() == 750_000)
    writes = b.live.session_thread.writes
    digests = len(a.manager.applied)
    b.manager.utilisation = 0.9
    wait(lambda: spare() == 100_000)
    assert b.live.session_thread.writes == writes  # ZooKeeper knows nothing of it
    assert len(a.manager.applied) == digests


def test_address_of_another_host_is_refused(cluster: Cluster) -> None:
    a, b = start_hosts(cluster, 2)
    wait(lambda: are_equal([a, b]))
    b.stop_agent()
    b.number = 1
    with pytest.raises(NameTakenError, match=r"--data-address: '10.0.0.1': .*; a has it"):
        b.start_agent()
    remove_host(cluster.ensemble, cluster.paths, "a")
    b.start_agent()
    b.stop_agent(is_leaving=True)


def test_another_cluster_of_the_name_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (a,) = start_hosts(cluster, 1)
    wait(lambda: are_equal([a]))
    a.stop_agent(is_leaving=True)
    cluster.ensemble.client.delete(cluster.paths.root, recursive=True)
    cluster.__class__.__enter__(cluster)
    with pytest.raises(NoClusterError, match="expected the cluster that this host has joined"):
        a.start_agent()
