"""A chain that changes: ports use its new definition when all hosts know it, and not earlier."""

from __future__ import annotations

import pytest
from bench import Cluster, chain_node, wait
from hosts import are_equal, start_hosts
from msgspec.structs import replace

from onvm_core.cluster.tree import chain_changes
from onvm_core.cluster.tree.nodes import AppliedNode, ChainNode, Paths, pack, unpack


def now(cluster: Cluster) -> ChainNode:
    node = cluster.chains.get("web")
    assert node is not None
    return node


def change(cluster: Cluster, *services: str, **fields: object) -> ChainNode:
    node = now(cluster)
    given = {"services": list(services), **fields} if services else fields
    return cluster.chains.put("web", replace(node, revision=node.revision + 1, **given), "me")


def knows(cluster: Cluster, name: str, number: int) -> bool:
    data, _ = cluster.ensemble.client.get(f"{Paths(cluster.name).applied}/{name}")
    return number in unpack(data, AppliedNode).chains


def test_definition_that_leads_elsewhere_has_another_number(cluster: Cluster) -> None:
    first = cluster.chains.put("web", chain_node(5), "me")
    assert (first.number, first.is_staged, first.formers) == (5, False, [])
    same = change(cluster, track_flows=False)
    assert (same.number, same.is_staged) == (5, False)
    second = change(cluster, "nat")
    assert (second.is_staged, [one.number for one in second.formers]) == (True, [5])
    assert second.number != 5
    third = change(cluster, "lb")  # the second was used nowhere
    assert [one.number for one in third.formers] == [5]
    assert third.order == 5
    kept = change(cluster, on_failure="wait")
    assert (kept.number, kept.is_staged, kept.formers) == (third.number, True, third.formers)
    back = cluster.chains.rollback("web", 1, "me")
    assert back.is_staged
    assert back.number not in (5, second.number, third.number)
    assert [one.what for one in cluster.chains.history("web")][-1] == "rolled back to 1"
    assert all(not (one.definition or {}).get("formers") for one in cluster.chains.history("web"))


def test_change_is_made_though_the_leader_moves_the_chain_on_meanwhile(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.chains.put("web", chain_node(5), "me")
    staged = change(cluster, "nat")
    succeed = cluster.chains._succeed

    def move_on(known: ChainNode, node: ChainNode) -> ChainNode:
        if known.is_staged:
            path = f"{cluster.paths.chains}/web"
            cluster.ensemble.client.set(path, pack(replace(known, is_staged=False)))
        return succeed(known, node)

    monkeypatch.setattr(cluster.chains, "_succeed", move_on)
    again = change(cluster, "lb")
    assert [one.number for one in again.formers] == [staged.number, 5]


def test_ports_use_it_when_all_hosts_know_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_changes, "PASSED_S", 0.0)
    hosts = _, _, c = start_hosts(cluster, 3)
    cluster.chains.put("web", chain_node(5), "me")
    wait(lambda: are_equal(hosts) and knows(cluster, "c", 5), what="the chain")
    with c.manager._lock:  # it takes no view
        number = change(cluster, "nat").number
        wait(lambda: knows(cluster, "a", number) and knows(cluster, "b", number))
        assert now(cluster).is_staged
        for host in hosts[:2]:
            assert host.manager.view is not None
            (seen,) = host.manager.view.chains
            assert (seen.number, seen.current.number) == (number, 5)
    wait(lambda: not now(cluster).formers, what="the end of the change")
    assert not now(cluster).is_staged
    wait(lambda: are_equal(hosts) and not knows(cluster, "c", 5), what="the end of its number")


def test_host_that_does_not_follow_holds_it_up_for_a_while_only(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chain_changes, "WAIT_S", 0.3)
    hosts = _, b = start_hosts(cluster, 2)
    cluster.chains.put("web", chain_node(5, far="a"), "me")
    wait(lambda: are_equal(hosts) and knows(cluster, "b", 5), what="the chain")
    with b.manager._lock:
        change(cluster, "nat")
        wait(lambda: not now(cluster).is_staged, what="the change")
    assert "b did not learn of its change within 0.3 s" in caplog.text
