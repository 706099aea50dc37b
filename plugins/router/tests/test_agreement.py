# SPDX-License-Identifier: Apache-2.0
"""The C kernel does what the model does, with random packets."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_router.model import Arrived
from router_case import (
    HOST_MACS,
    HOST_PORT,
    MACS,
    NS,
    PORTS,
    VLAN,
    Router,
    arp,
    last,
    ndp,
    tagged,
    to_router,
)

from onvm_sdk.testing.frames import ACK, SYN, echo, icmp_error, ip, tcp, udp

ADDRESSES = (
    "10.0.0.5", "10.0.0.6", "10.0.0.1", "198.51.100.9", "198.51.100.1", "198.51.100.20",
    "192.0.2.9", "192.0.2.1", "8.8.8.8", "203.0.113.5", "203.0.113.200", "127.0.0.1", "224.0.0.5",
    "0.0.0.0",
)  # fmt: skip
ADDRESSES6 = (
    "2001:db8:1::5", "2001:db8:1::1", "2001:db8:2::9", "2001:db8:2::1", "2001:db8:3::9", "::1",
    "::", "2001:db8:ff::5", "fe80::5", "ff02::1", "ff02::1:ff00:1", "fe80::ff:fe00:103",
)  # fmt: skip


@st.composite
def packets(draw: st.DrawFn) -> Arrived:
    port = draw(st.sampled_from(PORTS))
    a, b = (draw(st.sampled_from(draw(st.just(ADDRESSES)))) for _ in range(2))
    c, d = (draw(st.sampled_from(ADDRESSES6)) for _ in range(2))
    size = draw(st.sampled_from((0, 1, 20, 560, 700, 1400)))
    kind = draw(st.integers(0, 9))
    src, dst = (a, b) if draw(st.booleans()) else (c, d)
    if kind == 0:
        frame = arp(port, draw(st.integers(1, 3)), a, b, HOST_MACS[draw(st.sampled_from(PORTS))])
    elif kind == 1:
        frame = ndp(port, draw(st.sampled_from((135, 136, 133))), c, d)
    elif kind == 2:
        frame = to_router(port, echo(src, dst, size))
    elif kind == 3:
        flags = draw(st.sampled_from((0, 0x4000, 0x2000, 0x2005, 5)))
        options = draw(st.sampled_from((b"", b"\7\3\4\1", bytes([0x94, 4, 0, 0]), b"\7\0\0\0")))
        frame = ip(a, b, draw(st.sampled_from((17, 6, 1, 99))), bytes(size), flags, options=options)
        frame = to_router(port, frame)
    elif kind == 4:
        about = udp(dst, 4, src, 5)
        frame = to_router(port, icmp_error(src, dst, about), draw(st.integers(0, 2)))
    elif kind == 5:
        options = draw(st.sampled_from((b"\2\4\5\xb4", b"\1\2\4\5\xb4\1\1\1", b"\5\0\1\1")))
        head = struct.pack("!HHIIBBHHH", 5, 6, 1, 1, 5 + len(options) // 4 << 4, SYN, 512, 0, 0)
        frame = to_router(port, ip(src, dst, 6, head + options))
    else:
        make = draw(st.sampled_from((tcp, udp)))
        payload = bytes(size)
        sport = draw(st.integers(1, 9))
        frame = (
            make(src, sport, dst, 80, ACK, payload)
            if make is tcp
            else make(src, sport, dst, 80, payload)
        )
        frame = to_router(port, frame, draw(st.sampled_from((0, 1, 2, 64))))
    if draw(st.integers(0, 3)) == 0:
        frame = tagged(frame, draw(st.sampled_from((0, VLAN, 11))))
    if draw(st.integers(0, 3)) == 0 and frame:
        at = draw(st.integers(0, len(frame) - 1))
        frame = frame[:at] + draw(st.binary(min_size=1, max_size=2)) + frame[at + 1 :]
    if draw(st.integers(0, 7)) == 0:
        frame = frame[: draw(st.integers(0, len(frame)))]
    return Arrived(frame, port, buffer=draw(st.integers(0, 5)))


@settings(max_examples=30)
@given(
    alone=st.booleans(),
    clamp=st.booleans(),
    bursts=st.lists(
        st.tuples(st.lists(packets(), max_size=6), st.sampled_from((0, 50, 100, 1000, 31_000))),
        max_size=8,
    ),
    known=st.booleans(),
    has_host=st.booleans(),
)
def test_kernel_agrees_with_model(
    alone: bool,
    clamp: bool,
    bursts: list[tuple[list[Arrived], int]],
    known: bool,
    has_host: bool,
) -> None:
    modes = {"lan": {"reverse_path": "strict"}, "wan": {"advertise": True}}
    router = Router(clamp_mss=clamp, interfaces=modes if clamp else {})
    router.change(*PORTS, slow_port=HOST_PORT if has_host else None)
    if known:
        router.meet()
    for burst, wait_ms in bursts:
        router.now_ns += wait_ms * NS // 1000
        done = router.run(*(replace(packet, last=alone) for packet in burst))
        router.run(
            *(
                last(one.data, packet.port, packet.buffer)
                for one, packet in zip(done, burst, strict=True)
                if one.out is None and not one.reason
            )
        )


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=120), max_size=5), st.sampled_from(PORTS))
def test_kernel_agrees_with_model_on_noise(frames: list[bytes], port: int) -> None:
    router = Router()
    router.run(*(Arrived(frame, port) for frame in frames))
    router.run(*(Arrived(MACS[port] + HOST_MACS[port] + frame[12:], port) for frame in frames))
    router.run(*(last(frame, port) for frame in frames))
