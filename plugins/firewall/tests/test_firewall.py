# SPDX-License-Identifier: Apache-2.0
"""The firewall: rules, what is no IP, its configuration, and connections that move."""

from __future__ import annotations

import pytest
from firewall_case import NS, WEB, A, B, FirewallCase, handshake
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel, restore, rule_hits, save
from onvm_nf_firewall.shadowed import warnings

from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, ip, tcp, udp
from onvm_sdk.testing.kernel import KernelRunner

OUT, BACK = (A, 9, B, 80), (B, 80, A, 9)


def test_default_configuration_passes_all_but_malformed() -> None:
    good = udp("10.0.0.1", 1, "10.0.0.2", 2)
    firewall = FirewallCase()
    assert firewall(good, good[:20], b"", bytes(60), good[:-1]) == [
        None,
        "malformed",
        "malformed",
        None,
        "malformed",
    ]


def test_replies_of_accepted_connections_pass() -> None:
    firewall = FirewallCase(**WEB)
    assert firewall(tcp(*BACK)) == ["default"]
    assert firewall(*handshake()) == [None] * 3
    assert firewall.runner.counters[:6] == [1, 0, 2, 0, 1, 0]


def test_rule_hits_are_counted() -> None:
    firewall = FirewallCase(**WEB, stateful=False)
    firewall(*[tcp("10.0.0.1", 1, "10.0.0.2", 80)] * 3)
    assert rule_hits(firewall.kernel, 1) == [3]


def test_rules_see_from_which_end_a_packet_comes() -> None:
    """The outside cannot open a port of the inside, whatever it writes into a source address."""
    firewall = FirewallCase(
        default="drop", rules=[{"action": "accept", "from": "near", "src": "10.0.0.0/8"}]
    )
    forged = tcp(A, 2222, B, 4000, SYN)
    assert firewall(forged, reverse=True) == ["default"]
    assert firewall(tcp(B, 4000, A, 2222, SYN), reverse=True) == ["default"]
    syn, synack, ack = handshake()
    assert firewall(syn) == [None]
    assert firewall(synack, reverse=True) == [None]
    assert firewall(ack) == [None]


def test_rules_of_both_ends_keep_their_order() -> None:
    firewall = FirewallCase(
        stateful=False,
        rules=[
            {"action": "drop", "from": "far", "protocol": "udp"},
            {"action": "accept", "from": "any", "dst_ports": 53},
            {"action": "drop", "from": "near"},
        ],
    )
    dns, other = udp(A, 1, B, 53), udp(A, 1, B, 54)
    assert firewall(dns, other) == [None, "rule"]
    assert firewall(dns, tcp(A, 1, B, 53), tcp(A, 1, B, 54), reverse=True) == ["rule", None, None]


@pytest.mark.parametrize("protocol", [1, 47, 50, 89])
def test_rule_with_ports_matches_no_protocol_without_them(protocol: int) -> None:
    firewall = FirewallCase(stateful=False, rules=[{"action": "drop", "src_ports": "0-1023"}])
    assert firewall(ip(A, B, protocol, bytes(40))) == [None]
    assert firewall(udp(A, 5, B, 5), tcp(A, 5, B, 5)) == ["rule", "rule"]
    assert firewall(ip(A, B, 132, bytes(40)), ip(A, B, 33, bytes(40))) == ["rule", "rule"]


def test_connections_of_one_vlan_are_not_those_of_another() -> None:
    firewall = FirewallCase(**WEB)
    syn, synack, _ = handshake()
    assert firewall(tagged(syn, 10), tagged(synack, 20)) == [None, "default"]
    assert firewall(synack) == ["default"]
    assert firewall(tagged(synack, 0x2000 | 10)) == [None], "the priority does not count"


def tagged(frame: bytes, *tcis: int) -> bytes:
    tags = b"".join(b"\x81\x00" + tci.to_bytes(2, "big") for tci in tcis)
    return frame[:12] + tags + frame[12:]


# -- what is no IP

ARP = bytes(12) + b"\x08\x06" + bytes(28)
FRAMES = {
    "arp": ARP,
    "vlan_stack": tagged(tcp(A, 5, B, 22, SYN), 0, 0, 0, 0, 0),
    "llc": bytes(12) + b"\x00\x26\x42\x42\x03" + bytes(35),
    "pppoe": bytes(12) + b"\x88\x64\x11\x00" + bytes(40),
    "mpls": bytes(12) + b"\x88\x47" + bytes(40),
    "non_ip": bytes(12) + b"\x88\xcc" + bytes(40),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_each_kind_of_frame_has_its_verdict(kind: str) -> None:
    for verdict, reason in (("pass", None), ("drop", "non_ip")):
        for default in ("accept", "drop"):
            assert FirewallCase(default=default, **{kind: verdict})(FRAMES[kind]) == [reason]
    assert FirewallCase(default="accept", **{"vlan_stack": "default", kind: "default"})(
        FRAMES[kind]
    ) == [None]
    assert FirewallCase(default="drop", **{kind: "default"})(FRAMES[kind]) == ["non_ip"]


def test_only_arp_passes_a_firewall_that_drops() -> None:
    firewall = FirewallCase(default="drop")
    passed = {kind for kind, frame in FRAMES.items() if firewall(frame) == [None]}
    assert passed == {"arp"}


def test_stacked_vlan_tags_are_no_way_around_rules() -> None:
    firewall = FirewallCase(rules=[{"action": "drop", "src": f"{A}/32"}])
    syn = tcp(A, 5, B, 22, SYN)
    assert firewall(tagged(syn, 1, 2, 3, 4), tagged(syn, 0, 0, 0, 0, 0)) == ["rule", "non_ip"]
    assert firewall(syn[:12] + b"\x88\xa8\0\0" * 8 + syn[12:]) == ["non_ip"]


# -- options

LSRR, ROUTER_ALERT, PADDING = b"\x83\x07\x04\x0a\0\0\x09\x01", b"\x94\x04\0\0", b"\x01\x01\x01\0"
HEAD6 = bytes(12) + b"\x86\xdd\x60\0\0\0"


def routed(kind: int) -> bytes:
    """A UDP datagram behind an IPv6 routing header of a type."""
    inner = udp("2001:db8::1", 1, "2001:db8::2", 53)
    header = b"\x11\x02" + bytes([kind, 1]) + bytes(4) + inner[38:54]
    length = (len(header) + 8).to_bytes(2, "big")
    return HEAD6 + length + b"\x2b\x40" + inner[22:54] + header + inner[54:]


def test_ip_options_and_source_routes_are_dropped() -> None:
    def with_options(options: bytes) -> bytes:
        return ip(A, B, 17, udp(A, 1, B, 2)[34:], options=options)

    frames = [with_options(o) for o in (PADDING, ROUTER_ALERT, LSRR, b"\x83\0\0\0")]
    assert FirewallCase()(*frames) == [None, "options", "options", "options"]
    routes_only = FirewallCase(ip_options="pass")
    assert routes_only(*frames) == [None, None, "options", "options"]
    assert FirewallCase(ip_options="pass", source_route="pass")(*frames) == [None] * 4
    assert FirewallCase()(routed(0), routed(4)) == ["options", None]
    assert FirewallCase(source_route="pass")(routed(0)) == [None]


# -- checksums


def test_damaged_packets_open_and_change_nothing() -> None:
    def damaged(frame: bytes) -> bytes:
        return frame[:-1] + bytes([frame[-1] ^ 1])

    firewall = FirewallCase(default="drop", rules=[{"action": "accept", "from": "near"}])
    syn, synack, ack = handshake()
    request, question = echo(A, B, 7), udp(A, 1, B, 2, b"x")
    assert firewall(damaged(syn), damaged(request), damaged(question)) == ["invalid"] * 3
    assert firewall(syn) == [None]
    assert firewall(damaged(synack), reverse=True) == ["invalid"]
    assert firewall(synack, reverse=True) == [None]
    assert firewall(ack) == [None]
    end = tcp(B, 80, A, 9, FIN | ACK, seq=201, ack=101)
    assert firewall(damaged(end), reverse=True) == ["invalid"]
    data = damaged(tcp(A, 9, B, 80, ACK, b"x", seq=101, ack=201))
    assert firewall(data) == [None]
    assert FirewallCase(verify_checksums=True)(data, damaged(question)) == ["invalid"] * 2
    header = question[:24] + b"\0\0" + question[26:]
    assert FirewallCase(verify_checksums=True)(header, question) == ["invalid", None]


# -- configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"default": "x"}, "fw.toml: default: 'x': expected one of accept, drop"),
        ({"rules": [{"action": "deny"}]}, "fw.toml: rules[0].action: 'deny': expected one of accept, count, drop, goto, jump, log, reject, return"),
        ({"rules": [{"action": "drop", "from": "lan"}]}, "fw.toml: rules[0].from: 'lan': expected one of any, far, near"),
        ({"rules": [{"action": "drop", "src": "10.0.0.1/8"}]}, "fw.toml: rules[0].src: '10.0.0.1/8': expected a network"),
        ({"rules": [{"action": "drop", "src": "fe80::1%eth0"}]}, "fw.toml: rules[0].src: 'fe80::1%eth0': expected a network"),
        ({"rules": [{"action": "drop", "dst_ports": "9-1"}]}, "fw.toml: rules[0].dst_ports: '9-1': expected"),
        ({"rules": [{"action": "drop", "dst_ports": "8_0"}]}, "fw.toml: rules[0].dst_ports: '8_0': expected a port"),
        ({"rules": [{"action": "drop", "dst_ports": "٨٠"}]}, "fw.toml: rules[0].dst_ports: '٨٠': expected a port"),
        ({"rules": [{"action": "drop", "protocol": 256}]}, "fw.toml: rules[0].protocol: 256: expected any"),
        ({"rules": [{"action": "drop", "protocol": "٦"}]}, "fw.toml: rules[0].protocol: '٦': expected any"),
        ({"rules": [{"action": "drop", "protocol": "icmp", "dst_ports": 8}]}, "fw.toml: rules[0].dst_ports: 8: expected no ports, or a protocol that has them: tcp, udp"),
        ({"rules": [{"action": "drop", "protocol": 47, "src_ports": 0}]}, "fw.toml: rules[0].src_ports: 0: expected no ports"),
        ({"rules": [{"action": "drop", "protocol": "icmp", "src": "2001:db8::/32"}]}, "fw.toml: rules[0].protocol: 'icmp': expected any, or addresses of IPv4"),
        ({"rules": [{"action": "drop", "protocol": 58, "dst": "10.0.0.0/8"}]}, "fw.toml: rules[0].protocol: 58: expected any, or addresses of IPv6"),
        ({"max_connections": 0}, "fw.toml: max_connections: 0: expected `int` >= 1"),
        ({"stateful": "yes"}, "fw.toml: stateful: 'yes': expected `bool`"),
        ({"mpls": "yes"}, "fw.toml: mpls: 'yes': expected one of default, drop, pass"),
        ({"rules": [{"action": "drop", "src": "::/0", "dst": "0.0.0.0/0"}]}, "fw.toml: rules[0]: expected src and dst"),
    ],
)  # fmt: skip
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="fw.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["tcp", "TCP", "Tcp", "6", 6])
def test_protocols_are_named_in_any_way(protocol: str | int) -> None:
    config = load({"rules": [{"action": "drop", "protocol": protocol, "dst_ports": 80}]})
    assert config.rules[0].protocols == {6}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{}, {"protocol": "tcp"}], {1: 0}),
        ([{"protocol": "tcp"}, {}], {}),
        ([{"src": "10.0.0.0/8"}, {"src": "10.1.0.0/16"}, {"src": "11.0.0.0/16"}], {1: 0}),
        (
            [{"dst_ports": "1-99"}, {"protocol": "udp", "dst_ports": 53}, {"protocol": "gre"}],
            {1: 0},
        ),
        ([{"from": "near"}, {"from": "far"}, {"from": "near", "dst": "::/0"}, {}], {2: 0}),
        ([{"src": "::/0"}, {"src": "10.0.0.0/8"}, {"src": "2001:db8::/32", "dst": "::/0"}], {2: 0}),
        ([{"dst": f"10.{i >> 8}.{i & 255}.0/24"} for i in range(3000)] * 2, None),
    ],
)
def test_rules_that_are_never_reached_are_named(rules: list, expected: dict | None) -> None:
    config = load({"rules": [{"action": "drop", **rule} for rule in rules]})
    if expected is None:
        expected = {3000 + i: i for i in range(3000)}
    found = [line.split(": never reached: ") for line in warnings(config)]
    assert [
        (rule, reason.count(f"rules[{first}]"))
        for (rule, reason), first in zip(found, expected.values(), strict=True)
    ] == [(f"rules[{n}]", 1) for n in expected]


# -- handing over


def test_connections_go_to_another_instance() -> None:
    first, second = FirewallCase(**WEB), make_kernel(load(WEB))
    first(*handshake())
    successor = KernelRunner(second)
    restore(second, save(first.kernel, NS), NS)
    back = tcp(*BACK, ACK, b"x", seq=201, ack=101)
    beyond = tcp(*BACK, ACK, b"x", seq=300_000, ack=101)
    for now_s in range(2, 400):  # established: it outlives the transitory idle time
        successor.run([], now_s * NS)
    assert first(back, beyond, t=400) == [None, "invalid"]
    from onvm_sdk.testing.kernel import NEXT, Packet

    done = successor.run([Packet(back), Packet(beyond)], 400 * NS)
    assert [p.verdict == NEXT for p in done] == [True, False], "windows have come along"


def test_connections_that_do_not_fit_change_nothing() -> None:
    first, small = FirewallCase(**WEB), make_kernel(load({**WEB, "max_connections": 1}))
    first(*[tcp("10.0.0.1", port, "10.0.0.2", 80, SYN) for port in (1, 2)])
    with pytest.raises(NativeError, match="take over 2 connections"):
        restore(small, save(first.kernel, NS), NS)
    with pytest.raises(NativeError, match="Invalid argument"):
        restore(small, save(first.kernel, NS)[1:], NS)
    assert save(small, NS) == b""


def test_firewall_that_tracks_nothing_has_no_state() -> None:
    passes = FirewallCase()
    passes(udp("10.0.0.1", 1, "10.0.0.2", 2), tcp(*OUT, RST))
    assert save(passes.kernel, NS) == b""
    restore(passes.kernel, b"", NS)
