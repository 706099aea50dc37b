# SPDX-License-Identifier: Apache-2.0
"""Options of iptables by their meaning, and its limits."""

from __future__ import annotations

from typing import Any

from onvm_nf_firewall.importing.imported import InexpressibleError

__all__ = [
    "IGNORED",
    "IGNORED_FLAGS",
    "LIMITS",
    "PROTOCOLS",
    "REJECTS",
    "TARGETS_WITHOUT",
    "limit_of",
    "recent_limit",
]

PROTOCOLS = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "ipencap": "ipip", "ipv4": "ipip"}
LIMITS = (
    "--limit", "--limit-burst", "--hashlimit", "--hashlimit-upto", "--hashlimit-above",
    "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-srcmask", "--hashlimit-dstmask",
)  # fmt: skip
IGNORED = (
    "--log-level", "--nflog-group", "--nflog-threshold", "--nflog-range", "--nflog-size",
    "--ulog-nlgroup", "--ulog-cprange", "--ulog-qthreshold", "--hashlimit-name",
    "--hashlimit-htable-size", "--hashlimit-htable-max", "--hashlimit-htable-expire",
    "--hashlimit-htable-gcinterval", "--name", "--mask", "--ctdir",
)  # fmt: skip
"""They take a value and change nothing that a packet meets."""
IGNORED_FLAGS = (
    "--log-ip-options", "--log-tcp-options", "--log-tcp-sequence", "--log-uid", "--rsource",
    "--physdev-is-bridged",
)  # fmt: skip
TARGETS_WITHOUT = (
    "MARK", "CONNMARK", "NOTRACK", "CT", "TCPMSS", "MASQUERADE", "SNAT", "DNAT", "REDIRECT",
    "NETMAP", "QUEUE", "NFQUEUE", "TOS", "DSCP", "TTL", "CHECKSUM", "CLASSIFY", "SET", "TEE",
    "TRACE", "AUDIT", "SYNPROXY",
)  # fmt: skip
REJECTS = {
    "icmp-net-unreachable": ("net", True),
    "icmp-host-unreachable": ("host", True),
    "icmp-port-unreachable": ("port", True),
    "icmp-proto-unreachable": ("port", False),
    "icmp-net-prohibited": ("admin", False),
    "icmp-host-prohibited": ("admin", False),
    "icmp-admin-prohibited": ("admin", True),
    "tcp-reset": ("reset", True),
    "icmp6-no-route": ("net", True),
    "no-route": ("net", True),
    "icmp6-adm-prohibited": ("admin", True),
    "adm-prohibited": ("admin", True),
    "icmp6-addr-unreachable": ("host", True),
    "addr-unreach": ("host", True),
    "icmp6-port-unreachable": ("port", True),
    "port-unreach": ("port", True),
}
"""The answer of the firewall, and whether it is the same."""
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def _rate(text: str) -> str:
    number, _, unit = text.partition("/")
    if not number.isdigit() or unit[:1] not in _UNITS:
        raise InexpressibleError(f"a rate of {text}")
    return f"{number}/{_UNITS[unit[:1]]}"


def limit_of(options: dict[str, str], rule: dict[str, Any]) -> dict[str, Any]:
    """Return the limit that the options of limit or hashlimit describe."""
    if "--limit" in options:
        return {"rate": _rate(options["--limit"]), "burst": int(options.get("--limit-burst", "5"))}
    above = options.get("--hashlimit-above")
    text = above or options.get("--hashlimit-upto") or options.get("--hashlimit")
    if text is None:
        raise InexpressibleError("hashlimit without a rate")
    made: dict[str, Any] = {
        "rate": _rate(text),
        "burst": int(options.get("--hashlimit-burst", "5")),
    }
    modes = set(filter(None, options.get("--hashlimit-mode", "").split(",")))
    if "dstport" in modes and str(rule.get("dst_ports", "")).isdigit():
        modes.discard("dstport")  # there is only one
    if modes - {"srcip"} and modes - {"dstip"}:
        raise InexpressibleError(f"hashlimit by {','.join(sorted(modes))}")
    if modes:
        made["per"] = "source" if "srcip" in modes else "destination"
    mask = options.get("--hashlimit-srcmask" if "srcip" in modes else "--hashlimit-dstmask")
    if mask is not None and modes:
        made["prefix"] = int(mask)
    if above is not None:
        made["above"] = True
    return made


def recent_limit(options: dict[str, str]) -> dict[str, Any] | None:
    """Return a limit that stands for the options of recent; None: they always match."""
    if "--set" in options:
        return None
    seconds, hits = options.get("--seconds"), options.get("--hitcount")
    if "--remove" in options or seconds is None or hits is None:
        raise InexpressibleError("recent without both seconds and hitcount")
    for unit, size in _SECONDS.items():
        if int(hits) * size >= int(seconds):
            rate = f"{-(-int(hits) * size // int(seconds))}/{unit}"
            break
    else:
        raise InexpressibleError("recent with so long a time")
    return {"rate": rate, "burst": max(1, int(hits) - 1), "per": "source", "above": True}
