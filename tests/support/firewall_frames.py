# SPDX-License-Identifier: Apache-2.0
"""Random frames that a firewall may meet, as strategies of hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, ip, tcp, udp
from onvm_sdk.testing.frames import icmp_error as unreachable

__all__ = ["frames"]

ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.0.1"])
ADDRESSES6 = st.sampled_from(["2001:db8::1", "2001:db8::2", "2001:db9::1"])
PORTS = st.sampled_from([0, 1, 80, 443])
FLAGS = st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, ACK | 8, 0, SYN | FIN])
NUMBERS = st.sampled_from([1, 99, 100, 101, 102, 200, 201, 202, 613, 70_000, 2**31, 2**32 - 1])
OPTIONS = st.sampled_from(
    [b"", b"\x01\x03\x03\x02", b"\x03\x03\x0f\x00", b"\x02\x04\x05\xb4", b"\x03\xff\0\0"]
)
TYPES = st.sampled_from([8, 0, 13, 14, 5, 3, 128, 129, 135, 137, 1])
EXTENSIONS = st.sampled_from(
    [b"", b"\x2b\x00\x00\x00\0\0\0\0", b"\x2c\x00\x00\x01\0\0\0\1", b"\x2c\x00\x00\x08\0\0\0\1"]
)


@st.composite
def segments(draw: st.DrawFn, a: str, p: int, b: str, q: int) -> bytes:
    """A segment that may fit into a connection."""
    return tcp(
        a, p, b, q, draw(FLAGS), draw(st.sampled_from([b"", b"x", bytes(600)])),
        seq=draw(NUMBERS), ack=draw(NUMBERS), window=draw(st.sampled_from([0, 1, 512, 65535])),
        options=draw(OPTIONS), fragment=draw(st.sampled_from([0] * 9 + [0x2000])),
    )  # fmt: skip


@st.composite
def extended(draw: st.DrawFn, made: bytes) -> bytes:
    """An IPv6 packet behind an extension header."""
    header = draw(EXTENSIONS)
    if not header or made[12:14] != b"\x86\xdd":
        return made
    length = (int.from_bytes(made[18:20], "big") + 8).to_bytes(2, "big")
    head = made[:18] + length + header[:1] + made[21:54]
    return head + made[20:21] + header[1:] + made[54:]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    addresses = draw(st.sampled_from([ADDRESSES, ADDRESSES6]))
    a, b, p, q = draw(addresses), draw(addresses), draw(PORTS), draw(PORTS)
    kind = draw(st.integers(0, 8))
    if kind < 4:
        made = draw(segments(a, p, b, q))
    elif kind == 4:
        made = udp(a, p, b, q)
    elif kind == 5:
        made = echo(a, b, p, draw(TYPES))
    elif kind == 6:
        about = draw(
            st.one_of(
                segments(a, p, b, q), st.just(udp(a, p, b, q)), st.just(echo(a, b, p, draw(TYPES)))
            )
        )
        made = unreachable(b, draw(st.sampled_from([a, a, b])), draw(extended(about)), size=96)
    elif kind == 7:
        made = ip(a, b, draw(st.integers(0, 255)), draw(st.binary(max_size=40)))
    else:
        fragment = draw(st.sampled_from([0, 1, 2, 5, 6, 0x2000, 0x2001, 0x2003]))
        made = ip(a, b, draw(st.sampled_from([6, 17, 47])), draw(st.binary(max_size=48)), fragment)
    return draw(mangled(draw(extended(made))))


@st.composite
def mangled(draw: st.DrawFn, made: bytes) -> bytes:
    """Some with VLAN tags, options, a wrong byte, or cut."""
    if draw(st.integers(0, 7)) == 0:
        made = made[:12] + b"\x81\x00\x00\x0a" * draw(st.integers(1, 5)) + made[12:]
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(12, max(12, len(made) - 1)))
        made = made[:at] + draw(st.binary(min_size=1, max_size=1)) + made[at + 1 :]
    return made[: draw(st.integers(0, len(made)))] if draw(st.integers(0, 19)) == 0 else made
