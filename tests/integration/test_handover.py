"""Scale-in with state: it goes to the sibling that takes the flows, and connections live on.

Traffic is the generator's: its client knows each connection and says which failed, and a NAT, a
load balancer and a firewall that drops by default lose packets whose state is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from buffers import are_back
from up_host import install_nf

from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client

if TYPE_CHECKING:
    from up_host import Host


CONFIG = """
[dataplane]
flows = 65536
flow_idle_s = 30
[ports.clients]
uri = "gen:?flows=300&rate=4000&seed=7&timeout_ms=20000&ipv6=0"
[ports.servers]
uri = "gen:"
[nfs.firewall.config]
default = "drop"
rules = [{ action = "accept", src = "10.0.0.0/8" }]
[nfs.nat]
affinity = "flow" # the generator has a single client
[nfs.nat.config]
external = "192.0.2.1"
blocks = 8
[chains.main]
in = "clients"
out = "servers"
services = ["firewall", "nat", "lb"]
"""
SCALE = """
[scale.{service}]
max = 4
target = 1.0
out_after_s = 3600
in_after_s = 86400
drain_s = 600
handover_ms = 20000
"""
SERVICES = ("firewall", "nat", "lb")


def ask(host: Host, request: m.Request) -> Any:
    with Client(host.runtime / "main") as client:
        return msgspec.to_builtins(client.ask(request, object))


def report(host: Host) -> dict[str, Any]:
    return ask(host, m.StatusRequest())["report"]


def launched(host: Host) -> dict[str, Any]:
    return {nf["instances"][0]: nf for nf in ask(host, m.InstancesRequest())["launched"]}


def hops(host: Host) -> dict[tuple[Any, ...], tuple[str, ...]]:
    """Instances of each flow, by its key."""
    flows = ask(host, m.FlowListRequest(limit=m.FLOWS_MAX))["flows"]
    return {
        tuple(
            flow[key] for key in ("src", "src_port", "dst", "dst_port", "protocol", "port")
        ): tuple(flow["instances"])
        for flow in flows
    }


def received(host: Host, instance: str) -> int:
    return sum(nf["rx"] for nf in report(host)["nfs"] if nf["instance"] == instance)


def assert_nothing_is_lost(final: dict[str, Any]) -> None:
    (generator,) = final["generators"]
    assert generator["completed"] > 100
    assert generator["failed"] == 0
    assert generator["lost"] == 0
    assert generator["unexpected"] == 0
    assert final["drops"] == {}
    assert final["rx"] + final["originated"] == final["tx"]
    assert are_back(final), final["buffers"]


def test_running_connections_survive_scale_in_of_each_service(host: Host) -> None:
    host.configure(CONFIG + "".join(SCALE.format(service=name) for name in SERVICES))
    host.do("up", "-d")
    for service in SERVICES:
        assert "2 serve" in host.do("scale", service, "2")
        second = f"{service}-2"
        host.wait(lambda name=second: received(host, name) > 300)
        carried = {key for key, path in hops(host).items() if second in path}
        assert carried
        assert f"draining {second}" in host.do("scale", service, "1")
        host.wait(lambda name=second: name not in launched(host))
        successor = f"{service}-1"
        after = hops(host)
        stayed = carried & after.keys()
        assert stayed, "flows that went through the one that has gone live on"
        assert all(successor in after[key] for key in stayed)
        seen = received(host, successor)
        host.wait(lambda name=successor, n=seen: received(host, name) > n + 500)
    # The NAT's second block is still in use by what was taken over: no other endpoint gets it.
    assert "started nat-3" in host.do("scale", "nat", "2")
    host.do("scale", "nat", "1")
    host.wait(lambda: not {"nat-2", "nat-3"} & launched(host).keys())
    assert_nothing_is_lost(host.json("down")["report"])


KEEPER = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        return None
"""
STUBBORN = (
    KEEPER
    + """
    def snapshot(self):
        return b"mine"

    def restore(self, snapshot):
        raise ValueError("no room for " + snapshot.decode())
"""
)
FLOWS = """
[dataplane]
flow_idle_s = {idle_s}
[ports.brief]
uri = "null:?flows=30000&rate=400"
[ports.wan]
uri = "null:"
[nfs.keeper]
[chains.main]
in = "brief"
out = "wan"
services = ["keeper"]
"""


def keeper(host: Host, source: str) -> None:
    """Install an NF with state."""
    install_nf(host.site, "keeper", source)
    manifest = host.site / "onvm_nf_keeper" / "onvm-nf.toml"
    manifest.write_text(manifest.read_text().replace('"none"', '"per-flow"'))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (KEEPER, "keeper has no snapshot and restore"),
        (STUBBORN, "keeper-1: keeper.restore raised ValueError: no room for mine"),
    ],
)
def test_state_that_cannot_go_stays_until_its_flows_have_ended(
    host: Host, source: str, reason: str
) -> None:
    keeper(host, source)
    host.configure(FLOWS.format(idle_s=1))
    host.do("up", "-d")
    assert "2 serve" in host.do("scale", "keeper", "2")
    host.wait(lambda: received(host, "keeper-2") > 100)  # each flow has one packet
    assert "draining keeper-2" in host.do("scale", "keeper", "1")
    host.wait(lambda: launched(host).get("keeper-2", {}).get("reason", "") != "")
    shown = launched(host)["keeper-2"]
    assert shown["state"] == "draining"
    assert shown["reason"].startswith(f"state not handed over: {reason}")
    assert shown["reason"].endswith("; its flows may end by themselves")
    host.wait(lambda: "keeper-2" not in launched(host))
    assert launched(host)["keeper-1"]["restarts"] == 0, "who refused serves on"
    final = host.json("down")["report"]
    assert final["drops"] == {}


def test_drain_is_taken_back_instead_of_starting_another(host: Host) -> None:
    keeper(host, KEEPER)
    host.configure(FLOWS.format(idle_s=300))
    host.do("up", "-d")
    assert "2 serve" in host.do("scale", "keeper", "2")
    host.wait(lambda: received(host, "keeper-2") > 100)
    pid = launched(host)["keeper-2"]["pid"]
    host.do("scale", "keeper", "1")
    assert launched(host)["keeper-2"]["state"] == "draining"
    assert "resumed keeper-2" in host.do("scale", "keeper", "2")
    assert launched(host)["keeper-2"]["state"] == "active"
    assert launched(host)["keeper-2"]["pid"] == pid
    seen = received(host, "keeper-2")
    host.wait(lambda: received(host, "keeper-2") > seen + 100)  # new flows come again
    final = host.json("down")["report"]
    assert final["drops"] == {}
