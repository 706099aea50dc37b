"""The header fields of a frame by name, for people who compare two of them."""

from __future__ import annotations

import ipaddress
import struct

__all__ = ["difference", "fields_of", "summary"]

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}
_TCP_FLAGS = "FSRPAUEC"
_TAGS = (0x8100, 0x88A8)


def fields_of(frame: bytes) -> dict[str, str]:
    """Fields from Ethernet to the transport header, as far as the frame has them."""
    fields = {"length": str(len(frame))}
    if len(frame) < 14:
        return fields
    fields["eth.dst"], fields["eth.src"] = frame[:6].hex(":"), frame[6:12].hex(":")
    at = 12
    kind = int.from_bytes(frame[at : at + 2])
    while kind in _TAGS and len(frame) >= at + 6:
        name = "vlan" if "vlan" not in fields else "vlan2"
        fields[name] = str(int.from_bytes(frame[at + 2 : at + 4]) & 0xFFF)
        at += 4
        kind = int.from_bytes(frame[at : at + 2])
    fields["eth.type"] = f"0x{kind:04x}"
    rest = frame[at + 2 :]
    if kind == 0x0800 and len(rest) >= 20:
        _ipv4(fields, rest)
    elif kind == 0x86DD and len(rest) >= 40:
        _ipv6(fields, rest)
    return fields


def _ipv4(fields: dict[str, str], packet: bytes) -> None:
    length = (packet[0] & 15) * 4
    fields["ip.src"] = str(ipaddress.IPv4Address(packet[12:16]))
    fields["ip.dst"] = str(ipaddress.IPv4Address(packet[16:20]))
    fields["ip.ttl"], fields["ip.tos"] = str(packet[8]), str(packet[1])
    fields["ip.id"] = str(int.from_bytes(packet[4:6]))
    fields["ip.protocol"] = _PROTOCOLS.get(packet[9], str(packet[9]))
    if int.from_bytes(packet[6:8]) & 0x1FFF == 0:
        _transport(fields, packet[9], packet[length:])


def _ipv6(fields: dict[str, str], packet: bytes) -> None:
    fields["ip.src"] = str(ipaddress.IPv6Address(packet[8:24]))
    fields["ip.dst"] = str(ipaddress.IPv6Address(packet[24:40]))
    fields["ip.ttl"] = str(packet[7])
    fields["ip.tos"] = str(int.from_bytes(packet[:2]) >> 4 & 0xFF)
    fields["ip.protocol"] = _PROTOCOLS.get(packet[6], str(packet[6]))
    _transport(fields, packet[6], packet[40:])


def _transport(fields: dict[str, str], protocol: int, segment: bytes) -> None:
    name = _PROTOCOLS.get(protocol, "")
    if name in ("tcp", "udp", "sctp") and len(segment) >= 4:
        source, destination = struct.unpack_from("!HH", segment)
        fields[f"{name}.src"], fields[f"{name}.dst"] = str(source), str(destination)
    if name == "tcp" and len(segment) >= 16:
        sequence, acknowledged, _, flags, window = struct.unpack_from("!IIBBH", segment, 4)
        fields["tcp.seq"], fields["tcp.ack"] = str(sequence), str(acknowledged)
        fields["tcp.flags"] = "".join(c for i, c in enumerate(_TCP_FLAGS) if flags >> i & 1)
        fields["tcp.window"] = str(window)
    if name in ("icmp", "icmp6") and len(segment) >= 2:
        fields[f"{name}.type"], fields[f"{name}.code"] = str(segment[0]), str(segment[1])


def summary(frame: bytes) -> str:
    """A frame in one line."""
    fields = fields_of(frame)
    if "ip.src" not in fields:
        kind = fields.get("eth.type", "short")
        return f"{kind} {fields.get('eth.src', '')} → {fields.get('eth.dst', '')}".strip()
    name = fields["ip.protocol"]
    ends = [_end(fields[f"ip.{side}"], fields.get(f"{name}.{side}")) for side in ("src", "dst")]
    return f"{name} {' → '.join(ends)}, {fields['length']} bytes"


def _end(address: str, port: str | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def difference(before: bytes, after: bytes) -> list[str]:
    """The fields that differ, as ``NAME BEFORE → AFTER``; bytes behind the headers as "payload"."""
    old, new = fields_of(before), fields_of(after)
    changed = [
        f"{name} {old.get(name, '-')} → {new.get(name, '-')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    return changed or (["other bytes"] if before != after else [])
