"""Faults of ZooKeeper and of agents, with a real ensemble of three and agents as processes.

After each of them all managers have equal views, and there is no instance without a request.
"""

from __future__ import annotations

import itertools
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Cluster, chain_node, wait
from processes import SERVICES, ProcessHost, active, are_equal, start_processes, wait_equal
from test_scale import ask, ended, request

from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.tree.ensemble import Ensemble, Session

pytestmark = pytest.mark.skipif(
    "firewall" not in SERVICES, reason="onvm-nf-firewall is not installed"
)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def three(credentials: Credentials) -> Iterator[LocalEnsemble]:
    with (
        tempfile.TemporaryDirectory(prefix="onvm-zk3-") as folder,
        LocalEnsemble(Path(folder), 3, credentials=credentials) as made,
    ):
        yield made


@pytest.fixture
def cluster(
    three: LocalEnsemble,
    credentials: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="onvm-c-") as runtime:
        monkeypatch.setenv("ONVM_RUNTIME_DIR", runtime)
        with Cluster(three.hosts, credentials, f"faults-{next(_numbers)}", tmp_path) as made:
            yield made
    for index, process in enumerate(three.processes):  # whatever a test has left
        assert process is not None
        if process.poll() is not None:
            three.start_member(index)
        else:
            three.thaw(index)
    for index in range(3):
        three.wait_member(index)


@pytest.fixture
def hosts(cluster: Cluster, request: pytest.FixtureRequest) -> list[ProcessHost]:
    """Three; a parameter is the length of their sessions in seconds."""
    made = start_processes(cluster, 3, session_s=getattr(request, "param", 2.0))
    for host in made:
        host.manager.set_nfs("firewall-1")
    wait_equal(made, 3)
    return made


def changes_reach_all(cluster: Cluster, hosts: list[ProcessHost]) -> float:
    """Add a chain, by a session that is sure to work; the seconds until all have it."""
    begin = time.monotonic()
    name = f"chain-{time.monotonic_ns()}"
    while True:
        try:
            cluster.chains.put(name, chain_node(number=len(cluster.names("chains")) + 1), "me")
            break
        except Exception:  # noqa: BLE001 -- the session of the test has to survive the fault, too
            assert time.monotonic() - begin < 60
            cluster.ensemble.revive()
            time.sleep(0.1)
    wait(
        lambda: (
            are_equal(hosts)
            and all(name in {chain.name for chain in host.manager.view.chains} for host in hosts)
        ),  # type: ignore[union-attr]
        60,
        "a change",
    )
    return time.monotonic() - begin


@pytest.mark.parametrize("role", ["follower", "leader"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_server_of_three_may_go(
    cluster: Cluster, three: LocalEnsemble, hosts: list[ProcessHost], role: str, fault: str
) -> None:
    wait(lambda: three.leader() is not None)
    index = next(index for index in range(3) if three.role(index) == role)
    numbers = [one.number for one in hosts[0].manager.view.instances]  # type: ignore[union-attr]
    (three.kill if fault == "kill" else three.freeze)(index)
    seconds = changes_reach_all(cluster, hosts)
    wait_equal(hosts, 3)
    assert [one.number for one in hosts[0].manager.view.instances] == numbers  # type: ignore[union-attr]
    print(f"{fault} of the {role}: a change reached all after {seconds:.2f} s")
    if fault == "kill":
        three.start_member(index)
        three.wait_member(index)
    else:
        three.thaw(index)
    changes_reach_all(cluster, hosts)
    wait_equal(hosts, 3)


def test_without_quorum_everything_stays_and_nothing_is_decided(
    cluster: Cluster, three: LocalEnsemble, hosts: list[ProcessHost]
) -> None:
    before = [host.digest for host in hosts]
    counts = [len(host.manager.applied) for host in hosts]
    three.kill(0)
    three.kill(1)
    wait(lambda: three.role(2) is None, what="the loss of quorum")
    end = time.monotonic() + 3 * hosts[0].session_s
    hosts[0].manager.set_nfs("firewall-1", "firewall-2")
    while time.monotonic() < end:
        assert [host.digest for host in hosts] == before
        assert [host.manager.nfs() for host in hosts[1:]] == [["firewall-1"]] * 2
        time.sleep(0.05)
    three.start_member(0)
    three.start_member(1)
    wait_equal(hosts, 4)
    # from the old view to the new one, and nowhere else
    assert all(
        len(host.manager.applied) - count <= 4 for host, count in zip(hosts, counts, strict=True)
    )
    assert changes_reach_all(cluster, hosts) < 60


# Longer than an agent takes to start on a busy machine: later ones are noticed.
@pytest.mark.parametrize("hosts", [8.0], indirect=True)
def test_agent_that_is_killed_is_replaced_and_nobody_notices(
    cluster: Cluster, hosts: list[ProcessHost]
) -> None:
    a, b, _ = hosts
    count = len(b.manager.applied)
    a.kill()
    a.start_agent()
    election_number = cluster.snapshot().hosts["a"].election_number
    wait(
        lambda: cluster.snapshot().hosts["a"].election_number > election_number,
        what="the new agent",
    )
    time.sleep(a.session_s + 0.5)
    wait_equal(hosts, 3)
    assert len(b.manager.applied) == count
    changes_reach_all(cluster, hosts)


def test_agent_that_was_frozen_for_longer_than_its_session_comes_back(
    cluster: Cluster, hosts: list[ProcessHost]
) -> None:
    a, b, c = hosts
    a.send(signal.SIGSTOP)
    wait(lambda: "a" not in cluster.snapshot().hosts, what="the end of its session")
    wait(lambda: active(b) == 2 and b.digest == c.digest, what="its instances getting nothing new")
    a.send(signal.SIGCONT)
    wait_equal(hosts, 3)
    changes_reach_all(cluster, hosts)


def test_frozen_taker_of_a_request_is_fenced_when_it_wakes(cluster: Cluster) -> None:
    hosts = a, b = start_processes(cluster, 2, start_s=1.0)
    queue = ask(cluster, request("k", "a"))
    wait(lambda: a.manager.nfs() == ["firewall-1"], what="its start at a")
    a.send(signal.SIGSTOP)  # it has started the instance, and not said so
    outcome = ended(queue, "k")
    assert (outcome.host, outcome.instance) == ("b", "firewall-1")
    a.send(signal.SIGCONT)
    wait(lambda: a.manager.nfs() == [], what="the end of what a had started")
    wait_equal(list(hosts), 1)
    assert b.manager.nfs() == ["firewall-1"]


def test_each_of_100_requests_is_acted_on_once_while_processes_are_killed(
    cluster: Cluster,
) -> None:
    hosts = start_processes(cluster, 3, cores=1000.0, start_s=0.02, session_s=2.0)
    chance = random.Random(3)
    queue = RequestQueue(cluster.ensemble, cluster.paths)
    keys = [f"r{index}" for index in range(100)]
    for index, key in enumerate(keys):
        queue.put(request(key, "abc"[index % 3], deadline_s=300))
        time.sleep(0.02)
        if index % 12 == 5:
            victim = chance.choice(hosts)
            victim.kill()
            victim.start_agent()
    for key in keys:
        assert ended(queue, key, 120).state == "done"
    wait_equal(hosts, 100)
    outcomes = queue.outcomes()
    served = sorted(f"{outcomes[key].host}/{outcomes[key].instance}" for key in keys)
    wait(
        lambda: (
            served == sorted(f"{host.name}/{name}" for host in hosts for name in host.manager.nfs())
        ),
        what="one instance for each request",
    )


def test_refusal_by_a_dying_server_does_not_last(cluster: Cluster, three: LocalEnsemble) -> None:
    """kazoo gives up for good when a connection ends in the middle of SASL."""
    states: list[Session] = []
    ensemble = Ensemble(three.hosts, cluster.credentials, session_s=2.0, on_change=states.append)
    ensemble.connect()
    cluster.stack.callback(ensemble.close)
    right = ensemble.client._connection.sasl_options["password"]
    ensemble.client._connection.sasl_options["password"] = "wrong-for-a-moment"
    ensemble.client._connection._socket.shutdown(2)
    wait(lambda: Session.LOST in states, what="the refusal")
    ensemble.client._connection.sasl_options["password"] = right

    def is_back() -> bool:
        ensemble.revive()
        return ensemble.is_connected

    wait(is_back, what="another try")
    session_id = ensemble.session_id
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        ensemble.revive()
        assert ensemble.session_id == session_id
        time.sleep(0.01)
    assert ensemble.client.exists("/") is not None
