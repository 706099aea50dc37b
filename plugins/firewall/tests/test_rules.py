# SPDX-License-Identifier: Apache-2.0
"""Each part of the language of rules by hand; the kernel and its model, side by side."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from firewall_case import REJECTED, A, B, FirewallCase, handshake
from onvm_nf_firewall import Firewall
from onvm_nf_firewall.addresses import read_sets
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel, rule_hits
from onvm_nf_firewall.model import FirewallModel
from onvm_nf_firewall.shadowed import warnings

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import read_headers
from onvm_sdk.nf import Context, Counters, Port
from onvm_sdk.testing.frames import ACK, RST, SYN, echo, icmp_error, ip, is_sound, tcp, udp
from onvm_sdk.testing.kernel import DROP, OUT, PARTIAL, KernelRunner, Packet

V6, W6 = "2001:db8::1", "2001:db8::2"


def only(**rule: object) -> FirewallCase:
    """A firewall that drops what one rule matches."""
    return FirewallCase(stateful=False, fragments="pass", rules=[{"action": "drop", **rule}])


def vlan(frame: bytes, number: int) -> bytes:
    return frame[:12] + b"\x81\x00" + number.to_bytes(2, "big") + frame[12:]


@pytest.mark.parametrize(
    ("rule", "port", "matches"),
    [
        ({"in": "lan"}, 0, True),
        ({"in": "lan"}, 1, False),
        ({"in": ["lan", "wan"]}, 1, True),
        ({"in": "!lan"}, 1, True),
        ({"in": "!lan"}, 0, False),
        ({"in": "wan*"}, 5, True),
        ({"in": "!wan*"}, 5, False),
        ({"in": "!lan"}, 9, False),
    ],
)
def test_ports_by_name(rule: dict, port: int, matches: bool) -> None:
    """A port without a name matches neither a name nor its negation."""
    assert only(**rule)(udp(A, 1, B, 2), port=port) == (["rule"] if matches else [None])


def test_exits_are_known_from_egress_alone() -> None:
    rule = {"action": "drop", "out": "wan"}
    known = FirewallCase(stateful=False, rules=[rule], egress={"lan": "wan", "wan": "lan"})
    frame = udp(A, 1, B, 2)
    assert [known(frame, port=port) for port in (0, 1, 2)] == [["rule"], [None], [None]]
    assert only(out="wan")(frame) == [None]
    assert warnings(load({"rules": [rule]})) == [
        "rules[0]: never matches: where packets leave is known only from egress, and nothing there "
        "fits"
    ]


@pytest.mark.parametrize(
    ("rule", "frame", "matches"),
    [
        ({"src": ["10.9.0.0/16", A]}, udp(A, 1, B, 2), True),
        ({"src": "!10.0.0.0/8"}, udp(A, 1, B, 2), False),
        ({"src": "!10.0.0.0/8"}, udp(V6, 1, W6, 2), False),
        ({"src": ["!10.9.0.0/16", "!10.8.0.0/16"]}, udp(A, 1, B, 2), True),
        ({"dst": "10.0.0.2-10.0.0.5"}, udp(A, 1, B, 2), True),
        ({"dst": "10.0.0.3-10.0.0.5"}, udp(A, 1, B, 2), False),
        ({"protocol": ["tcp", 17]}, udp(A, 1, B, 2), True),
        ({"protocol": "!udp"}, udp(A, 1, B, 2), False),
        ({"protocol": "!tcp"}, ip(A, B, 47, bytes(20)), True),
        ({"dst_ports": [80, "443-445"]}, tcp(A, 1, B, 444), True),
        ({"dst_ports": "80,443"}, tcp(A, 1, B, 444), False),
        ({"src_ports": "!1-1023"}, tcp(A, 1024, B, 444), True),
        ({"src_ports": "!1-1023"}, ip(A, B, 47, bytes(20)), False),
        ({"flags": "syn"}, tcp(A, 1, B, 2, SYN), True),
        ({"flags": "syn"}, tcp(A, 1, B, 2, SYN | ACK), False),
        ({"flags": "!syn"}, tcp(A, 1, B, 2, SYN | ACK), True),
        ({"flags": ["rst/rst", "none/all"]}, tcp(A, 1, B, 2, RST | ACK), True),
        ({"flags": "none/all"}, tcp(A, 1, B, 2, 64), True),
        ({"icmp": "echo-request"}, echo(A, B, 1), True),
        ({"icmp": "echo-request"}, echo(V6, W6, 1), True),
        ({"icmp": "!echo-request"}, echo(A, B, 1, 13), True),
        ({"icmp": "3/1"}, icmp_error(A, B, udp(B, 1, A, 2)), True),
        ({"icmp": "3/2"}, icmp_error(A, B, udp(B, 1, A, 2)), False),
        ({"icmp": "rfc4890-must-pass"}, echo(V6, W6, 1), True),
        ({"icmp": "rfc4890-drop"}, echo(V6, W6, 1, 200), True),
        ({"icmp": "timestamp-reply"}, echo(A, B, 1, 14), True),
        ({"icmp": 8}, udp(A, 8, B, 0), False),
        ({"vlan": 10}, vlan(udp(A, 1, B, 2), 10), True),
        ({"vlan": "!10"}, udp(A, 1, B, 2), True),
        ({"vlan": "none"}, vlan(udp(A, 1, B, 2), 10), False),
        ({"vlan": ["1-9", 11]}, vlan(udp(A, 1, B, 2), 10), False),
        ({"mac": "02:00:00:00:00:01"}, udp(A, 1, B, 2), True),
        ({"mac": "!02:00:00:00:00:01"}, udp(A, 1, B, 2), False),
        ({"cast": "broadcast"}, b"\xff" * 6 + udp(A, 1, B, 2)[6:], True),
        ({"cast": "!unicast"}, udp(A, 1, B, 2), False),
        ({"fragment": True}, ip(A, B, 17, bytes(40), 4), True),
        ({"fragment": True}, udp(A, 1, B, 2), False),
        ({"fragment": False}, ip(A, B, 17, bytes(40), 4), False),
        ({"dst_ports": 80}, ip(A, B, 17, bytes(40), 4), False),
    ],
)
def test_fields(rule: dict, frame: bytes, matches: bool) -> None:
    assert only(**rule)(frame) == (["rule"] if matches else [None])


def test_states() -> None:
    rules = [
        {"action": "drop", "state": "invalid", "comment": "first"},
        {"action": "accept", "state": "new", "dst_ports": 80, "protocol": "tcp"},
    ]
    firewall = FirewallCase(default="drop", rules=rules)
    assert firewall(tcp(A, 1, B, 80, ACK), tcp(A, 1, B, 81, SYN)) == ["rule", "default"]
    assert firewall(*handshake()) == [None] * 3
    assert rule_hits(firewall.kernel, 2) == [1, 1]


def test_a_rule_may_let_invalid_packets_pass() -> None:
    rules = [{"action": "accept", "state": "invalid", "src": A}]
    firewall = FirewallCase(default="drop", rules=rules)
    assert firewall(tcp(A, 1, B, 80, ACK), tcp(B, 80, A, 1, ACK)) == [None, "default"]
    assert firewall.runner.counters[4] == 0, "it opens no connection"


def test_chains_come_back_and_end() -> None:
    firewall = FirewallCase(
        stateful=False,
        default="drop",
        chains={
            "inner": [
                {"action": "return", "dst_ports": 1},
                {"action": "accept", "dst_ports": "1-9"},
            ],
            "outer": [{"action": "goto", "chain": "inner"}, {"action": "accept"}],
        },
        rules=[
            {"action": "jump", "chain": "outer", "protocol": "udp"},
            {"action": "accept", "dst_ports": 1},
            {"action": "return", "dst_ports": 2},
            {"action": "accept", "src_ports": 7},
        ],
    )
    assert firewall(udp(A, 5, B, 1), udp(A, 5, B, 2), udp(A, 5, B, 10)) == [None, None, "default"]
    assert firewall(tcp(A, 7, B, 2), tcp(A, 7, B, 3), tcp(A, 7, B, 1)) == ["default", None, None]


def test_loops_and_floods_of_jumps_are_refused() -> None:
    loop = {"a": [{"action": "jump", "chain": "b"}], "b": [{"action": "goto", "chain": "a"}]}
    with pytest.raises(ConfigError, match=r"chains\.a: 'a > b > a': expected no loop"):
        load({"chains": loop})
    flood = {"c0": [{"action": "accept", "src": A}]}
    for i in range(1, 25):
        flood[f"c{i}"] = [{"action": "jump", "chain": f"c{i - 1}"}] * 2
    config = load({"chains": flood, "rules": [{"action": "jump", "chain": "c24"}]})
    with pytest.raises(ConfigError, match="chains: expected chains that make at most"):
        make_kernel(config)


def test_rejected_packets_are_answered() -> None:
    firewall = FirewallCase(stateful=False, rules=[{"action": "reject"}])
    frames = [tcp(A, 5, B, 80, SYN, b"", seq=7), udp(A, 5, B, 80), vlan(udp(V6, 5, W6, 80), 3),
              tcp(V6, 5, W6, 80, ACK, b"data", ack=99), ip(A, B, 47, bytes(600))]  # fmt: skip
    assert firewall(*frames, port=2) == [REJECTED] * 5
    for sent, got in zip(frames, firewall.answers, strict=True):
        asked, answer = read_headers(sent), read_headers(got)
        assert is_sound(got)
        assert (answer.src, answer.dst) == (asked.dst, asked.src)
        assert (answer.vlans, got[:12]) == (asked.vlans, sent[6:12] + sent[:6])
    reset, port, port6, reset6, long = (read_headers(one) for one in firewall.answers)
    assert (reset.tcp_flags, reset6.tcp_flags) == (RST | ACK, RST)
    assert (port.protocol, port6.protocol, long.protocol) == (1, 58, 1)
    assert len(firewall.answers[4]) == 14 + 576


@pytest.mark.parametrize(
    ("kind", "codes"), [("port", (3, 4)), ("host", (1, 3)), ("net", (0, 0)), ("admin", (13, 1))]
)
def test_answers_say_what_the_rule_says(kind: str, codes: tuple[int, int]) -> None:
    firewall = FirewallCase(stateful=False, rules=[{"action": "reject", "reject": kind}])
    assert firewall(tcp(A, 5, B, 80), udp(V6, 5, W6, 80)) == [REJECTED] * 2
    found = [one[read_headers(one).l4_offset + 1] for one in firewall.answers]
    assert tuple(found) == codes


@pytest.mark.parametrize(
    "frame",
    [
        tcp(A, 5, B, 80, RST),
        icmp_error(A, B, udp(B, 1, A, 2)),
        udp("224.0.0.1", 5, B, 80),
        udp(A, 5, "255.255.255.255", 80),
        udp("::", 5, W6, 80),
        b"\x01" + udp(A, 5, B, 80)[1:],
        ip(A, B, 17, udp(A, 5, B, 80)[34:], 0x2000),
        ip(A, B, 17, bytes(40), 4),
        udp(A, 5, B, 80, b"x")[:-1] + b"y",
    ],
)
def test_what_no_error_answers_is_dropped(frame: bytes) -> None:
    assert FirewallCase(stateful=False, rules=[{"action": "reject"}])(frame) == ["rule"]


def test_answers_are_limited() -> None:
    firewall = FirewallCase(stateful=False, reject_rate=2, rules=[{"action": "reject"}])
    frame = udp(A, 5, B, 80)
    assert firewall(*[frame] * 4) == [REJECTED] * 2 + ["rule"] * 2
    assert firewall(*[frame] * 2, t=1.5) == [REJECTED, "rule"]
    assert firewall.runner.counters[6] == 3
    none = FirewallCase(stateful=False, reject_rate=0, rules=[{"action": "reject"}])
    assert none(frame) == ["rule"]


@pytest.mark.parametrize("is_answered", [False, True])
def test_what_another_nf_has_had_is_answered_if_asked_for(is_answered: bool) -> None:
    rules = [{"action": "reject"}]
    config = load({"stateful": False, "answer_behind": is_answered, "rules": rules})
    runner = KernelRunner(make_kernel(config))
    runner._ctx.is_first_stage = False
    (done,) = runner.run([Packet(udp(A, 5, B, 80))])
    assert done.verdict == (OUT if is_answered else DROP)
    said = FirewallModel(config).judge(udp(A, 5, B, 80), 1, first=False)
    assert said == (REJECTED if is_answered else "rule")


def test_partial_packets_are_answered_whole() -> None:
    firewall = FirewallCase(stateful=False, rules=[{"action": "reject"}])
    assert firewall(tcp(A, 5, B, 80, SYN), flags=PARTIAL) == [REJECTED]
    assert is_sound(firewall.answers[0])


def test_limits() -> None:
    rule = {"action": "accept", "limit": {"rate": "2/second", "burst": 3}}
    firewall = FirewallCase(stateful=False, default="drop", rules=[rule])
    frame = udp(A, 5, B, 80)
    assert firewall(*[frame] * 5) == [None] * 3 + ["default"] * 2
    assert firewall(*[frame] * 2, t=1.5) == [None, "default"]
    assert firewall(*[frame] * 5, t=100) == [None] * 3 + ["default"] * 2


def test_limits_of_each_source() -> None:
    limit = {"rate": "1/minute", "burst": 1, "per": "source", "prefix": 24, "above": True}
    firewall = FirewallCase(
        stateful=False, rules=[{"action": "drop", "limit": limit}], max_limited=2
    )
    one, near, two, three = (
        udp(source, 5, B, 80) for source in ("10.1.0.1", "10.1.0.9", "10.2.0.1", "10.3.0.1")
    )
    assert firewall(one, near, two, two) == [None, "rule", None, "rule"]
    assert firewall(three, one) == [None, None], "the one seen longest ago has given way"


def test_log_counts_samples_and_never_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    firewall = Firewall()
    counters = Counters(
        ["accepted_by_rule", "accepted_by_default", "accepted_by_connection", "accepted_related",
         "connections_opened", "connections_expired"]
    )  # fmt: skip
    rules = [{"action": "log", "prefix": "hello", "in": "wan"}]
    firewall.setup(Context("firewall", config={"rules": rules, "log_rate": 3}, counters=counters))
    assert firewall.timer_interval_s > 0
    firewall.on_ports([Port("wan", 4)])
    runner = KernelRunner(firewall.native())
    runner.run([Packet(vlan(tcp(A, 5, B, 80, SYN), 9), port=4)] * 5, 10**9)
    assert runner.counters[7:9] == [3, 2]
    firewall.on_timer(10**9)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        {
            "event": "firewall", "rule": "rules[0]", "prefix": "hello", "in": "wan", "src": A,
            "dst": B, "protocol": "tcp", "src_port": 5, "dst_port": 80, "flags": 2, "vlan": 9,
            "length": 58, "time_ns": 10**9,
        }
    ] * 3  # fmt: skip


def test_names_that_no_port_has_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = {"rules": [{"action": "drop", "in": ["wan*", "wna"]}], "egress": {"lan": "wan"}}
    firewall = Firewall()
    firewall.setup(Context("firewall", config=config))
    firewall.on_ports([Port("lan", 0), Port("wan", 1)])
    assert capsys.readouterr().err == "rules[0].in: 'wna': expected a port (lan, wan)\n"


def test_sets_from_lists_and_files(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(
        "# bad ones\n198.51.100.0/24 ; a network\n\n2001:db8::/64\n203.0.113.1-203.0.113.9\n"
    )
    firewall = FirewallCase(
        stateful=False,
        set_files=[str(tmp_path / "bad.txt")],
        sets={"own": [A]},
        rules=[
            {"action": "accept", "src": "@own"},
            {"action": "drop", "src": ["@bad", "192.0.2.1"]},
            {"action": "drop", "dst": "!@own", "protocol": "tcp"},
        ],
    )
    sources = (A, "198.51.100.9", V6, "203.0.113.9", "203.0.113.10", "192.0.2.1")
    frames = [udp(source, 1, W6 if ":" in source else B, 2) for source in sources]
    assert firewall(*frames) == [None, "rule", "rule", "rule", None, "rule"]
    assert firewall(tcp(B, 1, A, 2), tcp("2001:db9::1", 1, W6, 2)) == [None, "rule"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"set_files": ["/nowhere/x.txt"]}, "set_files[0]: '/nowhere/x.txt': expected a file that can be read"),
        ({"set_files": ["/nowhere/x.txt"], "sets": {"x": []}}, "set_files[0]: 'x': expected a name that no other set has"),
        ({"sets": {"bad": ["x"]}}, "sets.bad[0]: 'x': expected a network such as"),
        ({"rules": [{"action": "drop", "src": "@bad"}]}, "rules[0].src: '@bad': expected the name of a set: none is in sets"),
        ({"rules": [{"action": "drop", "src": ["!10.0.0.1", "10.0.0.2"]}]}, "rules[0].src: expected all entries with ! or none"),
        ({"rules": [{"action": "drop", "src": "10.0.0.9-10.0.0.1"}]}, "rules[0].src: '10.0.0.9-10.0.0.1': expected a range of one IP version"),
        ({"rules": [{"action": "drop", "flags": "sin"}]}, "rules[0].flags: 'sin': expected FLAGS or FLAGS/MASK of fin, syn"),
        ({"rules": [{"action": "drop", "flags": "syn", "protocol": "udp"}]}, "rules[0].flags: 'syn': expected no flags, or the protocol tcp"),
        ({"rules": [{"action": "drop", "icmp": "ping"}]}, "rules[0].icmp: 'ping': expected TYPE, TYPE/CODE or one of echo-reply"),
        ({"rules": [{"action": "drop", "prot": "tcp"}]}, "rules[0].prot: 'tcp': expected one of "),
        ({"rules": [{"action": "drop", "state": "establish"}]}, "rules[0].state: 'establish': expected one of new, established, related, invalid; did you mean 'established'?"),
        ({"rules": [{"action": "acept"}]}, "rules[0].action: 'acept': expected one of accept, count, drop, goto, jump, log, reject, return; did you mean 'accept'?"),
        ({"rules": [{"action": "drop", "state": "old"}]}, "rules[0].state: 'old': expected one of new, established, related, invalid"),
        ({"rules": [{"action": "drop", "state": "new"}], "stateful": False}, "rules[0].state: expected no state, or stateful = true"),
        ({"rules": [{"action": "drop", "vlan": 4095}]}, "rules[0].vlan: 4095: expected VLANs of 1..4094"),
        ({"rules": [{"action": "drop", "mac": "02:00"}]}, "rules[0].mac: '02:00': expected an address such as"),
        ({"rules": [{"action": "drop", "cast": "any"}]}, "rules[0].cast: 'any': expected one of unicast, multicast, broadcast"),
        ({"rules": [{"action": "drop", "limit": "10"}]}, "rules[0].limit: '10': expected NUMBER/UNIT"),
        ({"rules": [{"action": "drop", "limit": {"rate": "1/s", "burst": 0}}]}, "rules[0].limit: expected a burst of"),
        ({"rules": [{"action": "drop", "chain": "x"}], "chains": {"x": []}}, "rules[0].chain: 'x': expected it with one of these actions: jump, goto"),
        ({"rules": [{"action": "reject", "reject": "reset"}]}, "rules[0].reject: 'reset': expected one of auto, reset, port"),
        ({"rules": [{"action": "drop", "in": "a b"}]}, "rules[0].in: 'a b': expected names of ports"),
        ({"rules": [{"action": "drop", "protocol": "icmp", "icmp": "packet-too-big"}]}, "rules[0].protocol: 'icmp': expected any, or addresses of IPv4"),
    ],
)  # fmt: skip
def test_mistakes_name_the_choices(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config)
    assert str(caught.value).startswith(message)


def test_large_sets_load_quickly_and_in_little_memory(tmp_path: Path) -> None:
    count = 100_000
    lines = (f"{1 + i // 65536}.{i // 256 % 256}.{i % 256}.{i % 2 * 128}/26" for i in range(count))
    (tmp_path / "many.txt").write_text("\n".join(lines))
    begin = time.process_time()
    config = {"set_files": [str(tmp_path / "many.txt")],
              "rules": [{"action": "drop", "src": "@many"}], "stateful": False}  # fmt: skip
    kernel = make_kernel(load(config))
    assert time.process_time() - begin < 4, "2 s of a quiet machine"
    runner = KernelRunner(kernel)
    for source, is_in in (("1.0.0.63", True), ("1.0.0.64", False), ("1.0.1.128", True), ("2.134.159.128", True), ("2.134.160.0", False)):  # fmt: skip
        (done,) = runner.run([Packet(udp(source, 1, B, 2))])
        assert (done.verdict == 1) is is_in, source
    sets = read_sets({}, [str(tmp_path / "many.txt")], None)
    assert len(sets["many"]) == count


def test_warnings_name_rules_that_never_decide() -> None:
    config = load(
        {
            "sets": {"none": []},
            "chains": {"idle": [{"action": "accept"}, {"action": "accept"}]},
            "rules": [
                {"action": "drop", "in": "wan", "src": ["10.0.0.0/8", "192.168.0.0/16"]},
                {"action": "drop", "in": "wan", "src": ["10.0.0.0/8", "192.168.0.0/16"]},
                {"action": "log"},
                {"action": "drop", "state": "established"},
                {"action": "drop", "src": "@none"},
                {"action": "drop", "limit": "1/second"},
                {"action": "drop"},
                {"action": "count"},
            ],
        }
    )
    assert warnings(config) == [
        "rules[1]: never reached: it is equal to rules[0]",
        "rules[7]: never reached: rules[6] matches all of it",
        "chains.idle[1]: never reached: it is equal to chains.idle[0]",
        "rules[3]: never matches: packets of established connections pass before the rules",
        "rules[4]: never matches: no address is left",
        "chains.idle: no rule jumps to it",
    ]
