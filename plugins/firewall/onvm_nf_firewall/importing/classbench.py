# SPDX-License-Identifier: Apache-2.0
"""Filters of ClassBench: addresses, ports, protocol; the first match decides.

ClassBench has no verdicts, so each rule accepts, and the default drops. Its last column, flags, is
left out when it asks for nothing.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

from onvm_nf_firewall.importing.imported import Imported, Rule

__all__ = ["read"]

_LINE = re.compile(
    r"@(\S+)\s+(\S+)\s+(\d+)\s*:\s*(\d+)\s+(\d+)\s*:\s*(\d+)\s+0x([0-9A-Fa-f]+)/0x([0-9A-Fa-f]+)"
    r"(?:\s+0x([0-9A-Fa-f]+)/0x([0-9A-Fa-f]+))?\s*"
)
_WITH_PORTS = (6, 17, 33, 132, 136)


def read(text: str) -> Imported:
    """Read a file of filters."""
    made = Imported(default="drop")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        made.total += 1
        match = _LINE.fullmatch(line)
        if match is None:
            made.left_out.append((number, line, "it is no filter"))
            continue
        src, dst, *ports = match.group(1, 2, 3, 4, 5, 6)
        protocol, mask, _, flag_mask = (int(one or "0", 16) for one in match.group(7, 8, 9, 10))
        rule: Rule = {"action": "accept"}
        try:
            for key, network in (("src", src), ("dst", dst)):
                plain = ip_network(network, strict=False)
                if plain.prefixlen:
                    rule[key] = str(plain)
        except ValueError:
            made.left_out.append((number, line, "it has no networks"))
            continue
        if mask not in (0, 0xFF):
            made.left_out.append((number, line, f"mask {mask:#04x} of the protocol"))
            continue
        if mask:
            rule["protocol"] = protocol
        for key, first, last in (("src_ports", *ports[:2]), ("dst_ports", *ports[2:])):
            if (first, last) == ("0", "65535"):
                continue
            if mask and protocol not in _WITH_PORTS:
                made.note(number, f"protocol {protocol} has no ports; {key} is left out")
                continue
            rule[key] = first if first == last else f"{first}-{last}"
        if flag_mask:
            made.note(number, "its flags are left out")
        made.rules.append(rule)
    return made
