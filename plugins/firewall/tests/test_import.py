# SPDX-License-Identifier: Apache-2.0
"""Rules of other software as a configuration: what is said, and what is left out."""

from __future__ import annotations

import gzip
import json
import tomllib
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from onvm_nf_firewall.config import load
from onvm_nf_firewall.importing import classbench, iptables, nft
from onvm_nf_firewall.importing.command import main
from onvm_nf_firewall.importing.imported import Imported
from onvm_nf_firewall.model import FirewallModel
from onvm_nf_firewall.program import compile_rules
from shared_data import need_data

from onvm_sdk.testing.frames import ACK, SYN, echo, ip, tcp, udp

HOME = """\
# A router at home: masquerading, forwarded ports, a guest network.
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.168.1.9:80
COMMIT
*filter
:INPUT DROP [10:600]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [7:420]
:guests - [0:0]
:spoofed - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 192.168.1.0/24 -i lan -p tcp -m multiport --dports 22,53,443 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -s 192.168.0.0/16 -i wan -j spoofed
-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP
-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP
-A FORWARD -i lan -m mac --mac-source 02:00:00:00:00:77 -j DROP
-A FORWARD -i lan -j ACCEPT
-A FORWARD -i guest+ -j guests
-A FORWARD -d 192.168.1.9/32 -i wan -p tcp -m tcp --dport 80 -m comment --comment "the \\"web\\" server" -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -m limit --limit 2/sec --limit-burst 4 -j ACCEPT
-A FORWARD -p udp -m udp --sport 67:68 --dport 67:68 -j DROP
-A FORWARD -m iprange --src-range 203.0.113.5-203.0.113.9 -j ACCEPT
-A FORWARD -f -j DROP
-A FORWARD -m limit --limit 5/min -j LOG --log-prefix "dropped: " --log-level 7
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
-A guests ! -d 192.168.0.0/16 -p tcp -m multiport --dports 80,443 -j ACCEPT
-A guests -p udp -m udp --dport 53 -j ACCEPT
-A guests -j RETURN
-A spoofed -j NFLOG --nflog-prefix spoofed
-A spoofed -j DROP
COMMIT
"""
SERVER = """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:f2b-ssh - [0:0]
:limits - [0:0]
-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j f2b-ssh
-A INPUT -p tcp -m tcp --dport 22 -m state --state NEW -m recent --set --name ssh --rsource
-A INPUT -p tcp -m tcp --dport 22 -m state --state NEW -m recent --update --seconds 60 --hitcount 4 --name ssh --rsource -j DROP
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp --syn -g limits
-A INPUT -p 47 -s 198.51.100.0/255.255.255.0 -j ACCEPT
-A INPUT -m pkttype --pkt-type broadcast -j DROP
-A INPUT -m set --match-set blocked src -j DROP
-A INPUT -m owner --uid-owner 0 -j ACCEPT
-A f2b-ssh -s 203.0.113.77/32 -j REJECT --reject-with icmp-host-unreachable
-A f2b-ssh -j RETURN
-A limits -p tcp -m hashlimit --hashlimit-upto 20/sec --hashlimit-burst 40 --hashlimit-mode srcip --hashlimit-name syn -j RETURN
-A limits -m statistic --mode random --probability 0.1 -j ACCEPT
-A limits -j DROP
COMMIT
"""
SIX = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 1 -j ACCEPT
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
-A FORWARD -s 2001:db8::/32 -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -d ff00::/8 -j DROP
-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited
COMMIT
"""
NFT = """\
table ip raw { }
table inet filter {
\tset blocked {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 192.0.2.0/24, 198.51.100.7,
\t\t\t     203.0.113.4-203.0.113.9 }
\t}
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tiif "lo" accept
\t}
\tchain web {
\t\ttcp dport { 80, 443 } accept
\t\treturn
\t}
\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t\tct state vmap { established : accept, related : accept, invalid : drop }
\t\tip saddr @blocked counter packets 5 bytes 300 drop
\t\tiifname != { "lan", "dmz" } ip saddr 10.0.0.0/8 log prefix "spoof: " drop
\t\ttcp flags & (fin | syn | rst | ack) == syn jump web comment "the web"
\t\ticmp type { echo-request, time-exceeded } limit rate 5/second accept
\t\ticmpv6 type echo-request accept
\t\tmeta l4proto { tcp, udp } th dport 53 accept
\t\tudp dport vmap { 123 : accept, 500 : drop }
\t\tip saddr 10.9.0.0-10.9.1.5 ip daddr != 10.8.0.0/16 reject with icmp type admin-prohibited
\t\tmeta l4proto tcp reject with tcp reset
\t\tfib daddr type local accept
\t\treject with icmpx type port-unreachable
\t}
}
"""


def verdict(made: Imported, frame: bytes, port: str) -> str:
    """The fate of a first packet."""
    config = load(tomllib.loads("\n".join(made.toml())))
    reason = FirewallModel(config).judge(frame, 10**9, port=port)
    return {None: "accept", "rejected": "reject"}.get(reason, "drop")


@pytest.mark.parametrize(
    ("frame", "port", "expected"),
    [
        (tcp("192.168.1.5", 1, "9.9.9.9", 443, SYN), "lan", "accept"),
        (tcp("192.168.1.5", 1, "9.9.9.9", 443, ACK), "lan", "drop"),
        (tcp("192.168.1.5", 1, "9.9.9.9", 443, SYN), "wan", "drop"),
        (tcp("10.0.0.1", 1, "9.9.9.9", 443, SYN), "guest7", "accept"),
        (tcp("10.0.0.1", 1, "192.168.1.1", 443, SYN), "guest7", "reject"),
        (udp("10.0.0.1", 1, "192.168.1.1", 53), "guest7", "accept"),
        (tcp("9.9.9.9", 1, "192.168.1.9", 80, SYN), "wan", "accept"),
        (tcp("9.9.9.9", 1, "192.168.1.9", 81, SYN), "wan", "reject"),
        (echo("9.9.9.9", "192.168.1.9", 1), "wan", "accept"),
        (udp("9.9.9.9", 68, "192.168.1.9", 67), "wan", "drop"),
        (udp("203.0.113.9", 1, "192.168.1.9", 9), "wan", "accept"),
        (udp("203.0.113.10", 1, "192.168.1.9", 9), "wan", "reject"),
        (ip("9.9.9.9", "192.168.1.9", 17, bytes(40), 4), "wan", "drop"),
    ],
)
def test_rules_of_a_home_router_say_the_same(frame: bytes, port: str, expected: str) -> None:
    assert verdict(iptables.read(HOME), frame, port) == expected


def test_all_but_other_tables_of_a_home_router_is_expressed() -> None:
    made = iptables.read(HOME)
    assert [(number, why) for number, _, why in made.left_out] == [(4, "table nat")]
    assert made.total == 24
    assert (made.default, made.stateful) == ("drop", True)
    assert made.rules[8]["comment"] == 'the "web" server'


def test_what_cannot_be_expressed_is_named_with_its_line() -> None:
    made = iptables.read(SERVER, "INPUT")
    assert [(number, why) for number, _, why in made.left_out] == [
        (15, "-m owner"),
        (19, "-m statistic"),
    ]
    assert [number for number, _ in made.notes] == [9, 0], "recent, and the set"
    assert verdict(made, tcp("203.0.113.77", 1, "10.0.0.1", 22, SYN), "") == "reject"
    assert verdict(made, tcp("203.0.113.78", 1, "10.0.0.1", 22, SYN), "") == "accept"
    assert verdict(made, ip("198.51.100.9", "10.0.0.1", 47, bytes(20)), "") == "accept"
    assert verdict(made, ip("198.51.101.9", "10.0.0.1", 47, bytes(20)), "") == "drop"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (echo("2001:db8::1", "2001:db8:1::1", 1), "accept"),
        (tcp("2001:db8::1", 1, "2001:db9::1", 22, SYN), "accept"),
        (tcp("2001:db9::1", 1, "2001:db9::1", 22, SYN), "reject"),
        (udp("2001:db8::1", 1, "ff02::1", 22), "drop"),
    ],
)
def test_rules_of_ipv6_say_the_same(frame: bytes, expected: str) -> None:
    made = iptables.read(SIX)
    assert not made.left_out
    assert verdict(made, frame, "") == expected


@pytest.mark.parametrize(
    ("frame", "port", "expected"),
    [
        (tcp("192.0.2.9", 1, "10.0.0.1", 80, SYN), "wan", "drop"),
        (tcp("9.9.9.9", 1, "10.0.0.1", 80, SYN), "wan", "accept"),
        (tcp("9.9.9.9", 1, "10.0.0.1", 81, SYN), "wan", "reject"),
        (tcp("10.0.0.9", 1, "9.9.9.9", 80, SYN), "wan", "drop"),
        (tcp("10.0.0.9", 1, "9.9.9.9", 80, SYN), "dmz", "accept"),
        (udp("9.9.9.9", 1, "10.0.0.1", 53), "wan", "accept"),
        (udp("9.9.9.9", 1, "10.0.0.1", 123), "wan", "accept"),
        (udp("9.9.9.9", 1, "10.0.0.1", 500), "wan", "drop"),
        (udp("10.9.1.5", 1, "10.8.0.1", 5), "lan", "reject"),
        (echo("9.9.9.9", "10.0.0.1", 1), "wan", "accept"),
        (echo("2001:db8::9", "2001:db8::1", 1), "wan", "accept"),
    ],
)
def test_rules_of_nft_say_the_same(frame: bytes, port: str, expected: str) -> None:
    made = nft.read(NFT)
    assert [why for _, _, why in made.left_out] == ["fib"]
    assert verdict(made, frame, port) == expected


def test_filters_of_classbench() -> None:
    made = classbench.read(
        "@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t80 : 90\t0x06/0xFF\t0x0000/0x0000\n"
        "@10.1.2.3/32 10.0.0.0/8 0 : 65535 0 : 65535 0x01/0xFF 0x1000/0x1000\n\n@nonsense\n"
    )
    assert made.rules == [
        {"action": "accept", "src": "10.0.0.0/8", "protocol": 6, "dst_ports": "80-90"},
        {"action": "accept", "src": "10.1.2.3/32", "dst": "10.0.0.0/8", "protocol": 1},
    ]
    assert [number for number, _, _ in made.left_out] == [4]
    assert [number for number, _ in made.notes] == [2]


def test_command_writes_toml_and_tells_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").write_text(SERVER)
    assert main(["--iptables", str(tmp_path / "rules"), "--chain", "INPUT"]) == 0
    written, told = capsys.readouterr()
    assert load(tomllib.loads(written)).chains["limits"]
    assert "line 15: left out: -m owner: -A INPUT" in told
    assert told.endswith("13 of 15 rules expressed\n")


DUMPS = need_data("firewall", "iptables_save")
ANONYMOUS = "XX:XX:XX:XX:XX:XX"
"""Addresses of network interfaces are left out of one dump."""


@pytest.fixture(scope="module")
def dumps() -> dict[str, Imported]:
    made = {}
    for path in sorted(DUMPS.iterdir()):
        text = path.read_text(errors="replace").replace(ANONYMOUS, "02:00:00:00:00:07")
        main_chain = "INPUT" if "medium" in path.name else "FORWARD"
        made[path.name] = iptables.read(text, main_chain)
    return made


def test_nearly_all_rules_of_real_sites_are_expressed(dumps: dict[str, Imported]) -> None:
    total = sum(made.total for made in dumps.values())
    lost = sum(not why.startswith("table ") for d in dumps.values() for _, _, why in d.left_out)
    assert total > 5000
    assert lost / total < 0.01
    for made in dumps.values():
        compile_rules(load(tomllib.loads("\n".join(made.toml()))))


def _frame(src: int, dst: int, sport: int, dport: int, protocol: int) -> bytes:
    a, b = str(IPv4Address(src)), str(IPv4Address(dst))
    if protocol == 6:
        return tcp(a, sport, b, dport, SYN)
    return udp(a, sport, b, dport) if protocol == 17 else ip(a, b, protocol, b"\x08" + bytes(39))


SITES = {"TUM": "TUM", "home_user": "home_user", "akachan": "akachan", "openwrt": "openwrt"}
PACKETS = 200


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("bound", ["upper", "lower"])
def test_imported_rules_stay_within_verified_bounds(
    dumps: dict[str, Imported], site: str, bound: str
) -> None:
    """Whatever the lower bound accepts is accepted; whatever the upper one drops is not."""
    made = next(one for name, one in dumps.items() if SITES[site] in name)
    data: dict[str, Any] = made.config() | {"egress": {"other": "another"}, "reject_rate": 0}
    (path,) = [
        one
        for one in need_data("firewall", "real_acl").glob(f"*FWD.{bound}.trace.gz")
        if SITES[site] in one.name
    ]
    acl = path.with_name(path.name.replace(".trace.gz", ".acl.json.gz"))
    default = json.loads(gzip.decompress(acl.read_bytes()))["default"]
    config, seen = load(data), 0
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    for line in lines[:: max(1, len(lines) // PACKETS)]:
        *numbers, _, said = line.split()
        if said != ("ACCEPT" if bound == "lower" else "DROP"):
            continue
        frame = _frame(*(int(number) for number in numbers))
        reason = FirewallModel(config).judge(frame, 10**9, port="other")
        assert reason == "invalid" or (reason is None) == (bound == "lower"), (line, default)
        seen += 1
    if seen == 0:
        pytest.skip("this bound says nothing of these packets")
