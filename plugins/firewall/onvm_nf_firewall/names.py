# SPDX-License-Identifier: Apache-2.0
"""The names that rules use for numbers in headers."""

from __future__ import annotations

__all__ = [
    "CASTS",
    "FLAGS",
    "ICMP_GROUPS",
    "ICMP_NAMES",
    "PROTOCOLS",
    "PROTOCOLS_WITH_PORTS",
    "REJECTS",
    "STATES",
    "name_of_protocol",
]

PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "sctp": 132,
    "udplite": 136,
}
PROTOCOLS_WITH_PORTS = (6, 17, 33, 132, 136)
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
STATES = {"new": 1, "established": 2, "related": 4, "invalid": 8}
CASTS = {"unicast": 1, "multicast": 2, "broadcast": 4}
REJECTS = ("auto", "reset", "port", "host", "net", "admin")

# By name: type and code of ICMP, and of ICMPv6; None: it has no such message.
ICMP_NAMES: dict[str, tuple[tuple[int, int | None] | None, tuple[int, int | None] | None]] = {
    "echo-reply": ((0, None), (129, None)),
    "echo-request": ((8, None), (128, None)),
    "destination-unreachable": ((3, None), (1, None)),
    "network-unreachable": ((3, 0), (1, 0)),
    "host-unreachable": ((3, 1), (1, 3)),
    "protocol-unreachable": ((3, 2), None),
    "port-unreachable": ((3, 3), (1, 4)),
    "fragmentation-needed": ((3, 4), None),
    "source-route-failed": ((3, 5), None),
    "network-prohibited": ((3, 9), None),
    "host-prohibited": ((3, 10), None),
    "communication-prohibited": ((3, 13), (1, 1)),
    "source-quench": ((4, None), None),
    "redirect": ((5, None), (137, None)),
    "router-advertisement": ((9, None), (134, None)),
    "router-solicitation": ((10, None), (133, None)),
    "time-exceeded": ((11, None), (3, None)),
    "ttl-exceeded": ((11, 0), (3, 0)),
    "parameter-problem": ((12, None), (4, None)),
    "timestamp-request": ((13, None), None),
    "timestamp-reply": ((14, None), None),
    "info-request": ((15, None), None),
    "info-reply": ((16, None), None),
    "address-mask-request": ((17, None), None),
    "address-mask-reply": ((18, None), None),
    "packet-too-big": (None, (2, None)),
    "listener-query": (None, (130, None)),
    "listener-report": (None, (131, None)),
    "listener-reduction": (None, (132, None)),
    "listener2-report": (None, (143, None)),
    "neighbour-solicitation": (None, (135, None)),
    "neighbour-advertisement": (None, (136, None)),
    "router-renumbering": (None, (138, None)),
}

# What RFC 4890 section 4.3 says about ICMPv6 that goes through a firewall.
ICMP_GROUPS = {
    "rfc4890-must-pass": ((1, None), (2, None), (3, 0), (4, 1), (4, 2), (128, None), (129, None)),
    "rfc4890-should-pass": (
        (3, 1), (4, 0), (144, None), (145, None), (146, None), (147, None),
    ),
    "rfc4890-drop": ((100, None), (101, None), (127, None), (138, None), (139, None),
                     (140, None), (200, None), (201, None), (255, None)),
}  # fmt: skip


def name_of_protocol(protocol: int) -> str:
    """Return the name of a protocol, or its number if it has none here."""
    return next((name for name, number in PROTOCOLS.items() if number == protocol), str(protocol))
