# SPDX-License-Identifier: Apache-2.0
"""``onvm nf explain firewall``: which rule decides about a packet, and why."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onvm_nf_firewall.config import FirewallConfig, load
from onvm_nf_firewall.model import REJECTED, FirewallModel
from onvm_nf_firewall.names import FLAGS, ICMP_NAMES, PROTOCOLS
from onvm_sdk.errors import ConfigError
from onvm_sdk.manifest import find_manifest, read_config, read_manifest
from onvm_sdk.testing import frames

__all__ = ["PacketText", "explain", "main", "read_packet"]

_USAGE = "onvm nf explain firewall FILE PACKET"
_EXPECTED = (
    "expected hex, or [in=PORT] [far] [vlan=N] [mac=ADDRESS] PROTOCOL SRC[:PORT] > DST[:PORT] "
    "[FLAGS or TYPE]"
)
_END = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f:]+))(?::(\d{1,5}))?")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[\s:]?){14,}")
_NS = 1_000_000_000


@dataclass(frozen=True)
class PacketText:
    """A packet as a user writes it.

    Args:
        port: name of the port it comes in by; "" if it is not said.
    """

    frame: bytes
    port: str = ""
    reverse: bool = False


def _fault(value: str, expected: str = _EXPECTED) -> ConfigError:
    return ConfigError(expected, field="packet", value=value)


def _end(text: str) -> tuple[str, int]:
    match = _END.fullmatch(text)
    if match is None or int(match[4] or 0) > 65535:
        raise _fault(text, "expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT")
    return match[1] or match[2] or match[3], int(match[4] or 0)


def _flags(words: Sequence[str]) -> int:
    flags = 0
    for word in ",".join(words).lower().split(","):
        if word and word not in FLAGS:
            raise _fault(word, f"expected flags of {', '.join(FLAGS)}")
        flags |= FLAGS.get(word, 0)
    return flags or FLAGS["syn"]


def _message(src: str, dst: str, words: Sequence[str]) -> bytes:
    text = words[0] if words else "echo-request"
    version6 = ":" in src
    kind, _, code = text.partition("/")
    if text in ICMP_NAMES and ICMP_NAMES[text][version6] is not None:
        numbers = ICMP_NAMES[text][version6]
        assert numbers is not None
        values = numbers[0], numbers[1] or 0
    elif kind.isascii() and kind.isdigit() and (code or "0").isdigit():
        values = int(kind) & 255, int(code or 0) & 255
    else:
        raise _fault(text, "expected TYPE, TYPE/CODE or the name of an ICMP message")
    body = struct.pack("!BBHHH", *values, 0, 1, 1)
    return frames.ip(src, dst, 58 if version6 else 1, body)


def _frame(words: list[str]) -> bytes:
    if len(words) < 4 or words[2] != ">":
        raise _fault(" ".join(words))
    (src, sport), (dst, dport) = _end(words[1]), _end(words[3])
    protocol, rest = words[0].lower(), words[4:]
    try:
        if protocol == "tcp":
            return frames.tcp(src, sport, dst, dport, _flags(rest))
        if protocol == "udp":
            return frames.udp(src, sport, dst, dport)
        if protocol in ("icmp", "icmpv6"):
            return _message(src, dst, rest)
        number = PROTOCOLS.get(protocol, int(protocol) if protocol.isdecimal() else -1)
        if number not in range(256):
            raise _fault(protocol, f"expected 0..255 or one of {', '.join(PROTOCOLS)}")
        body = struct.pack("!HHI", sport, dport, 0) + bytes(16)
        return frames.ip(src, dst, number, body)
    except ValueError as error:
        raise _fault(" ".join(words), f"expected two addresses of one version: {error}") from None


def read_packet(words: Sequence[str]) -> PacketText:
    """Read a packet as fields or as hex.

    Raises:
        ConfigError: it is neither.
    """
    left, port, reverse, tag, mac = [], "", False, b"", b""
    for word in " ".join(words).replace(">", " > ").split():
        key, _, value = word.partition("=")
        if key == "in" and value:
            port = value
        elif word in ("near", "far"):
            reverse = word == "far"
        elif key == "vlan" and value.isdecimal() and int(value) < 4095:
            tag = b"\x81\x00" + int(value).to_bytes(2, "big")
        elif key == "mac" and re.fullmatch(r"[0-9A-Fa-f:]{17}", value):
            mac = bytes.fromhex(value.replace(":", ""))
        else:
            left.append(word)
    text = " ".join(left)
    is_hex = _HEX.fullmatch(text) is not None
    frame = bytes.fromhex(re.sub(r"[\s:]", "", text)) if is_hex else _frame(left)
    frame = frame[:6] + (mac or frame[6:12]) + tag + frame[12:]
    return PacketText(frame, port, reverse)


def explain(config: FirewallConfig, packet: PacketText) -> Iterator[str]:
    """Say what happens to a packet that belongs to no connection, and why."""
    model = FirewallModel(config)
    reason = model.judge(packet.frame, _NS, reverse=packet.reverse, port=packet.port)
    verdict = {None: "accept", REJECTED: "reject"}.get(reason, "drop")
    decision = model.decision
    if decision is None:
        yield f"{verdict}: no rule is asked" + (f": drop reason {reason}" if reason else "")
        return
    if decision.rule is not None:
        comment = f" ({decision.rule.comment})" if decision.rule.comment else ""
        why = f"{decision.rule.name}{comment} matches"
        if reason not in (None, REJECTED, "rule"):
            why += f"; then drop reason {reason}"
    else:
        why = f"no rule decides, and the default is {config.settings.default}"
        if reason not in (None, "default"):
            why += f"; then drop reason {reason}"
    yield f"{verdict}: {why}"
    for rule, missed in model.rules.seen:
        text = f"does not match: {missed}" if missed else f"matches: {rule.action}"
        yield f"  {rule.name}: {text}"


def main(arguments: Sequence[str]) -> int:
    """Print the explanation."""
    if len(arguments) < 2:
        print(f"usage: {_USAGE}\n{_EXPECTED}", file=sys.stderr)
        return 2
    manifest = read_manifest(find_manifest("onvm_nf_firewall"))
    config = load(read_config(manifest, arguments[0]), file=arguments[0])
    for line in explain(config, read_packet(arguments[1:])):
        print(line)
    return 0
