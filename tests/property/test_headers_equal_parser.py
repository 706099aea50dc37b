# SPDX-License-Identifier: Apache-2.0
"""onvm_sdk.headers, which the plugins' models stand on, reads what parse.h reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapReader
from shared_data import need_data

from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import echo, icmp_error, ip, tcp, udp

FIELDS = (
    "l3_offset",
    "l4_offset",
    "l4_length",
    "src_port",
    "dst_port",
    "fragment_offset",
    "protocol",
    "tcp_flags",
    "more_fragments",
    "has_ports",
)
NATIVE: Any = ffi.new("struct onvm_headers *")


def native(frame: bytes) -> dict[str, Any]:
    lib.onvm_parse_frame(ffi.from_buffer("uint8_t[]", frame or b"\0"), len(frame), NATIVE)
    values = {name: getattr(NATIVE, name) for name in FIELDS}
    return values | {"l3": NATIVE.l3_status, "l4": NATIVE.l4_status, "version": NATIVE.ip_version}


def plain(frame: bytes) -> dict[str, Any]:
    h = read_headers(frame)
    names = (*FIELDS, "l3", "l4", "version")
    return {name: getattr(h, name) for name in names}


V4, V6 = ("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")
PROTOCOLS = st.sampled_from([0, 1, 6, 17, 33, 43, 44, 47, 51, 58, 59, 60, 132, 135, 136])


@st.composite
def extensions(draw: st.DrawFn) -> tuple[int, bytes]:
    """A chain of extension headers before a transport header: first protocol, bytes."""
    protocol, data = draw(PROTOCOLS), draw(st.binary(max_size=30))
    for _ in range(draw(st.integers(0, 18))):
        kind, words = draw(st.sampled_from([0, 43, 44, 51, 60, 135])), draw(st.integers(0, 2))
        size = 8 if kind == 44 else 4 * (words + 2) if kind == 51 else 8 * (words + 1)
        body = draw(st.binary(min_size=size - 2, max_size=size - 2))
        if kind == 44:
            body = bytes(1) + draw(st.sampled_from([b"\0\0", b"\0\1", b"\0\x08"])) + bytes(3)
        protocol, data = kind, bytes((protocol, words)) + body[: max(0, size - 2)] + data
    return protocol, data


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    a, b = draw(st.sampled_from([V4, V6]))
    made = draw(
        st.sampled_from([tcp(a, 1, b, 2), udp(a, 1, b, 2), echo(a, b, 3)])
        | st.just(icmp_error(a, b, udp(b, 1, a, 2)))
        | st.builds(
            ip,
            st.just(V4[0]),
            st.just(V4[1]),
            PROTOCOLS,
            st.binary(max_size=40),
            st.sampled_from([0, 0, 1, 0x2000, 0x4000]),
            options=st.sampled_from([b"", bytes(4), bytes(40)]),
        )
        | extensions().map(lambda pair: ip(*V6, *pair))
        | st.binary(max_size=80)
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 5]))):  # VLAN tags
        made = made[:12] + draw(st.sampled_from([b"\x81\0", b"\x88\xa8"])) + b"\0\7" + made[12:]
    for _ in range(draw(st.integers(0, 2))):  # mutations
        if made:
            at = draw(st.integers(0, min(len(made), 80) - 1))
            made = made[:at] + draw(st.binary(min_size=1, max_size=2)) + made[at + 1 :]
    return made[: draw(st.integers(0, len(made)))] if draw(st.integers(0, 3)) == 0 else made


@settings(max_examples=200)
@given(frames())
def test_same_reading_of_random_frames(frame: bytes) -> None:
    assert plain(frame) == native(frame)


@pytest.mark.once
def test_same_reading_of_captures() -> None:
    wrong: dict[str, Any] = {}
    for path in sorted(p for p in need_data("pcap").rglob("*") if p.is_file()):
        with RawPcapReader(str(path)) as reader:
            for number, (captured, _) in enumerate(reader):
                if number == 2000:  # long captures repeat themselves
                    break
                frame = bytes(captured)[:65000]
                if plain(frame) != native(frame):
                    wrong[f"{path.name}:{number}"] = (plain(frame), native(frame))
    assert not wrong, (len(wrong), dict(list(wrong.items())[:3]))
