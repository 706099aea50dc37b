"""What `onvm cluster status` finds wrong, and what commands refuse before it is so."""

from __future__ import annotations

import os
import subprocess

import msgspec
from bench import Cluster, chain_node, host_node, instance, instances_node, plugin
from commands import run_onvm

from onvm_core.cluster.status import chain_problems, read_status
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import ClusterNode, KnownNode, NameNode, pack

WHOLE = Snapshot(
    cluster=ClusterNode(id="0123456789", name="main", vni=7),
    members=frozenset("ab"),
    hosts={"a": host_node(1), "b": host_node(2)},
    instances={"a": instances_node(instance(5)), "b": instances_node()},
    chains={"web": chain_node()},
)


def problems(**changes: object) -> list[str]:
    lines = chain_problems(msgspec.structs.replace(WHOLE, **changes), "web")
    assert all(line.startswith("chain web: ") for line in lines)
    return [line.removeprefix("chain web: ") for line in lines]


def test_chain_that_loses_packets_is_named_with_the_reason() -> None:
    assert problems() == []
    (line,) = problems(chains={"web": chain_node(services=["firewall", "nat"])})
    assert line == "no instance of nat serves; start one: onvm cluster scale out nat"
    away = KnownNode(host=host_node(2), instances=instances_node())
    assert problems(hosts={"a": host_node(1)}, away={"b": away}) == ["b, where it ends, is away"]
    assert problems(hosts={"a": host_node(1)}, members=frozenset("a")) == [
        "b, where it ends, is no host of the cluster"
    ]
    down = {"a": host_node(1), "b": host_node(2, state="no_manager")}
    assert problems(hosts=down) == ["b, where it ends, has no manager"]
    ports = {"a": host_node(1), "b": host_node(2, ports=["client"])}
    assert problems(hosts=ports) == ["b has no port server"]


def test_instance_of_a_host_without_a_session_serves() -> None:
    known = KnownNode(host=host_node(3), instances=instances_node(instance(5)))
    assert problems(instances={}, away={"c": known}) == []


def onvm(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--ensemble", cluster.hosts, "--cluster", cluster.name]
    return run_onvm(
        "cluster",
        *arguments,
        *options,
        env={
            **os.environ,
            "ONVM_STATE_DIR": str(cluster.folder / "none"),
            "ONVM_CLUSTER_CREDENTIALS": cluster.credentials.line.strip(),
        },
    )


def test_commands_that_would_make_a_dead_chain_say_so(cluster: Cluster) -> None:
    for number, name in enumerate("ab", 1):
        member = cluster.member(name)
        host = host_node(number, plugins=[plugin("firewall"), plugin("nat")])
        member.register(host, instances_node(instance(number)))
    ends = ["--in", "a:client", "--out", "b:server"]
    done = onvm(cluster, "chain", "add", "web", *ends, "--services", "firewall,nat")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: no instance of nat serves, so the chain drops its packets; "
        "start one: onvm cluster scale out nat\n"
    )
    assert read_status(cluster.ensemble, cluster.paths).problems == [
        "chain web: no instance of nat serves; start one: onvm cluster scale out nat"
    ]
    done = onvm(cluster, "leave", "--host", "b", "--drain-s", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: leave: 'b': expected a host on which no chain ends (web); remove these, or "
        "leave with --force: they drop all packets then\n"
    )
    done = onvm(cluster, "leave", "--host", "b", "--drain-s", "0", "--force")
    assert (done.returncode, done.stdout) == (0, "b has left the cluster\n")
    assert "b, where it ends, is no host" in str(
        read_status(cluster.ensemble, cluster.paths).problems
    )
    # A name whose owner is unknown, as after `recover`, is the next one's.
    cluster.ensemble.client.create(
        f"{cluster.paths.names}/c", pack(NameNode(number=9, proof="", key=""))
    )
    assert cluster.member("c").reserve_name() == 9
