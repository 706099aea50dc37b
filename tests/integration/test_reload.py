"""A manager that is changed in the middle of traffic: nothing is lost, or nothing changes.

Traffic is the generator's: its client knows each connection and says which failed, and a NAT, a
load balancer and a firewall that drops by default lose packets whose state is elsewhere.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from test_handover import assert_nothing_is_lost, launched, received, report

if TYPE_CHECKING:
    from up_host import Host

PORTS = """
[dataplane]
flows = 65536
[ports.clients]
uri = "gen:?flows=300&rate=4000&seed=7&timeout_ms=20000&ipv6=0"
[ports.servers]
uri = "gen:"
"""
NFS = """
[nfs.firewall.config]
default = "drop"
rules = [{ action = "accept", src = "10.0.0.0/8" }]
[nfs.nat.config]
external = ["192.0.2.1"]
[nfs.hop.config]
port = 5
[nfs.lb.config]
vips = [{ address = "203.0.113.1", port = 80, backends = [{ address = "203.0.113.10" }] }]
"""
CHAIN = """
[chains.main]
in = "clients"
out = "servers"
services = ["firewall", "nat", "lb"]
"""
FILE = PORTS + NFS + CHAIN


def changed(*pairs: tuple[str, str]) -> str:
    """The file with replacements."""
    text = FILE
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def reload(host: Host, text: str) -> Any:
    host.configure(text)
    done = host.json("reload")
    assert done["step"] == "done"
    return done


def flows_on(host: Host, instance: str, count: int = 300) -> None:
    """Wait until that many packets more have come to an instance."""
    seen = received(host, instance)
    host.wait(lambda: received(host, instance) > seen + count)


def test_nothing_is_lost_by_changes_in_the_middle_of_traffic(host: Host) -> None:
    host.configure(FILE)
    host.do("up", "-d")
    flows_on(host, "lb-1")
    pids = host.nf_pids()

    # Configurations: connections that run would fail without their state.
    rules = 'rules = [{ action = "drop", dst = "203.0.113.128/25" }, { action = "accept", src = "10'
    better = (
        ('rules = [{ action = "accept", src = "10', rules),
        ('["192.0.2.1"]', '["192.0.2.1", "192.0.2.2"]'),
        ('"203.0.113.10" }', '"203.0.113.10" }, { address = "203.0.113.11", weight = 3 }'),
    )
    done = reload(host, changed(*better))
    places = {one["place"] for one in done["changes"]}
    assert places == {
        "nfs.firewall.config.rules",
        "nfs.nat.config.external",
        "nfs.lb.config.vips",
    }
    assert done["replaced"] == []
    assert host.nf_pids() == pids
    flows_on(host, "lb-1")

    # An NF that cannot change while it serves comes into the chain, then it is replaced.
    through_hop = ('["firewall", "nat", "lb"]', '["hop", "firewall", "nat", "lb"]')
    reload(host, changed(*better, through_hop))
    flows_on(host, "hop-1")
    done = reload(host, changed(*better, through_hop, ("port = 5", "port = 6")))
    assert done["replaced"] == ["hop-1"]
    flows_on(host, "hop-2")
    host.wait(lambda: "hop-1" not in launched(host))

    # A port with a chain, by a signal; then the first file again.
    more = '[ports.extra]\nuri = "null:?rate=1000"\n[ports.sink]\nuri = "null:"\n'
    more += '[chains.extra]\nin = "extra"\nout = "sink"\nservices = ["hop"]\n'
    host.configure(changed(*better) + more)
    os.kill(host.manager_pid(), signal.SIGHUP)
    host.wait(lambda: any(port["name"] == "extra" and port["rx"] for port in report(host)["ports"]))
    host.wait(lambda: [chain["name"] for chain in host.json("chain", "list")] == ["extra", "main"])

    # One service by command, and the end of an instance that has siblings.
    (host.folder / "own.toml").write_text(
        'default = "drop"\nudp_s = 77\nrules = [{ action = "accept", src = "10.0.0.0/8" }]\n'
    )
    assert "udp_s: 300 → 77" in host.do("nf", "config", "firewall", "own.toml")
    host.do("nf", "run", "firewall")
    flows_on(host, "firewall-2")
    host.do("nf", "stop", "firewall-1")
    flows_on(host, "firewall-2")
    host.configure(changed(*better))
    assert "- ports.extra" in host.do("reload")
    assert "nothing differs" in host.do("reload")
    flows_on(host, "lb-1")
    final = host.json("down")["report"]
    # Packets of the other port before it had a chain, and when it had none any more.
    final["rx"] -= final["drops"].pop("no_chain", 0)
    assert_nothing_is_lost(final)


MISTAKES = (
    ('["192.0.2.1"]', '["192.0.2.x"]', "nfs.nat.config.external[0]: '192.0.2.x': expected"),
    ("port = 5", "port = 70000", "nfs.hop.config.port: 70000: expected at most 65535"),
    ("[dataplane]", "[dataplane]\nbuffers = 4096", "dataplane.buffers: 4096: expected"),
    ("[nfs.lb.config]", '[ports.x]\nuri = "pcap:no"\n[nfs.lb.config]', "ports.x.uri: 'no'"),
)


def test_mistakes_are_one_line_and_change_nothing(host: Host) -> None:
    host.configure(FILE)
    host.do("up", "-d")
    flows_on(host, "lb-1", 100)
    before = {name: (nf["pid"], nf["state"]) for name, nf in launched(host).items()}
    rules = ('src = "10.0.0.0/8"', 'src = "172.16.0.0/12"')  # with them all would be dropped
    for old, new, line in MISTAKES:
        host.configure(changed((old, new), rules))
        done = host.onvm("reload")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {host.folder}/onvm.toml: {line}"), done.stderr
        assert done.stderr.count("\n") == 1
        now = {name: (nf["pid"], nf["state"]) for name, nf in launched(host).items()}
        assert now == before
        flows_on(host, "lb-1", 100)
    assert_nothing_is_lost(host.json("down")["report"])


def test_large_rule_set_changes_under_load(host: Host) -> None:
    def rules(octet: int) -> str:
        lines = [
            f'{{ action = "drop", src = "172.{i >> 8}.{i & 255}.{octet}/32", protocol = "udp" }},'
            for i in range(10_000)
        ]
        return "default = 'accept'\nrules = [\n" + "\n".join(lines) + "\n]\n"

    (host.folder / "rules.toml").write_text(rules(1))
    host.configure(
        '[dataplane]\nflows = 4096\nbuffers = 2048\n[ports.wan]\nuri = "null:"\n'
        '[ports.lan]\nuri = "pcap:in.pcap?loop=0&rate=100000"\n'  # it can wait: nothing may be lost
        '[nfs.firewall]\nconfig = "rules.toml"\n'
        '[chains.main]\nin = "lan"\nout = "wan"\nservices = ["firewall"]\n'
    )
    host.do("up", "-d")
    flows_on(host, "firewall-1", 10_000)
    (host.folder / "rules.toml").write_text(rules(2))
    done = host.json("reload")
    assert done["apply_ms"] < 1000  # a machine that others use; some milliseconds otherwise
    flows_on(host, "firewall-1", 10_000)
    final = host.json("down")["report"]
    assert final["drops"] == {}
    assert final["rx"] == final["tx"]


def test_next_manager_takes_over_what_a_reload_has_made(host: Host) -> None:
    host.configure(FILE)
    host.do("up", "-d")
    rules = ('src = "10.0.0.0/8"', 'src = "10.0.0.0/7"')
    text = changed(("port = 5", "port = 6"), rules)
    assert reload(host, text)["replaced"] == ["hop-1"]
    host.wait(lambda: "hop-1" not in launched(host))
    before = host.nf_pids()
    assert set(before) == {"firewall-1", "nat-1", "hop-2", "lb-1"}
    host.do("down", "--keep-nfs")
    host.do("up", "-d")
    assert host.nf_pids() == before
    host.do("down")
