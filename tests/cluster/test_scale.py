"""Scale requests: which host is to serve them, and that each is served once whatever dies when."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import msgspec
import pytest
from bench import (
    Cluster,
    expire,
    host_node,
    instance,
    instances_node,
    plugin,
    wait,
)
from hosts import SimulatedHost, are_equal, instances_seen, start_hosts
from kazoo.recipe.queue import LockingQueue

from onvm_core.cli.cluster.scale import check_max
from onvm_core.cluster.errors import ConflictError
from onvm_core.cluster.links.peers import PeerLoad
from onvm_core.cluster.member.cpu_use import TICK_S, CpuUse
from onvm_core.cluster.scaling import autoscaler
from onvm_core.cluster.scaling.autoscaler import ClusterAutoscaler
from onvm_core.cluster.scaling.host_policy import HostPolicy, Locality, MostFree, choose
from onvm_core.cluster.scaling.requests import RequestQueue
from onvm_core.cluster.scaling.scaler import is_leader
from onvm_core.cluster.tree.mirror import Snapshot
from onvm_core.cluster.tree.nodes import (
    ClusterNode,
    DrainNode,
    HostNode,
    InstancesNode,
    KnownNode,
    OutcomeNode,
    RequestNode,
    ServiceNode,
)
from onvm_sdk.errors import ConfigError


def request(
    key: str = "k", *preferred: str, deadline_s: float = 60.0, **fields: object
) -> RequestNode:
    now = time.time()
    given: dict[str, object] = {
        "key": key,
        "service": "firewall",
        "reason": "test",
        "preferred": list(preferred),
        "made": now,
        "deadline": now + deadline_s,
        **fields,
    }
    return RequestNode(**given)  # type: ignore[arg-type]


# ---- the rule ----


def snapshot_of(**hosts: tuple[HostNode, InstancesNode]) -> Snapshot:
    return Snapshot(
        cluster=ClusterNode(id="12345678", name="t", vni=1),
        hosts={name: host for name, (host, _) in hosts.items()},
        instances={name: node for name, (_, node) in hosts.items()},
    )


def free(
    cores: float, *numbers: int, state: str = "active", **host: object
) -> tuple[HostNode, InstancesNode]:
    host.setdefault("plugins", [plugin("firewall")])
    host["state"] = host.pop("host_state", "up")
    node = instances_node(*(instance(number, state=state) for number in numbers), cores=cores)
    return host_node(**host), msgspec.structs.replace(node, free_memory_mib=1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("title", "hosts", "policy", "expected"),
    [
        (
            "own host has free resources",
            {"a": free(1, 1), "b": free(4, 2), "c": free(8)},
            Locality(),
            "a",
        ),
        ("then who runs it", {"a": free(0, 1), "b": free(1, 2), "c": free(8)}, Locality(), "b"),
        (
            "the one of them with most free",
            {"a": free(0, 1), "b": free(1, 2), "c": free(2, 3), "d": free(8)},
            Locality(),
            "c",
        ),
        (
            "then most free",
            {"a": free(0, 1), "b": free(0, 2), "c": free(2), "d": free(3)},
            Locality(),
            "d",
        ),
        (
            "one that only drains there does not count",
            {"a": free(0, 1), "b": free(1, 2, state="draining"), "c": free(2)},
            Locality(),
            "c",
        ),
        ("names decide at last", {"a": free(0), "c": free(2), "b": free(2)}, Locality(), "b"),
        ("most free", {"a": free(1, 1), "b": free(4), "c": free(2)}, MostFree(), "b"),
        ("nobody", {"a": free(0, 1), "b": free(0.5)}, Locality(), None),
    ],
)
def test_rule(
    title: str,
    hosts: dict[str, tuple[HostNode, InstancesNode]],
    policy: HostPolicy,
    expected: str | None,
) -> None:
    found = choose(request("k", "a"), snapshot_of(**hosts), policy)
    assert found.host == expected, (title, found)
    assert found.reason


def others(found: tuple[HostNode, InstancesNode], cores: float) -> tuple[HostNode, InstancesNode]:
    """A host of four cores on which other programs use some."""
    host, node = found
    node = msgspec.structs.replace(node, others_cores=cores, pressure=0.5 if cores else 0.0)
    return msgspec.structs.replace(host, cores=4.0), node


def test_host_whose_cpus_others_use_comes_last() -> None:
    busy, calm = others(free(4, 1), 8.0), others(free(1), 0.0)
    assert choose(request("k", "a"), snapshot_of(a=busy, b=calm), Locality()).host == "b"
    assert choose(request("k", "a"), snapshot_of(a=busy, b=calm), MostFree()).host == "b"
    assert choose(request("k", "a"), snapshot_of(a=busy, b=free(0)), Locality()).host == "a"
    some, other = others(free(4), 3.0), others(free(2), 0.0)
    found = choose(request(), snapshot_of(a=some, b=other), Locality())
    assert (found.host, found.reason) == ("b", "2 cores free")


def test_cpu_use_of_others_is_what_is_busy_without_us(tmp_path: Path) -> None:
    (tmp_path / "proc" / "pressure").mkdir(parents=True)
    cpus = sorted(os.sched_getaffinity(0))

    def write(busy_s: float, **own_s: float) -> None:
        ticks = int(busy_s / len(cpus) / TICK_S)
        lines = [f"cpu{number} {ticks} 0 0 999 0 0 0 0 0 0" for number in [*cpus, 9999]]
        (tmp_path / "proc" / "stat").write_text("\n".join(["cpu 1 1 1 1 1 1 1 1", *lines]))
        for name, used_s in own_s.items():
            pid, parent = name.split("_")[1:]
            folder = tmp_path / "proc" / pid
            folder.mkdir(exist_ok=True)
            fields = f"S {parent} 0 0 0 0 0 0 0 0 0 {int(used_s / TICK_S)} 0 0 0"
            (folder / "stat").write_text(f"{pid} (an (odd) name) {fields}")

    use = CpuUse(tmp_path)
    write(100, p_10_1=5, p_11_10=1, p_12_1=7)
    use.read([10], 50.0)
    write(160, p_10_1=10, p_11_10=6, p_12_1=57)
    (tmp_path / "proc" / "pressure" / "cpu").write_text("some avg10=1.0 avg60=61.2 total=1\n")
    use.read([10], 52.0)  # too soon
    assert use.others_cores == 0
    use.read([10], 60.0)  # 60 s busy, 10 s of them by 10 and its child
    assert (use.others_cores, use.pressure) == (5.0, 0.5)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        (free(4, plugins=[]), "has no NF for firewall"),
        (free(4, plugins=[plugin("firewall", version="2")]), "has another version of firewall (2)"),
        (free(4, host_state="no_manager"), "has no manager"),
        (free(4, plugins=[plugin("firewall", cores=8.0)]), "4 cores are free, 8 needed"),
    ],
)
def test_hosts_that_cannot_are_left_out(host: tuple[HostNode, InstancesNode], why: str) -> None:
    snapshot = snapshot_of(a=host, b=free(0, 1), c=free(0, 2), d=free(0, 3))
    found = choose(request("k", "a"), snapshot, Locality())
    assert found.host is None
    assert f"a: {why}" in found.reason


def test_hosts_that_drain_or_refused_are_left_out() -> None:
    snapshot = snapshot_of(a=free(4), b=free(3), c=free(2))
    draining = msgspec.structs.replace(snapshot, draining={"a": DrainNode(since=0)})
    assert choose(request(), draining, Locality()).host == "b"
    refused = request(refused={"a": "no", "b": "no"})
    assert choose(refused, snapshot, Locality()).host == "c"


def test_lowest_election_number_leads() -> None:
    snapshot = snapshot_of(
        a=free(1, election_number=9), b=free(1, election_number=3), c=free(1, election_number=4)
    )
    assert [name for name in "abc" if is_leader(snapshot, name)] == ["b"]


# ---- the queue ----


def test_queue_has_the_nodes_of_a_locking_queue(cluster: Cluster) -> None:
    queue = RequestQueue(cluster.ensemble, cluster.paths)
    assert queue.put(request("one"))
    assert not queue.put(request("one"))  # idempotent
    assert queue.put(request("two"))
    other = LockingQueue(cluster.connect().client, cluster.paths.requests)
    assert len(other) == 2
    first = other.get(5)
    assert msgspec.json.decode(first)["key"] == "one"
    entry = queue.entry_of("one")
    assert entry is not None
    assert queue.take(entry, lambda _: None) is None  # taken is taken, by whomever
    other.release()
    assert queue.take(entry, lambda _: None) is not None


def test_former_leader_and_one_cut_off_can_do_nothing(cluster: Cluster) -> None:
    member = cluster.member("a")
    member.register(host_node(), instances_node())
    queue = RequestQueue(member._ensemble, cluster.paths)
    queue.put(request("one"), member.fence)
    entry = queue.entry_of("one")
    assert entry is not None
    taken = queue.take(entry, member.fence)
    assert taken is not None
    cluster.ensemble.client.delete(member.election_path)  # as the end of its session does
    with pytest.raises(ConflictError):
        queue.put(request("two"), member.fence)
    with pytest.raises(ConflictError):
        queue.done(taken, "a", "firewall-1", "", member.fence)
    with pytest.raises(ConflictError):
        queue.refuse(taken, "a", "no", member.fence)
    assert list(queue.waiting()) == [entry]
    assert queue.outcome("two") is None


# ---- agents ----


def ask(cluster: Cluster, *requests: RequestNode) -> RequestQueue:
    queue = RequestQueue(cluster.ensemble, cluster.paths)
    for one in requests:
        queue.put(one)
    return queue


def ended(queue: RequestQueue, key: str, timeout_s: float = 30) -> OutcomeNode:
    wait(
        lambda: (outcome := queue.outcome(key)) and outcome.state != "waiting",
        timeout_s,
        f"end of {key}",
    )
    outcome = queue.outcome(key)
    assert outcome is not None
    return outcome


def test_overflow_goes_to_the_own_host_then_to_another(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2, cores=2.0)
    a.manager.set_nfs("firewall-1")
    wait(lambda: are_equal(hosts) and len(a.manager.view.instances) == 1)  # type: ignore[union-attr]
    begin = time.monotonic()
    queue = ask(cluster, request("first", "a"))
    first = ended(queue, "first")
    seconds = time.monotonic() - begin
    assert (first.host, first.instance) == ("a", "firewall-2")
    second = ended(ask(cluster, request("second", "a")), "second")
    assert (second.host, second.instance) == ("b", "firewall-1")
    wait(lambda: are_equal(hosts) and len(b.manager.view.instances) == 3)  # type: ignore[union-attr]
    print(f"seconds from a request to a serving instance: {seconds:.3f}")


def test_request_that_nobody_can_serve_waits_and_expires(cluster: Cluster) -> None:
    hosts = start_hosts(cluster, 2, cores=1.0)
    for host in hosts:
        host.manager.set_nfs("nat-1")
    wait(lambda: are_equal(hosts) and len(hosts[0].manager.view.instances) == 2)  # type: ignore[union-attr]
    queue = ask(cluster, request("waits"), request("expires", deadline_s=0.5))
    expired = ended(queue, "expires")
    assert expired.state == "expired"
    assert expired.why == "a: 0 cores are free, 1 needed; b: 0 cores are free, 1 needed"
    assert [one.key for one in queue.waiting().values()] == ["waits"]
    hosts[1].manager.set_nfs()
    assert ended(queue, "waits").host == "b"


def test_host_that_cannot_start_it_refuses_and_another_does(cluster: Cluster) -> None:
    a, b = start_hosts(cluster, 2)
    wait(lambda: are_equal([a, b]))
    a.manager.refuses = "no place for it"
    outcome = ended(ask(cluster, request("k", "a")), "k")
    assert (outcome.host, outcome.state) == ("b", "done")
    assert a.manager.nfs() == []
    assert a.live._state.state.started == {}


def test_leader_is_followed_by_another(cluster: Cluster) -> None:
    a, *_ = hosts = start_hosts(cluster, 3, cores=1.0)
    for host in hosts:
        host.manager.set_nfs("nat-1")
    wait(lambda: are_equal(hosts) and len(a.manager.view.instances) == 3)  # type: ignore[union-attr]
    snapshot = cluster.snapshot()
    (leader,) = (host for host in hosts if is_leader(snapshot, host.name))
    session = leader.session
    leader.stop_agent()
    queue = ask(cluster, request("expires", deadline_s=0.5))
    expire(leader.hosts, session)
    assert ended(queue, "expires").state == "expired"  # by the next leader


def test_policy_scales_a_service_over_the_cluster(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2, cores=2.0)
    node = ServiceNode(
        revision=1, min=1, max=3, out_after_s=0.0, in_after_s=1.0, cooldown_s=0.2, request_s=30
    )
    cluster.services.put("firewall", node, "me")

    def count() -> int:
        return sum(name.startswith("firewall") for host in hosts for name in host.manager.nfs())

    wait(lambda: are_equal(hosts) and count() == 1, what="the first instance")
    for host in hosts:
        host.manager.utilisation = 1.0
    wait(lambda: count() == 3, what="scaling out")
    assert len(a.manager.nfs()) in (1, 2)
    for host in hosts:
        host.manager.utilisation = 0.05
    wait(lambda: count() == 1, what="scaling in")
    for host in hosts:
        host.manager.utilisation = 0.5  # within the band
    queue = RequestQueue(cluster.ensemble, cluster.paths)
    # The instance ends first, then its request.
    wait(lambda: not queue.waiting(), what="the last outcome")
    outcomes = list(queue.outcomes().values())
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert sorted(outcome.why == "drains" for outcome in outcomes) == [False] * 3 + [True] * 2
    assert (a.error, b.error) == (None, None)


def test_request_to_end_an_instance_that_is_gone_is_done(cluster: Cluster) -> None:
    """As after an agent that died between the end of the instance and that of the request."""
    (a,) = start_hosts(cluster, 1)
    a.manager.set_nfs("firewall-1")
    wait(lambda: are_equal([a]) and instances_seen(a) == {"a/firewall-1": "active"})
    queue = ask(cluster, request("gone", "a", stop="firewall-7"))
    assert (ended(queue, "gone").why, a.manager.nfs()) == ("it is gone", ["firewall-1"])
    queue = ask(cluster, request("ends", "a", stop="firewall-1"))
    assert (ended(queue, "ends").why, a.manager.nfs()) == ("drains", [])
    seen = cluster.snapshot().instances["a"].instances
    assert seen == [], "its end is known before the request is gone"


def test_instance_that_starts_slowly_holds_nothing_up(cluster: Cluster) -> None:
    """The only host leads, too: it goes on to serve, to expire, and to ask."""
    (a,) = start_hosts(cluster, 1, cores=4.0)
    wait(lambda: are_equal([a]))
    a.manager.slow = {"nat": 60.0}
    queue = ask(cluster, request("slow", service="nat"), request("quick"))
    assert ended(queue, "quick").instance == "firewall-1"
    node = ServiceNode(revision=1, min=1, max=1, request_s=30)
    cluster.services.put("lb", node, "me")
    wait(lambda: "lb-1" in a.manager.nfs(), what="the instance that a policy wants")
    assert ended(ask(cluster, request("big", deadline_s=0.2, service="dns")), "big").state == (
        "expired"
    )
    outcome = queue.outcome("slow")
    assert outcome is not None
    assert outcome.state == "waiting"
    a.manager.set_nfs("nat-1", "firewall-1", "lb-1")
    assert a.manager.nfs() == ["firewall-1", "lb-1", "nat-1"]


def test_several_instances_start_at_once_where_they_fit(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2, cores=2.0, start_s=0.5)
    wait(lambda: are_equal(hosts))
    keys = ["k1", "k2", "k3", "k4"]
    queue = ask(cluster, *(request(key, "a") for key in keys))
    assert {ended(queue, key).state for key in keys} == {"done"}
    assert [len(host.manager.nfs()) for host in (a, b)] == [2, 2]
    assert all(not one.why.startswith("expected") for one in queue.outcomes().values())


@pytest.mark.parametrize("skew_s", [-60.0, 60.0])
def test_requests_of_a_host_with_another_clock_are_served(cluster: Cluster, skew_s: float) -> None:
    """The moment of its request and its end are far in the past, or in the future."""
    (a,) = start_hosts(cluster, 1, cores=1.0)
    wait(lambda: are_equal([a]))
    then = time.time() + skew_s
    clock = {"made": then, "deadline": then + 30}
    assert ended(ask(cluster, request("k", within_s=30.0, **clock)), "k").state == "done"
    clock = {"made": then, "deadline": then + 0.3}
    queue = ask(cluster, request("big", within_s=0.3, **clock))
    assert ended(queue, "big", 10).state == "expired"


def test_service_has_no_more_instances_than_it_may(cluster: Cluster) -> None:
    a, b = hosts = start_hosts(cluster, 2)
    a.manager.set_nfs("firewall-1")
    cluster.services.put("firewall", ServiceNode(revision=1, min=0, max=2), "me")
    wait(lambda: are_equal(hosts) and len(b.manager.view.instances) == 1)  # type: ignore[union-attr]
    queue = ask(cluster, request("one", "a"), request("two", "b", deadline_s=1.0))
    assert {ended(queue, key).state for key in ("one", "two")} == {"done", "expired"}
    why = next(one.why for one in queue.outcomes().values() if one.state == "expired")
    assert why == "firewall: has its --max of 2 instances"
    assert len(a.manager.nfs() + b.manager.nfs()) == 2
    with pytest.raises(ConfigError, match=r"scale out: 'firewall': .* maximum of 2 \(2 serve\)"):
        check_max(cluster.snapshot(), "firewall")


# ---- loads that are not known ----


class Asked(RequestQueue):
    """A queue that only notes what is asked for."""

    def __init__(self) -> None:
        self.requests: list[RequestNode] = []

    def put(self, request: RequestNode, fence: object = None) -> bool:
        del fence
        self.requests.append(request)
        return True


BUSY = ServiceNode(revision=1, min=1, max=9, out_after_s=0.0, in_after_s=0.1, cooldown_s=0.1)


def autoscaled(
    snapshot: Snapshot,
    loads: dict[int, PeerLoad],
    monkeypatch: pytest.MonkeyPatch,
    living: str = "",
    seconds: float = 20.0,
) -> list[RequestNode]:
    """What a leader asks for within some seconds."""
    queue, now = Asked(), 100.0
    scaler = ClusterAutoscaler(queue, lambda _: None, lambda: loads, lambda: living)
    monkeypatch.setattr(autoscaler.time, "monotonic", lambda: now)
    snapshot = msgspec.structs.replace(snapshot, services={"firewall": BUSY})
    while now < 100 + seconds and not queue.requests:
        scaler.turn(snapshot, 1)
        now += 0.1
    return queue.requests


def load(number: int, utilisation: float) -> PeerLoad:
    return PeerLoad(number, 0, utilisation, 1000, utilisation)


def test_load_that_was_never_heard_does_not_stop_a_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = snapshot_of(a=free(4, 1), b=free(4, 2))
    busy = autoscaled(snapshot, {1: load(1, 1.0)}, monkeypatch)
    assert busy[0].stop == ""
    assert "the load of 1 of 2 instances is not known" in caplog.text
    # Not at once: who has just begun has heard of few.
    assert autoscaled(snapshot, {1: load(1, 0.1)}, monkeypatch, seconds=4.0) == []


def test_instances_of_a_living_host_without_a_session_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = snapshot_of(a=free(4, 1))
    host, node = free(4, 2)
    away = msgspec.structs.replace(snapshot, away={"b": KnownNode(host=host, instances=node)})
    idle = {1: load(1, 0.5), 2: load(2, 0.5)}
    assert autoscaled(away, idle, monkeypatch, living="b") == []
    full = {1: load(1, 1.0), 2: load(2, 1.0)}
    assert autoscaled(away, full, monkeypatch, living="b")[0].reason


def test_each_of_100_requests_is_acted_on_once_while_agents_die(cluster: Cluster) -> None:
    hosts = start_hosts(cluster, 3, cores=1000.0, start_s=0.02, session_s=2.0)
    wait(lambda: are_equal(hosts))
    chance = random.Random(7)
    queue = RequestQueue(cluster.ensemble, cluster.paths)
    keys = [f"r{index}" for index in range(100)]
    kills = 0
    for index, key in enumerate(keys):
        queue.put(request(key, "abc"[index % 3], deadline_s=300))
        if index % 8 == 4:
            victim = chance.choice(hosts)
            kill(victim)
            kills += 1
            time.sleep(chance.random() * 0.3)
            victim.start_agent()
    for key in keys:
        assert ended(queue, key, 120).state == "done"
    for host in hosts:
        wait(lambda host=host: host.live._state.state.started == {}, what="the end of notes")
    assert kills >= 12
    check_exactly_once(queue, keys, hosts)


def test_request_of_a_dead_agent_is_served_by_another_and_no_instance_is_left(
    cluster: Cluster,
) -> None:
    a, _ = hosts = start_hosts(cluster, 2, start_s=0.5)
    wait(lambda: are_equal(hosts))
    queue = ask(cluster, request("k", "a"))
    wait(lambda: a.live._state.state.started == {"k": "firewall-1"} and a.manager.nfs())
    session = a.session
    kill(a)  # in the middle
    expire(a.hosts, session)
    outcome = ended(queue, "k")
    assert (outcome.host, outcome.instance) == ("b", "firewall-1")
    assert a.manager.nfs() == ["firewall-1"]  # no agent there can stop it yet
    a.start_agent()
    wait(lambda: a.manager.nfs() == [], what="the end of what a had started")
    check_exactly_once(queue, ["k"], hosts)


def kill(host: SimulatedHost) -> None:
    """Let an agent vanish: nothing is said to ZooKeeper, whatever it was about to do is not done.

    Threads cannot be killed; cutting off all that they do is as good. test_faults kills processes.
    """
    agent = host.live
    agent.scaler._is_stopping.set()
    agent.session_thread._ensemble.abandon()
    host.stop_agent()


def check_exactly_once(queue: RequestQueue, keys: list[str], hosts: list[SimulatedHost]) -> None:
    """Each request has one instance, and there are no others."""
    outcomes = queue.outcomes()
    served = sorted(f"{outcomes[key].host}/{outcomes[key].instance}" for key in keys)
    there = sorted(f"{host.name}/{name}" for host in hosts for name in host.manager.nfs())
    assert served == there
    assert len(set(served)) == len(keys)
    assert queue.waiting() == {}
