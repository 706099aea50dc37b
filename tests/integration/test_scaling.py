"""Scaling, faults and exporters of a running manager.

The NF "slow" sleeps for each packet, so that it is overloaded by few packets and no CPU is used:
what is tested here does not depend on the speed of the machine, nor is anything timed.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from onvm_core.bench.scenario import Scenario, run_scenario
from onvm_core.bench.suites import SPREADS
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client

if TYPE_CHECKING:
    from up_host import Host


PORTS = """
[dataplane]
flows = 65536
buffers = 2048
ring_length = 256
flow_idle_s = 0.5
[ports.wan]
uri = "null:"
[ports.calm]
uri = "null:?flows=40&rate=200"
[ports.brief]
uri = "null:?flows=30000&rate=200"
[ports.busy]
uri = "null:?flows=30000&rate=9000"
[nfs.slow]
[chains.main]
in = "calm"
out = "wan"
services = ["slow"]
"""
SCALE = """
[scale.slow]
max = 3
in_after_s = 0.5
drain_s = 60
"""


def change_load(host: Host, port: str) -> None:
    host.do("chain", "add", "main", "--in", port, "--out", "wan", "--services", "slow")


def ask(host: Host, request: m.Request) -> Any:
    """What `--json` would give, without starting a program for each look."""
    with Client(host.runtime / "main") as client:
        return msgspec.to_builtins(client.ask(request, object))


def status(host: Host) -> dict[str, Any]:
    return ask(host, m.StatusRequest())


def service(host: Host) -> dict[str, Any]:
    (one,) = ask(host, m.ScaleStatusRequest())["services"]
    return one


def launched(host: Host) -> dict[str, Any]:
    return {nf["instances"][0]: nf for nf in ask(host, m.InstancesRequest())["launched"]}


def flows_of(host: Host) -> dict[tuple[Any, ...], list[str]]:
    """Instances of each flow of the calm port."""
    return {
        tuple(flow[key] for key in ("src", "src_port", "dst", "dst_port", "is_reverse")): flow[
            "instances"
        ]
        for flow in ask(host, m.FlowListRequest(limit=1000))["flows"]
        if flow["port"] == "calm"
    }


def check_sums(report: dict[str, Any]) -> None:
    assert report["rx"] + report["originated"] == report["tx"] + sum(report["drops"].values())
    assert report["buffers"]["free"] == report["buffers"]["total"]


def test_load_brings_instances_and_quiet_takes_them_away(host: Host) -> None:
    host.configure(PORTS + SCALE)
    host.do("up", "-d")
    assert service(host)["serving"] == 1
    change_load(host, "busy")
    host.wait(lambda: service(host)["serving"] == 3, 20)
    host.wait(lambda: all(nf["rx"] > 1000 for nf in status(host)["report"]["nfs"]))
    loads = {nf["instance"]: nf["load"] for nf in status(host)["report"]["nfs"]}
    assert set(loads) == {"slow-1", "slow-2", "slow-3"}
    assert all(load["utilisation"] > 0.2 for load in loads.values())
    change_load(host, "brief")
    host.wait(lambda: service(host)["serving"] == 1 and service(host)["draining"] == 0, 30)
    decisions = host.json("scale", "status")["decisions"]
    assert [one["by"] for one in decisions] == ["policy"] * len(decisions)
    first, last = decisions[0], decisions[-1]
    assert first["wanted"] > first["before"] == 1
    assert first["figures"]["demand"] > 0.7
    assert first["done_ms"] > 0
    assert (last["before"], last["wanted"]) == (2, 1)
    text = host.do("scale", "status")
    assert "draining slow-2" in text
    assert "target 70%" in text
    assert "util %" in host.do("status")
    report = host.json("down")["report"]
    check_sums(report)
    assert "nf_died" not in report["drops"]


def test_running_flows_stay_where_they_are_on_scale_out(host: Host) -> None:
    # With the patience that flows have, nothing is forgotten meanwhile.
    host.configure(PORTS.replace("flow_idle_s = 0.5\n", ""))
    host.do("up", "-d")
    host.wait(lambda: len(flows_of(host)) >= 40)
    before = flows_of(host)
    assert host.do("scale", "slow", "3").startswith("slow: 3 serve (started slow-2, started slow-3")
    seen = status(host)["report"]["tx"]
    host.wait(lambda: status(host)["report"]["tx"] > seen + 100)
    after = flows_of(host)
    assert {flow: after[flow] for flow in before} == before
    # Scale in: who has no flow ends, who has some keeps them.
    assert "draining slow-3" in host.do("scale", "slow", "2")
    host.wait(lambda: "slow-3" not in launched(host))
    after = flows_of(host)
    assert {flow: after[flow] for flow in before} == before
    for arguments, line in (
        (("scale", "slow", "0"), "error: N: '0': expected a number from 1 to 64, or auto"),
        (("scale", "slow", "auto"), "error: scale: 'slow': expected a service with a policy"),
        (("scale", "nobody", "2"), "error: scale: 'nobody': expected a service with an instance"),
    ):
        done = host.onvm(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1
    report = host.json("down")["report"]
    check_sums(report)
    assert set(report["drops"]) <= {"shed", "no_chain"}


@pytest.mark.parametrize(("name", "waits", "slowed"), SPREADS)
def test_flows_bring_unequal_instances_to_equal_utilisation(
    name: str, waits: list[int], slowed: int
) -> None:
    scenario = Scenario(kind="elastic_spread", waits_us=waits, slowed_us=slowed, seconds=1.0)
    for _ in range(3):  # other programs on the machine slow one of them, or all
        figures = run_scenario(scenario)
        if figures["spread"] < 10:
            break
    assert figures["spread"] < 10, "points of utilisation between them"
    assert figures["ratio"] > (5 if name == "10" else 1.5)


def test_spare_takes_over_from_one_that_hangs_and_serves_under_load(host: Host) -> None:
    host.configure(PORTS + SCALE + "standby = 1\n")
    host.do("up", "-d")
    host.wait(lambda: service(host)["standby"] == 1)
    pids = host.nf_pids()
    assert set(pids) == {"slow-1", "slow-2"}
    host.wait(lambda: status(host)["report"]["tx"] > 10)
    os.kill(pids["slow-1"], signal.SIGSTOP)
    host.wait(lambda: launched(host)["slow-1"]["restarts"] == 1, 15)
    assert launched(host)["slow-2"]["pid"] == pids["slow-2"], "the standby has taken over"
    assert launched(host)["slow-2"]["state"] == "active"
    assert "no progress for" in launched(host)["slow-1"]["reason"]
    assert "state T" in launched(host)["slow-1"]["reason"]
    seen = status(host)["report"]["tx"]
    host.wait(lambda: status(host)["report"]["tx"] > seen + 10)
    change_load(host, "busy")
    host.wait(lambda: service(host)["serving"] == 3, 20)
    report = host.json("down")["report"]
    check_sums(report)
    assert set(report["drops"]) <= {"shed", "nf_died", "no_instance", "no_chain"}


def test_adopted_spare_still_stands_by(host: Host) -> None:
    host.configure(PORTS + SCALE + "standby = 1\n")
    host.do("up", "-d")
    host.wait(lambda: service(host)["standby"] == 1)
    pids = host.nf_pids()
    os.kill(host.manager_pid(), signal.SIGKILL)
    host.do("up", "-d")
    host.wait(lambda: service(host)["standby"] == 1)
    assert host.nf_pids() == pids
    assert service(host)["serving"] == 1
    host.do("down")


def test_chain_goes_on_without_a_service_that_crashes_again_and_again(host: Host) -> None:
    text = PORTS.replace('["slow"]', '["hop", "slow"]\non_failure = "bypass"')
    host.configure(
        text + "[nfs.hop]\n[exporters.lines]\nkind = 'jsonl'\ninterval_s = 0.2\n"
        "options = { file = 'out.jsonl' }\n[exporters.prometheus]\ninterval_s = 0.2\n"
        "options = { file = 'onvm.prom' }\n"
    )
    host.do("up", "-d")
    crashes = 0

    def state() -> dict[str, Any]:
        return launched(host)["slow-1"]

    while (now := state())["state"] != "crash-loop":
        assert crashes < 8
        host.wait(lambda: state()["state"] in ("active", "crash-loop"), 15)
        if now["state"] == "active":
            ask(host, m.AskRequest(name="slow-1", message="die"))
            crashes += 1
            host.wait(lambda was=now["pid"]: state()["pid"] != was, 15)
    assert state()["restarts"] == 5
    assert "asked to die" in "\n".join(state()["log_tail"])
    assert host.json("chain", "list")[0]["state"] == "bypassing slow"
    before = status(host)["report"]
    host.wait(lambda: status(host)["report"]["tx"] > before["tx"] + 50)
    after = status(host)["report"]
    assert after["drops"].get("no_instance", 0) == before["drops"].get("no_instance", 0)
    # The exporters have seen it all.
    host.wait(lambda: (host.folder / "out.jsonl").exists() and (host.folder / "onvm.prom").exists())
    assert "onvm_nf_received_packets_total{" in (host.folder / "onvm.prom").read_text()
    host.do("nf", "run", "slow")
    assert host.json("chain", "list")[0]["state"] == "active"
    report = host.json("down")["report"]
    check_sums(report)
    lines = [json.loads(line) for line in (host.folder / "out.jsonl").read_text().splitlines()]
    assert lines[-1]["manager"] == "main"
    assert lines[0]["report"]["rx"] <= lines[-1]["report"]["rx"] <= report["rx"]
    assert not (host.folder / "onvm.prom").exists()


def test_mistake_in_a_section_starts_nothing(host: Host) -> None:
    host.configure(PORTS + "[scale.slow]\nmin = 5\nmax = 2\n")
    done = host.onvm("up")
    assert done.returncode == 2
    assert done.stderr == "error: onvm.toml: scale.slow.min: 5: expected at most max (2)\n"
    assert not (host.runtime / "main" / "nfs.json").exists()
