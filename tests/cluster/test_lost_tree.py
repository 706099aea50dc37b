"""ZooKeeper that is restored from a backup, or has lost everything, while agents and packets go on.

The tree is made again from an export, or from what an agent has kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench import SESSION_S, Cluster, chain_node, wait
from commands import run_onvm
from hosts import SimulatedHost, are_equal, instances_seen, start_hosts

from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble
from onvm_core.cluster.errors import LostClusterError
from onvm_core.cluster.member.state_directory import COPY_FILE
from onvm_core.cluster.status import read_status
from onvm_core.cluster.tree.copy import make_from, member_copy, read_copy, read_file
from onvm_core.cluster.tree.definitions import Chains
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.nodes import ServiceNode
from onvm_core.manager.api.messages import ClusterReply
from onvm_sdk.errors import ConfigError


class Server:
    """A server whose data can be put aside, put back, and deleted."""

    def __init__(self, folder: Path, ensemble: LocalEnsemble) -> None:
        self._data = folder / "zookeeper-1" / "data"
        self._backup = folder / "backup"
        self.ensemble = ensemble

    def _change(self, change: object) -> None:
        assert callable(change)
        self.ensemble.kill(0)
        change()
        self.ensemble.start_member(0)
        self.ensemble.wait_member(0)

    def back_up(self) -> None:
        self._change(lambda: shutil.copytree(self._data, self._backup))

    def restore(self) -> None:
        def put_back() -> None:
            shutil.rmtree(self._data)
            shutil.copytree(self._backup, self._data)

        self._change(put_back)

    def empty(self) -> None:
        self._change(lambda: shutil.rmtree(self._data / "version-2"))


@pytest.fixture
def server(credentials: Credentials) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="onvm-zkl-") as folder,
        LocalEnsemble(Path(folder), credentials=credentials) as made,
    ):
        yield Server(Path(folder), made)


@pytest.fixture
def cluster(
    server: Server, credentials: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="onvm-c-") as runtime:
        monkeypatch.setenv("ONVM_RUNTIME_DIR", runtime)
        with Cluster(server.ensemble.hosts, credentials, "main", tmp_path) as made:
            yield made


def numbers(hosts: list[SimulatedHost]) -> dict[str, int]:
    view = hosts[0].manager.view
    assert view is not None
    return {f"{one.host}/{one.name}": one.number for one in view.instances}


def chains_of(host: SimulatedHost) -> list[str]:
    return [] if host.manager.view is None else [chain.name for chain in host.manager.view.chains]


def counts(host: SimulatedHost) -> tuple[int, int, int]:
    """What its manager knows: peers, instances, chains."""
    view = host.manager.view
    assert view is not None
    return len(view.peers), len(view.instances), len(view.chains)


@contextlib.contextmanager
def told(hosts: list[SimulatedHost]) -> Iterator[list[tuple[str, int, int, int]]]:
    """Name and `counts` of each view that their managers are told meanwhile."""
    found: list[tuple[str, int, int, int]] = []
    with contextlib.ExitStack() as stack:
        for host in hosts:
            manager: Any = host.manager
            usual = manager._applied

            def applied(host: SimulatedHost = host, usual: Any = usual) -> ClusterReply:
                if host.manager.view is not None:
                    found.append((host.name, *counts(host)))
                reply: ClusterReply = usual()
                return reply

            stack.callback(setattr, manager, "_applied", usual)
            manager._applied = applied
        yield found


def test_agents_begin_again_after_a_backup_was_restored(cluster: Cluster, server: Server) -> None:
    a, b = hosts = start_hosts(cluster, 2, linger_s=30.0, session_s=SESSION_S)
    a.manager.set_nfs("firewall-1")
    b.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(a)) == 2)
    cluster.chains.put("web", chain_node(), "me")
    wait(lambda: chains_of(a) == ["web"])
    cluster.ensemble.close()
    server.back_up()
    c = SimulatedHost(cluster, "c", 3, linger_s=30.0, session_s=SESSION_S)
    cluster.stack.callback(c.close)
    hosts.append(c.start_agent())
    c.manager.set_nfs("firewall-1")
    a.manager.set_nfs("firewall-1", "nat-1")
    wait(lambda: are_equal(hosts) and len(instances_seen(b)) == 4, what="all of it")
    before = numbers(hosts)
    changes = [len(host.manager.applied) for host in hosts]

    server.restore()
    with (
        Ensemble(cluster.hosts, cluster.credentials, session_s=8) as ensemble,
        told(hosts) as views,
    ):
        ensemble.connect(30)
        wait(lambda: len(read_status(ensemble, cluster.paths).hosts) == 3, what="all names")
        wait(
            lambda: (
                {one.state for one in read_status(ensemble, cluster.paths).hosts} == {"up"}
                and are_equal(hosts)
                and numbers(hosts) == before  # the backup's session of a knows fewer
            ),
            what="all hosts",
        )
        # The backup knows neither c nor what a has started since, and nothing vanishes.
        assert {one[1:] for one in views} <= {(2, 4, 1)}, views
        assert [counts(host) for host in hosts] == [(2, 4, 1)] * 3
        for host in hosts:
            host.manager.set_nfs(*host.manager.nfs(), "lb-1")
        wait(lambda: are_equal(hosts) and len(numbers(hosts)) == 7)
        assert len(set(numbers(hosts).values())) == 7
        assert read_status(ensemble, cluster.paths).is_equal
    assert [host.error for host in hosts] == [None] * 3
    assert all(len(host.manager.applied) > n for host, n in zip(hosts, changes, strict=True))


def test_tree_that_was_lost_is_made_again_from_what_an_agent_knew(
    cluster: Cluster, server: Server
) -> None:
    a, b, c = hosts = start_hosts(cluster, 3, linger_s=30.0, session_s=SESSION_S)
    for host in hosts:
        host.manager.set_nfs("firewall-1")
    cluster.chains.put("web", chain_node(), "me")
    cluster.services.put("nat", ServiceNode(revision=1, min=0), "me")
    wait(lambda: are_equal(hosts) and counts(a) == (2, 3, 1))
    copy = cluster.folder / "state-b" / COPY_FILE
    expected = member_copy(cluster.snapshot(), 3)
    wait(
        lambda: (
            copy.exists()
            and msgspec.structs.replace(read_file(copy), taken=0)
            == msgspec.structs.replace(expected, taken=0)
        ),
        what="a copy at the agent",
    )
    c.stop_agent()  # its host is away, and must not be lost either
    before = numbers(hosts)
    cluster.ensemble.close()
    server.empty()
    with Ensemble(cluster.hosts, cluster.credentials, session_s=8) as ensemble:
        ensemble.connect(30)
        wait(lambda: "has lost it" in a.live.session_thread._complaint, what="a word of it")
        with pytest.raises(LostClusterError, match="onvm cluster recover"):
            c.start_agent()
        make_cluster(ensemble, "main")  # as one might try, to no avail: it is another cluster
        make_from(ensemble, read_file(copy), "me")
        c.start_agent()
        wait(
            lambda: (
                {one.state for one in read_status(ensemble, cluster.paths).hosts} == {"up"}
                and read_status(ensemble, cluster.paths).is_equal
                and are_equal(hosts)
            ),
            what="all hosts",
        )
        assert numbers(hosts) == before
        for host in hosts:
            assert counts(host) == (2, 3, 1)
        b.manager.set_nfs("firewall-1", "firewall-2")
        wait(lambda: are_equal(hosts) and len(numbers(hosts)) == 4)
        assert len(set(numbers(hosts).values())) == 4
        assert [one.what for one in Chains(ensemble, cluster.paths).history("web")] == ["recovered"]
        with pytest.raises(ConfigError, match="lost it; this one has 3 hosts in it"):
            make_from(ensemble, read_file(copy), "me")
    assert [host.error for host in hosts] == [None] * 3


def test_export_is_all_that_is_imported(cluster: Cluster, server: Server) -> None:
    del server
    member = cluster.member("a")
    member.reserve_name()
    for revision in (1, 2):
        cluster.chains.put("web", chain_node(revision=revision), "me")
    file = cluster.folder / "copy.json"
    options = ["--ensemble", cluster.hosts]

    def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
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

    assert "1 hosts, 1 chains, 0 services" in onvm("export", str(file)).stdout
    before = read_copy(cluster.ensemble, cluster.paths)
    done = onvm("import", str(file))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    cluster.ensemble.client.delete(cluster.paths.root, recursive=True)
    done = onvm("import", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    after = read_copy(cluster.ensemble, cluster.paths)
    before = msgspec.structs.replace(before, taken=after.taken)
    # Only spaces differ.
    assert json.loads(msgspec.json.encode(after)) == json.loads(msgspec.json.encode(before))
    assert onvm("recover").returncode == 2  # no agent has ever run here
    file.write_text('{"format":1}')
    done = onvm("import", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
