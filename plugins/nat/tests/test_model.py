# SPDX-License-Identifier: Apache-2.0
"""The kernel does as the model does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from nat_bed import (
    I1,
    I2,
    KEY,
    NO_HOSTS,
    NS,
    O1,
    O2,
    REASONS,
    E,
    Nat,
    tagged,
)
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel, save, set_mtu, set_routed
from onvm_nf_nat.model import Drop, NatModel

from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, icmp_error, ip, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, KernelRunner, Packet

FORWARDS = [
    {"protocol": "tcp", "port": 2001, "inside": "10.0.0.1", "inside_port": 2},
    {"protocol": "udp", "port": 2002, "inside": "10.0.0.2", "inside_port": 2001},
]
PORTS = st.sampled_from([1, 2, 3, 2000, 2001, 2002])
E2 = "192.0.2.2"
INSIDE, OUTSIDE = st.sampled_from([I1, I2, "172.16.0.1"]), st.sampled_from([O1, O2, E, E2])


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    reverse = draw(st.booleans())
    a, b = draw(INSIDE), draw(OUTSIDE)
    if draw(st.integers(0, 19)) == 0:
        b = draw(st.sampled_from(NO_HOSTS))
    if reverse:
        a, b = draw(OUTSIDE), draw(st.sampled_from([E, E, E, E2, I1, "172.16.0.1"]))
    p, q = draw(PORTS), draw(PORTS)
    kind = draw(st.integers(0, 9))
    if kind < 4:
        made = tcp(a, p, b, q, draw(st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST])))
    elif kind < 6:
        made = udp(a, p, b, q, draw(st.binary(max_size=3)))
        if draw(st.integers(0, 4)) == 0:  # DF, and more than the MTU
            made = ip(a, b, 17, made[34:] + bytes(600), draw(st.sampled_from([0, 0x4000])))
    elif kind == 6:
        made = echo(a, b, p, draw(st.sampled_from([8, 0, 13, 14, 5])))
    elif kind < 9:
        inner = draw(
            st.sampled_from([tcp(b, p, a, q), udp(b, p, a, q), echo(b, a, p), echo(b, a, p, 13)])
        )
        error = draw(st.sampled_from([3, 11, 12, 5]))
        made = icmp_error(a, b, inner, error, draw(st.integers(18, 48)))
    else:
        made = ip(
            a,
            b,
            draw(st.sampled_from([6, 17, 1, 47])),
            draw(st.binary(max_size=30)),
            draw(st.sampled_from([0, 1, 4, 0x2000, 0x2001])),
        )
    if draw(st.integers(0, 4)) == 0:
        made = tagged(
            made, *draw(st.sampled_from([(1,), (2,), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5)]))
        )
    if draw(st.integers(0, 19)) == 0:
        made = made[: draw(st.integers(0, len(made)))]
    return Packet(made, reverse, port=1)


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "external": st.sampled_from([E, [E, E2]]),
            "ports": st.sampled_from(["2000-2002", "1020-2029", "1-65535"]),
            "max_per_subscriber": st.sampled_from([0, 2, 1000]),
            "port_rest_s": st.sampled_from([0, 120]),
            "inside": st.sampled_from([[], ["10.0.0.0/8"]]),
            "filtering": st.sampled_from(
                ["endpoint-independent", "address-dependent", "address-and-port-dependent"]
            ),
            "preserve_parity": st.booleans(),
            "preserve_port": st.booleans(),
            "inbound_refresh": st.booleans(),
            "max_sessions": st.sampled_from([3, 8, 64]),
            "forward": st.sampled_from([[], FORWARDS]),
            "icmp_errors_per_s": st.sampled_from([0, 100_000]),
        }
    ),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 6, 70, 130, 250, 400, 7440]), st.lists(packets(), max_size=40)
        ),
        max_size=5,
    ),
    st.booleans(),
    st.sampled_from([0, 600]),
)
def test_kernel_agrees_with_model(values: dict, bursts: list, is_routed: bool, mtu: int) -> None:
    config = load(values)
    kernel, model, now_s = make_kernel(config, KEY), NatModel(config, KEY), 1
    set_routed(kernel, is_routed)
    set_mtu(kernel, mtu)
    model.is_routed, model.mtu = is_routed, mtu
    runner = KernelRunner(kernel, nb_loaned=64)
    runner.run([], now_s * NS)
    for step, burst in bursts:
        now_s += step
        done = runner.run(burst, now_s * NS)
        model.sent.clear()
        model.answer_unsolicited(now_s * NS)
        for packet, result in zip(burst, done, strict=True):
            try:
                expected = model.translate(packet.data, packet.reverse, now_s * NS)
            except Drop as drop:
                assert result.verdict == DROP
                assert REASONS[result.destination] == drop.args[0]
                continue
            verdict, port = (OUT, 1) if expected.is_hairpin else (NEXT, 0)
            assert (result.verdict, result.destination) == (verdict, port)
            assert result.data == expected.data
        assert [packet.data for packet in runner.originated] == model.sent
        model.expire(now_s * NS)
        assert len(save(kernel, now_s * NS)) == 32 * sum(map(len, model.table.queues.values()))


@settings(max_examples=120)
@given(st.lists(st.tuples(st.binary(max_size=120), st.booleans()), max_size=8))
def test_garbage_is_survived(tails: list) -> None:
    for result in GARBAGE.runner.run(
        [Packet(bytes(12) + b"\x08\x00E" + tail, reverse) for tail, reverse in tails]
    ):
        assert result.verdict in (NEXT, DROP, OUT)


GARBAGE = Nat()
