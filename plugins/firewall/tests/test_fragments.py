# SPDX-License-Identifier: Apache-2.0
"""Fragments that come alone: addresses and protocol decide about the later ones."""

from __future__ import annotations

from firewall_case import WEB, A, B, FirewallCase

from onvm_sdk.testing.frames import ip, udp

X = "203.0.113.66"


def later(src: str = A, protocol: int = 17, offset: int = 6, size: int = 40) -> bytes:
    return ip(src, B, protocol, bytes(size), fragment=offset)


def first(src: str = A, port: int = 53, size: int = 40) -> bytes:
    return ip(src, B, 17, udp(src, 1, B, port, bytes(size))[34:], fragment=0x2000)


def test_address_rules_hold_for_later_fragments() -> None:
    firewall = FirewallCase(fragments="pass", rules=[{"action": "drop", "src": f"{X}/32"}])
    assert firewall(later(X), later(A)) == ["rule", None]
    rule = {"action": "drop", "src": f"{X}/32", "protocol": "udp"}
    udp_only = FirewallCase(fragments="pass", rules=[rule])
    assert udp_only(later(X), later(X, 6)) == ["rule", None]


def test_unknown_later_fragments_do_as_configured() -> None:
    for option, reason in (("pass", None), ("drop", "fragment")):
        assert FirewallCase(fragments=option)(later()) == [reason]
        web = FirewallCase(**WEB, fragments=option)
        assert web(later(protocol=6)) == [reason], "a rule could accept its first fragment"
        assert web(later(protocol=17)) == ["default"], "no rule could"
    ports = [{"action": "drop", "dst_ports": 53}, {"action": "drop", "src": f"{X}/32"}]
    assert FirewallCase(fragments="pass", rules=ports)(later(X), later()) == ["rule", None]


def test_fragments_that_overwrite_are_dropped() -> None:
    """RFC 1858 section 3."""
    overwriting = ip(A, B, 6, bytes(8), fragment=1)
    assert FirewallCase(fragments="pass")(overwriting) == ["fragment"]


def test_first_fragments_are_judged_like_packets() -> None:
    rules = [{"action": "accept", "protocol": "udp", "dst_ports": 53}]
    firewall = FirewallCase(default="drop", rules=rules)
    assert firewall(first(port=53), first(X, port=54)) == [None, "default"]
