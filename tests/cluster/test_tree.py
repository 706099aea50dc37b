"""Sessions, nodes, numbers and definitions against a real ZooKeeper."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from bench import (
    SESSION_S,
    Cluster,
    chain_node,
    expire,
    host_node,
    instance,
    instances_node,
    plugin,
    wait,
)
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE

from onvm_core.cluster.credentials import Credentials, read_credentials
from onvm_core.cluster.errors import (
    ConflictError,
    FencedError,
    NameTakenError,
    NoClusterError,
    NoEnsembleError,
)
from onvm_core.cluster.member.membership import remove_host
from onvm_core.cluster.member.state_directory import StateDirectory
from onvm_core.cluster.tree.definitions import check_chain
from onvm_core.cluster.tree.ensemble import Ensemble, Session
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.mirror import Mirror, read_cluster
from onvm_core.cluster.tree.nodes import FORMAT, Paths
from onvm_core.cluster.tree.numbers import NumberSource, next_numbers
from onvm_sdk.errors import ConfigError

# ---- who may come in ----


def test_without_credentials_no_node_can_be_read_or_written(cluster: Cluster) -> None:
    cluster.chains.put("web", chain_node(), "me")
    member = cluster.member("a")
    member.register(host_node(), instances_node())
    stranger = KazooClient(hosts=cluster.hosts)
    stranger.start()
    try:
        paths = [cluster.paths.root]
        for path in paths:  # all nodes, as one who may sees them
            paths += [f"{path}/{name}" for name in cluster.ensemble.client.get_children(path)]
        assert len(paths) > 20
        for path in paths:
            with pytest.raises(NoAuthError):
                stranger.get(path)
            with pytest.raises(NoAuthError):
                stranger.get_children(path)
            with pytest.raises(NoAuthError):
                stranger.set(path, b"x")
            with pytest.raises(NoAuthError):
                stranger.create(f"{path}/x", b"")
            with pytest.raises(NoAuthError):
                stranger.set_acls(path, OPEN_ACL_UNSAFE)
        for path in paths[1:]:
            with pytest.raises(NoAuthError):
                stranger.delete(path)
        for path in paths:
            (acl,) = cluster.ensemble.client.get_acls(path)[0]
            assert (acl.id.scheme, acl.id.id) == ("sasl", cluster.credentials.user)
    finally:
        stranger.stop()
        stranger.close()


def test_wrong_password_is_refused_with_a_line(cluster: Cluster) -> None:
    wrong = Credentials(cluster.credentials.user, "wrong-password")
    with pytest.raises(NoEnsembleError) as caught, Ensemble(cluster.hosts, wrong) as ensemble:
        ensemble.connect()
    assert "does not accept our credentials" in str(caught.value)
    assert "wrong-password" not in str(caught.value)


def test_no_server_is_a_line(cluster: Cluster) -> None:
    with pytest.raises(NoEnsembleError, match=r"127\.0\.0\.1:1 does not answer within 1 s"):
        Ensemble("127.0.0.1:1").connect(1)


@pytest.mark.parametrize(
    "hosts", ["", "zk1", "zk1:0", "zk1:70000", "a:1,,b:2", "http://a:1", "a:1/x"]
)
def test_wrong_address_is_a_line(hosts: str) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        Ensemble(hosts)


def test_unknown_cluster_names_those_there_are(cluster: Cluster) -> None:
    with pytest.raises(NoClusterError, match=rf"{cluster.name}.*make one: onvm cluster init"):
        read_cluster(cluster.ensemble, Paths("other"))
    assert read_cluster(cluster.ensemble, cluster.paths) == cluster.node


def test_a_cluster_is_made_once(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="expected a new name"):
        make_cluster(cluster.ensemble, cluster.name)


def test_credentials_come_from_private_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    path.write_text("onvm:secret-word\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="expected mode 0600") as caught:
        read_credentials(path)
    assert "secret-word" not in str(caught.value)
    path.chmod(0o600)
    assert read_credentials(path) == Credentials("onvm", "secret-word")
    assert "secret-word" not in repr(read_credentials(path))
    path.write_text("secret-word")
    with pytest.raises(ConfigError, match="expected one line user:password") as caught:
        read_credentials(path)
    assert "secret-word" not in str(caught.value)
    monkeypatch.setenv("ONVM_CLUSTER_CREDENTIALS", "a:from-environment")
    assert read_credentials(None) == Credentials("a", "from-environment")
    monkeypatch.setenv("ONVM_CLUSTER_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="expected a file that can be read"):
        read_credentials(None)


# ---- numbers ----


def test_numbers_go_round_and_leave_out_what_is_used() -> None:
    assert next_numbers(0, 3, 5, {2}) == [1, 3, 4]
    assert next_numbers(4, 2, 5, {1}) == [5, 2]
    with pytest.raises(Exception, match="all of the 3 numbers are in use"):
        next_numbers(0, 2, 3, {1, 2})


def test_no_number_is_given_twice(cluster: Cluster) -> None:
    taken: list[int] = []

    def take(session: Ensemble) -> None:
        source = NumberSource(session, cluster.paths, "things", 65535, set)
        for _ in range(20):
            taken.extend(source.take(2))

    threads = [threading.Thread(target=take, args=(cluster.connect(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 161))


def test_damaged_counter_goes_on_behind_what_is_used(cluster: Cluster) -> None:
    source = NumberSource(cluster.ensemble, cluster.paths, "things", 65535, lambda: {41})
    cluster.ensemble.client.create(f"{cluster.paths.numbers}/things", b"rubbish")
    assert source.take() == [42]


# ---- names ----


def test_host_keeps_its_number_and_another_state_is_refused(cluster: Cluster) -> None:
    first = cluster.member("a")
    assert first.reserve_name() == 1
    assert cluster.member("b").reserve_name() == 2
    again = cluster.connect()
    assert type(first)(again, cluster.paths, "a", first._state).reserve_name() == 1
    with pytest.raises(NameTakenError, match="another state directory has joined with it"):
        cluster.member("a", "stranger").reserve_name()


def test_an_agent_that_was_killed_is_replaced_at_once(cluster: Cluster) -> None:
    state = cluster.state("a")
    old = cluster.connect(session_s=10)
    first = type(cluster.member("x"))(old, cluster.paths, "a", state)
    first.register(host_node(), instances_node(instance(5)))
    old.abandon()  # killed: the session stays
    second = type(first)(cluster.connect(), cluster.paths, "a", state)
    begin = wait(lambda: True)
    second.register(host_node(), instances_node(instance(5)))
    assert begin < 1
    assert second.election_number > first.election_number
    stat = cluster.ensemble.client.exists(f"{cluster.paths.hosts}/a")
    assert stat.ephemeralOwner == second._ensemble.session_id


def test_a_copy_of_a_live_agent_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    first = cluster.member("a")
    first._state.save()
    first.register(host_node(), instances_node())
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    copy = cluster.member("a", "copy")
    with pytest.raises(NameTakenError, match="was the state directory copied"):
        copy.register(host_node(), instances_node())
    first.check()


def test_a_second_agent_of_a_state_directory_is_refused(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "a"), pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        StateDirectory(tmp_path / "a")
    StateDirectory(tmp_path / "a").close()


def test_state_is_private_and_damage_is_a_line(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "a") as made:
        made.save()
        path = tmp_path / "a" / "agent.json"
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_text("{}")
    with pytest.raises(ConfigError, match="expected what an agent has written"):
        StateDirectory(tmp_path / "a")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="expected mode 0600"):
        StateDirectory(tmp_path / "a")


def test_one_whose_name_was_taken_over_is_fenced(cluster: Cluster) -> None:
    state = cluster.state("a")
    first = type(cluster.member("x"))(cluster.connect(10), cluster.paths, "a", state)
    first.register(host_node(), instances_node())
    second = type(first)(cluster.connect(), cluster.paths, "a", state)
    second.register(host_node(), instances_node())
    # the first had slept and wakes
    with pytest.raises(ConflictError):
        first.publish_instances(instances_node(instance(9)))
    with pytest.raises(FencedError, match="must not go on"):
        first.check()
    with pytest.raises(FencedError):
        first.register(host_node(), instances_node())
    second.publish_instances(instances_node(instance(8)))
    assert cluster.snapshot().instances["a"] == instances_node(instance(8))


def test_session_that_expires_takes_the_host_away_and_registers_again(cluster: Cluster) -> None:
    states: list[Session] = []
    member = cluster.member("a")
    ensemble = member._ensemble
    ensemble._on_change = states.append
    member.register(host_node(), instances_node())
    first_number = member.election_number
    expire(ensemble.hosts, ensemble.client.client_id)
    wait(lambda: Session.LOST in states and ensemble.is_connected, what="a new session")
    wait(lambda: cluster.names("hosts") == [], what="the end of the old nodes")
    with pytest.raises(ConflictError):  # its election node is gone: whatever it had decided is void
        member.publish_instances(instances_node(instance(1)))
    member.check()
    member.register(host_node(), instances_node())
    assert member.election_number > first_number
    assert cluster.names("hosts") == ["a"]


def test_removed_host_is_told_so_and_its_name_is_free(cluster: Cluster) -> None:
    first = cluster.member("a")
    first.register(host_node(), instances_node())
    assert remove_host(cluster.ensemble, cluster.paths, "a")
    assert not remove_host(cluster.ensemble, cluster.paths, "a")
    with pytest.raises(FencedError, match="was removed from the cluster"):
        first.check()
    assert cluster.snapshot().hosts == {}
    assert cluster.member("a", "another").reserve_name() == 2  # numbers are not used again soon


# ---- the mirror ----


def test_mirror_follows_every_change_with_few_watches(cluster: Cluster) -> None:
    woken = threading.Event()
    mirror = Mirror(cluster.connect(), cluster.node, cluster.paths, woken.set)
    mirror.refresh()
    members = {name: cluster.member(name) for name in "abc"}
    for number, member in enumerate(members.values(), 1):
        member.register(host_node(number), instances_node(instance(number)))
        assert woken.wait(5)

    def follows() -> bool:
        mirror.refresh()
        return mirror.snapshot == cluster.snapshot()

    wait(follows)
    assert sorted(mirror.snapshot.hosts) == ["a", "b", "c"]
    members["b"].publish_instances(instances_node(instance(2), instance(7)))
    wait(lambda: follows() and len(mirror.snapshot.instances["b"].instances) == 2)
    cluster.chains.put("web", chain_node(), "me")
    wait(lambda: follows() and "web" in mirror.snapshot.chains)
    cluster.chains.remove("web", "me")
    wait(lambda: follows() and not mirror.snapshot.chains)
    members["c"]._ensemble.close()
    wait(lambda: follows() and sorted(mirror.snapshot.hosts) == ["a", "b"])
    assert sorted(mirror.snapshot.instances) == ["a", "b"]
    assert sorted(mirror.snapshot.away) == ["c"]
    assert mirror.watches <= 6 + 2 * 2


def test_damaged_nodes_are_named_and_the_others_read(cluster: Cluster) -> None:
    create = cluster.ensemble.client.create
    cluster.chains.put("good", chain_node(), "me")
    bad = {
        f"{cluster.paths.chains}/not-json": b"\xff{",
        f"{cluster.paths.chains}/empty": b"",
        f"{cluster.paths.chains}/newer": b'{"format": %d}' % (FORMAT + 1),
        f"{cluster.paths.chains}/deep": b'{"format":2,"match":' + b"[" * 100_000,
        f"{cluster.paths.hosts}/odd": b'{"format":2,"number":0}',
        f"{cluster.paths.services}/wrong": b'{"format":2,"revision":1,"target":7}',
        f"{cluster.paths.entries}/entry-100-0000000001": b"[]",
        f"{cluster.paths.draining}/x": b"null",
    }
    for path, data in bad.items():
        create(path, data)
    snapshot = cluster.snapshot()
    assert sorted(snapshot.damaged) == sorted(bad)
    assert all(line and "\n" not in line for line in snapshot.damaged.values())
    assert sorted(snapshot.chains) == ["good"]
    assert snapshot.hosts == {}
    cluster.ensemble.client.set(f"{cluster.paths.chains}/newer", b"")
    assert sorted(cluster.snapshot().damaged) == sorted(bad)


def test_cluster_that_was_removed_is_a_line(cluster: Cluster) -> None:
    mirror = cluster.mirror()
    cluster.ensemble.client.delete(cluster.paths.root, recursive=True)
    with pytest.raises(NoClusterError, match="it is gone"):
        mirror.refresh()


# ---- definitions ----


def test_definitions_have_revisions_history_and_rollback(cluster: Cluster) -> None:
    chains = cluster.chains
    chains.put("web", chain_node(services=["firewall"]), "ann")
    chains.put("web", chain_node(services=["firewall", "nat"], revision=2), "bob")
    with pytest.raises(ConflictError, match="is at revision 2, and not 1"):
        chains.put("web", chain_node(revision=2), "eve")
    again = chains.rollback("web", 1, "ann")
    assert (again.revision, again.services) == (3, ["firewall"])
    assert chains.get("web") == again
    assert chains.remove("web", "ann")
    assert not chains.remove("web", "ann")
    assert chains.get("web") is None
    assert chains.rollback("web", 2, "bob").services == ["firewall", "nat"]
    history = chains.history("web")
    assert [(one.revision, one.by, one.what) for one in history] == [
        (1, "ann", "added"),
        (2, "bob", "changed"),
        (3, "ann", "rolled back to 1"),
        (4, "ann", "removed"),
        (5, "bob", "rolled back to 2"),
    ]
    assert history[3].definition is None
    assert history[4].definition == history[1].definition
    with pytest.raises(ConfigError, match="expected a revision that is kept"):
        chains.rollback("web", 9, "ann")
    with pytest.raises(ConfigError, match="expected a chain that is there or was"):
        chains.history("other")


def test_of_changes_at_once_one_is_done(cluster: Cluster) -> None:
    cluster.chains.put("web", chain_node(), "me")
    results: list[str] = []
    barrier = threading.Barrier(4)

    def change(index: int) -> None:
        chains = type(cluster.chains)(cluster.connect(), cluster.paths)
        barrier.wait()
        try:
            chains.put("web", chain_node(number=index + 1, revision=2), f"u{index}")
            results.append("done")
        except ConflictError as error:
            results.append(str(error))

    threads = [threading.Thread(target=change, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result == "done" for result in results) == [False, False, False, True]
    assert [one.revision for one in cluster.chains.history("web")] == [1, 2]


def test_damaged_definition_can_be_rolled_back(cluster: Cluster) -> None:
    cluster.chains.put("web", chain_node(), "me")
    cluster.ensemble.client.set(f"{cluster.paths.chains}/web", b"rubbish")
    with pytest.raises(
        ConfigError, match=r"expected a node that can be read.*onvm cluster chain rollback web"
    ):
        cluster.chains.get("web")
    assert cluster.chains.rollback("web", 1, "me").revision == 2
    assert cluster.snapshot().damaged == {}


def test_old_revisions_are_forgotten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onvm_core.cluster.tree.definitions.KEPT", 3)
    for revision in range(1, 7):
        cluster.chains.put("web", chain_node(revision=revision), "me")
    assert [one.revision for one in cluster.chains.history("web")] == [4, 5, 6]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"near": "z"}, "--in: 'z:client': expected HOST:PORT"),
        ({"far": "z"}, "--out: 'z:server': expected HOST:PORT"),
        ({"services": ["firewal"]}, "--services: 'firewal': .*did you mean 'firewall'"),
    ],
)
def test_chain_that_cannot_be_is_a_line(
    cluster: Cluster, fields: dict[str, object], line: str
) -> None:
    for number, name in enumerate("ab", 1):
        cluster.member(name).register(
            host_node(number, plugins=[plugin("firewall")]),
            instances_node(),
        )
    check_chain(cluster.snapshot(), chain_node())
    with pytest.raises(ConfigError, match=line):
        check_chain(cluster.snapshot(), chain_node(**fields))  # type: ignore[arg-type]


def test_session_timeout_is_what_was_asked_for(cluster: Cluster) -> None:
    member = cluster.member("a")
    member.register(host_node(), instances_node())
    member._ensemble.abandon()
    seconds = wait(lambda: cluster.names("hosts") == [], what="expiry")
    assert seconds > SESSION_S / 2
