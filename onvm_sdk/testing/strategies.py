"""Hypothesis strategies: addresses, flows and packets that NFs may meet.

@given(packets(flows(protocols=[UDP])))
def test_survives(frame): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import strategies as st

from onvm_sdk.five_tuple import FiveTuple
from onvm_sdk.testing import frames

__all__ = ["addresses", "broken", "conversations", "flows", "packets"]

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
_PORTS = st.one_of(st.integers(0, 65535), st.sampled_from([0, 53, 80, 443, 65535]))


def addresses(version: int = 4) -> st.SearchStrategy[str]:
    """Unicast addresses as text.

    Args:
        version: 4 or 6.
    """
    numbers: st.SearchStrategy[IPv4Address | IPv6Address]
    if version == 4:
        numbers = st.integers(0x01000000, 0xDFFFFFFF).map(IPv4Address)
    else:
        numbers = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)
    return numbers.map(str)


@st.composite
def flows(
    draw: st.DrawFn,
    *,
    versions: Sequence[int] = (4, 6),
    protocols: Sequence[int] = (TCP, UDP),
) -> FiveTuple:
    """5-tuples of both versions of IP, with ports.

    Args:
        versions: 4, 6 or both.
        protocols: TCP, UDP or both.
    """
    version = draw(st.sampled_from(versions))
    return FiveTuple.make(
        draw(addresses(version)),
        draw(_PORTS),
        draw(addresses(version)),
        draw(_PORTS),
        draw(st.sampled_from(protocols)),
    )


@st.composite
def packets(
    draw: st.DrawFn, flow: st.SearchStrategy[FiveTuple] | None = None, *, payload_max: int = 64
) -> bytes:
    """Ethernet frames with correct lengths and checksums.

    Args:
        flow: flows that they belong to; None: any.
        payload_max: most bytes behind the transport header.
    """
    one = draw(flows() if flow is None else flow)
    payload = draw(st.binary(max_size=payload_max))
    ends = (str(ip_address(one.src)), one.src_port, str(ip_address(one.dst)), one.dst_port)
    if one.protocol == UDP:
        return frames.udp(*ends, payload)
    flags = draw(st.sampled_from([frames.SYN, frames.ACK, frames.FIN | frames.ACK, frames.RST]))
    return frames.tcp(*ends, flags, payload, seq=draw(st.integers(0, 2**32 - 1)))


@st.composite
def conversations(
    draw: st.DrawFn, flow: st.SearchStrategy[FiveTuple] | None = None, *, packets_max: int = 8
) -> list[tuple[bool, bytes]]:
    """Packets of one flow and its reverse, in some order.

    Returns:
        Each packet, and before it True if it travels backwards, as for ``reverse`` of
        ``Runner.run``.
    """
    one = draw(flows() if flow is None else flow)
    ways = draw(st.lists(st.booleans(), min_size=1, max_size=packets_max))
    return [
        (backwards, draw(packets(st.just(one.reversed() if backwards else one))))
        for backwards in ways
    ]


@st.composite
def broken(draw: st.DrawFn, frame: st.SearchStrategy[bytes] | None = None) -> bytes:
    """Frames that are cut, or have wrong bytes behind their Ethernet header."""
    whole = bytearray(draw(packets() if frame is None else frame))
    for _ in range(draw(st.integers(0, 3))):
        whole[draw(st.integers(12, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.integers(0, len(whole)))])
