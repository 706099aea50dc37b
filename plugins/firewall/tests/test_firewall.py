# SPDX-License-Identifier: Apache-2.0
"""The firewall: cases by hand, and the C kernel against the model on random traffic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel, restore, rule_hits, save
from onvm_nf_firewall.model import FirewallModel

from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, ip, tcp, udp
from onvm_sdk.testing.frames import icmp_error as unreachable
from onvm_sdk.testing.kernel import DROP, NEXT, KernelRunner, Packet

REASONS = ["rule", "default", "malformed", "fragment", "non_ip", "table_full"]
NS = 1_000_000_000


def verdicts(runner: KernelRunner, frames: list[bytes], now_s: int = 1) -> list[str | None]:
    done = runner.run([Packet(f) for f in frames], now_s * NS)
    assert [p.data for p in done] == frames, "a firewall changes nothing"
    assert all(p.verdict in (NEXT, DROP) for p in done)
    return [REASONS[p.destination] if p.verdict == DROP else None for p in done]


def runner_of(**config: object) -> KernelRunner:
    return KernelRunner(make_kernel(load(config)))


ONLY_WEB = {"default": "drop", "rules": [{"action": "accept", "protocol": "tcp", "dst_ports": 80}]}


def test_default_configuration_passes_all_but_malformed() -> None:
    good = udp("10.0.0.1", 1, "10.0.0.2", 2)
    runner = runner_of()
    assert verdicts(runner, [good, good[:20], b"", bytes(60), good[:-1]]) == [
        None,
        "malformed",
        "malformed",
        None,
        "malformed",
    ]


def test_replies_of_accepted_connections_pass() -> None:
    runner = runner_of(**ONLY_WEB)
    out, back = ("10.0.0.1", 999, "10.0.0.2", 80), ("10.0.0.2", 80, "10.0.0.1", 999)
    assert verdicts(runner, [tcp(*back)]) == ["default"]
    assert verdicts(runner, [tcp(*out, SYN), tcp(*back, SYN | ACK), tcp(*out)]) == [None] * 3
    assert runner.counters[:6] == [1, 0, 2, 0, 1, 0]


def test_idle_connection_is_forgotten() -> None:
    runner = runner_of(**ONLY_WEB)
    out, back = ("10.0.0.1", 999, "10.0.0.2", 80), ("10.0.0.2", 80, "10.0.0.1", 999)
    assert verdicts(runner, [tcp(*out, SYN)], 1) == [None]
    assert verdicts(runner, [udp("10.0.0.1", 1, "10.0.0.1", 1)], 200) == ["default"]
    for now_s in range(201, 300):  # a sweep looks at some slots each time
        verdicts(runner, [], now_s)
    assert verdicts(runner, [tcp(*back)], 300) == ["default"]


def test_syn_on_closed_connection_is_judged_again() -> None:
    runner = runner_of(**ONLY_WEB)
    out, back = ("10.0.0.1", 999, "10.0.0.2", 80), ("10.0.0.2", 80, "10.0.0.1", 999)
    verdicts(runner, [tcp(*out, SYN), tcp(*back, RST | ACK)])
    assert verdicts(runner, [tcp(*back, ACK)]) == [None]
    verdicts(runner, [tcp(*back, RST)])
    assert verdicts(runner, [tcp(*back, SYN), tcp(*back, ACK)]) == ["default", "default"]


@pytest.mark.parametrize(("a", "b"), [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")])
def test_error_about_connection_passes(a: str, b: str) -> None:
    runner = runner_of(**ONLY_WEB)
    packet = tcp(a, 9, b, 80)
    assert verdicts(runner, [unreachable(b, a, packet)]) == ["default"]
    assert verdicts(runner, [packet, unreachable(b, a, packet)]) == [None, None]


def test_fragments() -> None:
    later = ip("10.0.0.1", "10.0.0.2", 6, bytes(8), fragment=2)
    overwriting = ip("10.0.0.1", "10.0.0.2", 6, bytes(8), fragment=1)
    assert verdicts(runner_of(), [later, overwriting]) == [None, "fragment"]
    assert verdicts(runner_of(fragments="drop"), [later, overwriting]) == ["fragment"] * 2


def test_full_table_drops_new_connections_only() -> None:
    runner = runner_of(**ONLY_WEB, max_connections=8)
    frames = [tcp("10.0.0.1", i, "10.0.0.2", 80) for i in range(10)]
    assert verdicts(runner, frames) == [None] * 8 + ["table_full"] * 2
    assert verdicts(runner, frames[:8]) == [None] * 8


def test_rule_hits_are_counted() -> None:
    kernel = make_kernel(load(ONLY_WEB | {"stateful": False}))
    verdicts(KernelRunner(kernel), [tcp("10.0.0.1", 1, "10.0.0.2", 80)] * 3)
    assert rule_hits(kernel, 1) == [3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"default": "x"}, "fw.toml: default: 'x': expected one of accept, drop"),
        ({"rules": [{"action": "drop", "src": "10.0.0.1/8"}]}, "fw.toml: rules[0].src: '10.0.0.1/8': expected a network"),
        ({"rules": [{"action": "drop", "dst_ports": "9-1"}]}, "fw.toml: rules[0].dst_ports: '9-1': expected"),
        ({"rules": [{"action": "drop", "protocol": 256}]}, "fw.toml: rules[0].protocol: 256: expected any"),
        ({"max_connections": 0}, "fw.toml: max_connections: 0: expected `int` >= 1"),
        ({"stateful": "yes"}, "fw.toml: stateful: 'yes': expected `bool`"),
        ({"rules": [{"action": "drop", "src": "::/0", "dst": "0.0.0.0/0"}]}, "fw.toml: rules[0]: expected src and dst"),
    ],
)  # fmt: skip
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="fw.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.0.1"])
ADDRESSES6 = st.sampled_from(["2001:db8::1", "2001:db8::2", "2001:db9::1"])
PORTS = st.sampled_from([0, 1, 80, 443])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    addresses = draw(st.sampled_from([ADDRESSES, ADDRESSES6]))
    a, b, p, q = draw(addresses), draw(addresses), draw(PORTS), draw(PORTS)
    kind = draw(st.integers(0, 7))
    if kind < 3:
        flags = draw(st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST]))
        made = tcp(a, p, b, q, flags)
    elif kind == 3:
        made = udp(a, p, b, q)
    elif kind == 4:
        made = echo(a, b, p, draw(st.sampled_from([8, 0, 128, 129, 13])))
    elif kind == 5:
        made = unreachable(b, a, draw(st.sampled_from([tcp(a, p, b, q), udp(a, p, b, q)])))
    elif kind == 6:
        made = ip(a, b, draw(st.integers(0, 255)), draw(st.binary(max_size=40)))
    else:
        made = ip(a, b, 6, draw(st.binary(max_size=40)), draw(st.integers(0, 3)))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(12, max(12, len(made) - 1)))
        made = made[:at] + draw(st.binary(min_size=1, max_size=1)) + made[at + 1 :]
    return made[: draw(st.integers(0, len(made)))] if draw(st.integers(0, 19)) == 0 else made


NETWORKS = st.sampled_from(
    [None, "10.0.0.0/16", "10.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::2/128", "::/0"]
)
PORT_RANGES = st.sampled_from(["0-65535", "80", "1-100", 443])
RULES = st.fixed_dictionaries(
    {"action": st.sampled_from(["accept", "drop"])},
    optional={
        "src": NETWORKS, "dst": NETWORKS, "src_ports": PORT_RANGES, "dst_ports": PORT_RANGES,
        "protocol": st.sampled_from(["any", "tcp", "udp", "icmp", "icmpv6", 0]),
    },
)  # fmt: skip
BURSTS = st.lists(
    st.tuples(st.sampled_from([0, 1, 50, 200, 400]), st.lists(frames(), max_size=40)), max_size=4
)


@settings(max_examples=150)
@given(
    rules=st.lists(RULES, max_size=6),
    default=st.sampled_from(["accept", "drop"]),
    stateful=st.booleans(),
    fragments=st.sampled_from(["pass", "drop"]),
    bursts=BURSTS,
)
def test_kernel_agrees_with_model(
    rules: list, default: str, stateful: bool, fragments: str, bursts: list
) -> None:
    families = [{":" in str(r.get(k)) for k in ("src", "dst") if r.get(k)} for r in rules]
    rules = [r for r, family in zip(rules, families, strict=True) if len(family) < 2]
    config = load(
        {
            "rules": rules,
            "default": default,
            "stateful": stateful,
            "fragments": fragments,
            "max_connections": 16,
            "tcp_established_s": 300,
            "tcp_transitory_s": 100,
        }
    )
    runner, model, now_s = KernelRunner(make_kernel(config)), FirewallModel(config), 1
    for step, burst in bursts:
        now_s += step
        runner.run([], now_s * NS)
        model.expire(now_s * NS)
        expected = [model.judge(data, now_s * NS) for data in burst]
        assert verdicts(runner, burst, now_s) == expected


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=120), max_size=8), st.sampled_from([b"\x08\x00E", b"\x86\xdd`"]))
def test_garbage_is_survived(tails: list[bytes], head: bytes) -> None:
    runner = GARBAGE_RUNNER
    burst = [bytes(12) + head + tail for tail in tails]
    model = FirewallModel(load({}))
    assert verdicts(runner, burst) == [model.judge(data, 0) for data in burst]


GARBAGE_RUNNER = runner_of()


def test_connections_go_to_another_instance() -> None:
    first, second = (make_kernel(load(ONLY_WEB)) for _ in range(2))
    out, back = ("10.0.0.1", 999, "10.0.0.2", 80), ("10.0.0.2", 80, "10.0.0.1", 999)
    verdicts(KernelRunner(first), [tcp(*out, SYN), tcp(*back, SYN | ACK)])
    successor = KernelRunner(second)
    assert verdicts(successor, [tcp(*back)]) == ["default"]
    restore(second, save(first, NS), NS)
    assert verdicts(successor, [tcp(*back), tcp(*out)]) == [None, None]
    for now_s in range(2, 400):  # established: it outlives the transitory idle time
        verdicts(successor, [], now_s)
    assert verdicts(successor, [tcp(*back)], 400) == [None]


def test_connections_that_do_not_fit_change_nothing() -> None:
    first, small = (
        make_kernel(load(ONLY_WEB)),
        make_kernel(load({**ONLY_WEB, "max_connections": 1})),
    )
    runner = KernelRunner(first)
    verdicts(runner, [tcp("10.0.0.1", port, "10.0.0.2", 80, SYN) for port in (1, 2)])
    with pytest.raises(NativeError, match="take over 2 connections"):
        restore(small, save(first, NS), NS)
    with pytest.raises(NativeError, match="Invalid argument"):
        restore(small, save(first, NS)[1:], NS)
    assert save(small, NS) == b""


def test_firewall_that_tracks_nothing_has_no_state() -> None:
    passes = make_kernel(load({}))
    verdicts(KernelRunner(passes), [udp("10.0.0.1", 1, "10.0.0.2", 2)])
    assert save(passes, NS) == b""
    restore(passes, b"", NS)
