# SPDX-License-Identifier: Apache-2.0
"""Fragments: addresses, protocol and the first fragment decide about the later ones."""

from __future__ import annotations

from firewall_case import WEB, A, B, FirewallCase

from onvm_sdk.testing.frames import SYN, ip, tcp, udp

X = "203.0.113.66"
A6, B6 = "2001:db8::1", "2001:db8::2"


def later(src: str = A, protocol: int = 17, offset: int = 6, size: int = 40) -> bytes:
    return ip(src, B, protocol, bytes(size), fragment=offset)


def first(src: str = A, port: int = 53, size: int = 40) -> bytes:
    return ip(src, B, 17, udp(src, 1, B, port, bytes(size))[34:], fragment=0x2000)


def test_address_rules_hold_for_later_fragments() -> None:
    firewall = FirewallCase(rules=[{"action": "drop", "src": f"{X}/32"}])
    assert firewall(later(X), later(A)) == ["rule", None]
    udp_only = FirewallCase(rules=[{"action": "drop", "src": f"{X}/32", "protocol": "udp"}])
    assert udp_only(later(X), later(X, 6)) == ["rule", None]


def test_unknown_later_fragments_do_as_configured() -> None:
    for option, reason in (("pass", None), ("drop", "fragment")):
        assert FirewallCase(fragments=option)(later()) == [reason]
        web = FirewallCase(**WEB, fragments=option)
        assert web(later(protocol=6)) == [reason], "a rule could accept its first fragment"
        assert web(later(protocol=17)) == ["default"], "no rule could"
    ports = [{"action": "drop", "dst_ports": 53}, {"action": "drop", "src": f"{X}/32"}]
    assert FirewallCase(rules=ports)(later(X), later()) == ["rule", None]


def test_first_fragment_decides() -> None:
    rules = [{"action": "accept", "protocol": "udp", "dst_ports": 53}]
    for option in ("pass", "drop"):
        firewall = FirewallCase(default="drop", rules=rules, fragments=option)
        assert firewall(first(port=53), later()) == [None, None]
        assert firewall(first(X, port=54), later(X)) == ["default", "fragment"]
    assert firewall(later(), t=32) == ["fragment"], "after 30 seconds it is forgotten"


def test_fragments_that_overwrite_are_dropped() -> None:
    """RFC 1858 section 3, RFC 5722."""
    overwriting = ip(A, B, 6, bytes(8), fragment=1)
    assert FirewallCase()(overwriting) == ["fragment"]
    assert FirewallCase()(first(size=40), later(offset=5), later(offset=6)) == [
        None,
        "fragment",
        None,
    ]


def fragment6(header: bytes, rest: bytes, offset: int, more: bool) -> bytes:
    fragment = header[:1] + b"\0" + (offset | more).to_bytes(2, "big") + b"\0\0\0\7"
    return ip(A6, B6, 44, fragment + rest)


def test_ports_behind_destination_options_are_not_overwritten() -> None:
    """The protocol of later IPv6 fragments says nothing: only that of the first counts."""
    segment = tcp(A6, 1, B6, 80, SYN)[54:]
    head = fragment6(b"\x3c", b"\x06\0\x01\x04\0\0\0\0" + segment[:20] + bytes(4), 0, True)
    over = fragment6(b"\x3c", bytes(8), 8, True)
    rest = fragment6(b"\x06", bytes(8), 32, False)
    firewall = FirewallCase(**WEB)
    assert firewall(head, over, rest) == [None, "fragment", None]


def test_many_datagrams_leave_room_for_the_latest() -> None:
    firewall = FirewallCase(**WEB, fragments="drop")
    number = 0
    for _ in range(100):
        frames = []
        for _ in range(64):
            number += 1
            segment = tcp(f"10.9.{number >> 8}.{number & 255}", 1, B, 80, SYN, fragment=0x2000)
            frames.append(segment)
        firewall(*frames)
    latest = ip(f"10.9.{number >> 8}.{number & 255}", B, 6, bytes(8), fragment=3)
    assert firewall(latest, ip("10.9.0.1", B, 6, bytes(8), fragment=3)) == [None, "fragment"]
