# SPDX-License-Identifier: Apache-2.0
"""Pairs of addresses that stand for each other, for all protocols."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_bed import I1, I2, KEY, NS, O1, REASONS, E, Nat, fragments, passed, src, tagged, turned
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel, set_routed
from onvm_nf_nat.model import Drop, NatModel

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.testing.frames import ACK, echo, icmp_error, ip, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, KernelRunner, Packet

P1, P2, X1, X2 = "10.0.1.1", "10.0.1.2", "192.0.2.11", "192.0.2.12"
PAIRS = [{"inside": P1, "external": X1}, {"inside": P2, "external": X2}]


def paired(**config: object) -> Nat:
    return Nat(one_to_one=PAIRS, **config)


def udplite(a: str, b: str) -> bytes:
    """UDP-Lite whose checksum covers its header alone (RFC 3828)."""
    l4 = struct.pack("!HHHH", 5, 6, 8, 0) + b"data"
    pseudo = read_headers(udp(a, 1, b, 2))
    value = checksum(pseudo.src + pseudo.dst + struct.pack("!HH", 136, len(l4)) + l4[:8])
    return ip(a, b, 136, l4[:6] + value.to_bytes(2, "big") + l4[8:])


MAKERS = {
    "udp": lambda a, b: udp(a, 5, b, 6, b"data"),
    "tcp": lambda a, b: tcp(a, 5, b, 6, ACK, b"data"),
    "echo": lambda a, b: echo(a, b, 7),
    "udplite": udplite,
    "sctp": lambda a, b: ip(a, b, 132, struct.pack("!HHII", 5, 6, 1, 0xDEADBEEF) + bytes(20)),
    "gre": lambda a, b: ip(a, b, 47, bytes.fromhex("3001880b00040001") + b"ppp."),  # PPTP
    "esp": lambda a, b: ip(a, b, 50, bytes(32)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("vlans", [(), (5,)])
def test_every_protocol_passes_both_ways(kind: str, vlans: tuple[int, ...]) -> None:
    nat, make = paired(), MAKERS[kind]
    assert passed(nat, tagged(make(O1, X1), *vlans), True) == tagged(make(O1, P1), *vlans)
    assert passed(nat, tagged(make(P1, O1), *vlans)) == tagged(make(X1, O1), *vlans)
    assert nat.count("sessions_opened") == 0
    assert nat.dropped(make(O1, P1)) == "no_mapping", "not by its inside address"


@pytest.mark.parametrize("kind", MAKERS)
def test_pairs_reach_each_other_by_external_addresses(kind: str) -> None:  # RFC 5508 REQ-7
    nat, make = paired(), MAKERS[kind]
    done = nat._run(make(P1, X2), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(make(X1, P2))
    set_routed(nat.kernel, True)
    assert passed(nat, make(P1, X2)) == make(X1, P2)


def test_pairs_and_the_pool_reach_each_other() -> None:  # RFC 4787 REQ-9
    nat = paired()
    port = src(nat.out(udp(I1, 5000, O1, 80)))[1]
    done = nat._run(udp(I1, 5000, X1, 80), False)
    assert done.data == turned(udp(E, port, P1, 80))
    back = nat._run(udp(P1, 80, E, port), False)
    assert (back.verdict, back.data) == (OUT, turned(udp(X1, 80, I1, 5000)))
    about = udp(E, port, P1, 80)
    error = nat._run(icmp_error(P1, E, about), False)
    assert error.data == turned(icmp_error(X1, I1, udp(I1, 5000, X1, 80)))
    assert nat.dropped(echo(P1, E, port), reverse=False) == "no_mapping"
    assert nat.dropped(MAKERS["gre"](P1, E), reverse=False) == "protocol"


@pytest.mark.parametrize("kind", MAKERS)
def test_errors_name_the_addresses_of_their_side(kind: str) -> None:  # RFC 5508 REQ-4, REQ-5c
    nat, make = paired(), MAKERS[kind]
    assert passed(nat, icmp_error("203.0.113.9", X1, make(X1, O1)), True) == icmp_error(
        "203.0.113.9", P1, make(P1, O1)
    )
    assert passed(nat, icmp_error(P1, O1, make(O1, P1))) == icmp_error(X1, O1, make(O1, X1))


def test_fragments_come_in_any_order() -> None:  # RFC 4787 REQ-14
    nat = paired()
    l4 = struct.pack("!HHHH", 5, 6, 8 + 32, 0) + bytes(range(32))
    out = [passed(nat, one) for one in reversed(fragments(P1, O1, 17, l4, 7))]
    assert out[:-1] == list(reversed(fragments(X1, O1, 17, l4, 7)))[:-1]
    assert read_headers(out[-1]).src == read_headers(udp(X1, 1, O1, 1)).src
    gre = fragments(O1, X1, 47, bytes(40), 9)
    assert [passed(nat, one, True) for one in reversed(gre)] == list(
        reversed(fragments(O1, P1, 47, bytes(40), 9))
    )


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((P1, "x"), "one_to_one[0].external: 'x': expected an IPv4 address"),
        ((P1, "127.0.0.1"), "one_to_one[0].external: '127.0.0.1': expected the address of one"),
        ((P1, E), f"one_to_one[0].external: '{E}': expected an address that is neither inside"),
        ((P1, P2), f"one_to_one[0].external: '{P2}': expected an address that is neither"),
        ((O1, X1), f"one_to_one[0].inside: '{O1}': expected an address of `inside`"),
    ],
)
def test_mistakes_in_pairs(pair: tuple[str, str], message: str) -> None:
    one = {"inside": pair[0], "external": pair[1]}
    with pytest.raises(ConfigError) as caught:
        load({"external": E, "inside": ["10.0.0.0/8"], "one_to_one": [one]})
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match="in no pair before"):
        load({"one_to_one": PAIRS[:1] * 2})


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    reverse = draw(st.booleans())
    inside, outside = st.sampled_from([I1, I2, P1, P2]), st.sampled_from([O1, E, X1, X2])
    a, b = draw(inside), draw(outside)
    if reverse:
        a, b = draw(st.sampled_from([O1, P1])), draw(st.sampled_from([E, X1, X2, P1]))
    made = draw(st.sampled_from(list(MAKERS.values())))(a, b)
    kind = draw(st.integers(0, 4))
    if kind == 0:
        made = icmp_error(a, b, draw(st.sampled_from(list(MAKERS.values())))(b, a))
    elif kind == 1:
        made = ip(
            a, b, draw(st.sampled_from([6, 17, 1, 47, 132])), draw(st.binary(max_size=30)),
            draw(st.sampled_from([0, 1, 0x2000])),
        )  # fmt: skip
    return Packet(made, reverse, port=1)


@settings(max_examples=100, deadline=None)
@given(st.lists(packets(), max_size=40), st.booleans(), st.sampled_from([[], ["10.0.0.0/8"]]))
def test_kernel_agrees_with_model(burst: list[Packet], is_routed: bool, inside: list) -> None:
    config = load({"one_to_one": PAIRS, "inside": inside, "ports": "1-12", "icmp_errors_per_s": 0})
    kernel, model = make_kernel(config, KEY), NatModel(config, KEY)
    set_routed(kernel, is_routed)
    model.is_routed = is_routed
    for packet, result in zip(burst, KernelRunner(kernel).run(burst, NS), strict=True):
        try:
            expected = model.translate(packet.data, packet.reverse, NS)
        except Drop as drop:
            assert (result.verdict, REASONS[result.destination]) == (DROP, drop.args[0])
            continue
        verdict, port = (OUT, 1) if expected.is_hairpin else (NEXT, 0)
        assert (result.verdict, result.destination) == (verdict, port)
        assert result.data == expected.data
