# SPDX-License-Identifier: Apache-2.0
"""The whole language of rules: the C kernel against the model on random rules and packets."""

from __future__ import annotations

from typing import Any

from firewall_case import NS, PORTS, REASONS, REJECTED
from firewall_frames import frames
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import bind_ports, make_kernel, rule_hits
from onvm_nf_firewall.model import FirewallModel

from onvm_sdk.errors import ConfigError
from onvm_sdk.testing.kernel import DROP, MERGED, OUT, PARTIAL, KernelRunner, Packet

MANY = [f"10.0.{i}.{j}" for i in (0, 3) for j in range(1, 128, 2)]
SETS = {"few": ["10.0.0.1", "2001:db8::/127"], "many": [*MANY, "2001:db9::1"], "none": []}


def some(*values: Any) -> Any:
    """One of the values, a list of some, or the same negated."""
    one = st.sampled_from(values)
    negated = st.sampled_from([f"!{value}" for value in values])
    return st.one_of(
        one,
        st.lists(one, min_size=1, max_size=3),
        negated,
        st.lists(negated, min_size=1, max_size=2),
    )


ADDRESSES = some("10.0.0.0/16", "10.0.0.1", "10.0.0.1-10.0.0.9", "2001:db8::/32", "@few", "@many",
                 "2001:db8::1-2001:db8::2")  # fmt: skip
PORT_RANGES = some(80, "1-100", "443,80", "0-79")
LIMITS = st.one_of(
    st.sampled_from(["1/second", "2/minute"]),
    st.fixed_dictionaries(
        {"rate": st.sampled_from(["1/second", "3/minute", "1/hour"])},
        optional={
            "burst": st.sampled_from([1, 2]),
            "per": st.sampled_from(["rule", "source", "destination"]),
            "above": st.booleans(),
        },
    ),
)
CHAINS = ["a", "b", "c"]
FIELDS = {
    "from": st.sampled_from(["any", "near", "far"]),
    "src": ADDRESSES,
    "dst": ADDRESSES,
    "protocol": some("tcp", "UDP", "icmp", "58", 47),
    "src_ports": PORT_RANGES,
    "dst_ports": PORT_RANGES,
    "in": some("lan", "wan", "wan*"),
    "out": some("lan", "wan"),
    "flags": some("syn", "syn/syn,ack", "none/all", "rst,ack/rst,ack"),
    "icmp": some("echo-request", "8", "3/1", "destination-unreachable", "128", "redirect", "2"),
    "state": some("new", "invalid", "established"),
    "vlan": some("none", 10, "1-20", "11-4000"),
    "mac": some("02:00:00:00:00:01", "02:00:00:00:00:02"),
    "cast": some("unicast", "broadcast", "multicast"),
    "fragment": st.booleans(),
    "limit": LIMITS,
}


@st.composite
def rules(draw: st.DrawFn, chains: list[str]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
    rule = {name: draw(FIELDS[name]) for name in names}
    actions = ["accept", "accept", "drop", "reject", "log", "count", "return", "jump", "goto"]
    rule["action"] = draw(st.sampled_from(actions if chains else actions[:-2]))
    if rule["action"] in ("jump", "goto"):
        rule["chain"] = draw(st.sampled_from(chains))
    if rule["action"] == "reject":
        rule["reject"] = draw(st.sampled_from(["auto", "port", "host", "net", "admin"]))
    return rule


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    chains: dict[str, list[dict[str, Any]]] = {}
    for name in CHAINS:
        chains[name] = draw(st.lists(rules(list(chains)), max_size=4))
    return {
        "default": draw(st.sampled_from(["accept", "drop"])),
        "rules": draw(st.lists(rules(CHAINS), max_size=8)),
        "chains": chains,
        "sets": SETS,
        "egress": draw(st.sampled_from([{}, {"lan": "wan"}, {"lan": "wan", "wan": "lan"}])),
        "max_connections": draw(st.sampled_from([3, 16])),
        "max_limited": draw(st.sampled_from([1, 16])),
        "stateful": draw(st.sampled_from([True, True, False])),
        "reject_rate": draw(st.sampled_from([0, 1, 1000])),
        "ndp": draw(st.sampled_from(["pass", "rules"])),
        "fragments": draw(st.sampled_from(["pass", "drop"])),
    }


BURSTS = st.lists(
    st.tuples(
        st.sampled_from([0.25, 1, 20, 50, 400]),
        st.lists(
            st.tuples(
                frames(),
                st.booleans(),
                st.sampled_from([0, 0, PARTIAL, MERGED | PARTIAL]),
                st.sampled_from([0, 1, 2, 5, 7]),
                st.sampled_from([b"", b"\xff" * 6, b"\x01\0\x5e\0\0\1"]),
            ),
            max_size=24,
        ),
    ),
    max_size=4,
)


def possible(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out rules that nothing can match, which are refused."""

    def keep(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = []
        for rule in listed:
            try:
                load({**options, "rules": [rule], "chains": {key: [] for key in CHAINS}})
            except ConfigError:
                continue
            kept.append(rule)
        return kept

    chains = {name: keep(chain) for name, chain in options["chains"].items()}
    return {**options, "rules": keep(options["rules"]), "chains": chains}


@settings(max_examples=120, deadline=None)
@given(options=configs(), bursts=BURSTS)
def test_kernel_agrees_with_model(options: dict[str, Any], bursts: list[Any]) -> None:
    config = load(possible(options))
    kernel, model, now_ns = make_kernel(config), FirewallModel(config), NS
    bind_ports(kernel, PORTS, config.settings.egress)
    runner = KernelRunner(kernel)
    for step, burst in bursts:
        now_ns += int(step * NS)
        runner.run([], now_ns)
        model.expire(now_ns)
        packets = [
            Packet(cast + data[len(cast) :] if len(data) > 14 else data, reverse, port, flags=flags)
            for data, reverse, flags, port, cast in burst
        ]
        done = runner.run(packets, now_ns)
        for sent, got in zip(packets, done, strict=True):
            expected = model.judge(
                sent.data, now_ns, reverse=sent.reverse, partial=bool(sent.flags & PARTIAL),
                merged=bool(sent.flags & MERGED), port=PORTS.get(sent.port, ""),
            )  # fmt: skip
            reason = REASONS[got.destination] if got.verdict == DROP else None
            assert (REJECTED if got.verdict == OUT else reason) == expected
            assert got.data == (model.answer if got.verdict == OUT else sent.data)
    assert rule_hits(kernel, len(model.rules.hits)) == model.rules.hits
