"""Golden captures: the packets that an NF once gave, and how today's differ from them.

def test_translates(golden):
    golden(run(Nat, "in.pcap").forwarded, "out.pcap")

``pytest --onvm-update-golden`` writes the captures instead.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from onvm_sdk.testing.runner import load_frames

__all__ = ["GoldenError", "check_golden", "describe", "write_capture"]

SHOWN = 3
"""Packets that differ and are shown."""


class GoldenError(AssertionError):
    """Packets are not those of the golden capture."""


def check_golden(
    packets: Iterable[bytes], path: str | os.PathLike[str], *, update: bool = False
) -> None:
    """Compare packets with those of a capture.

    Args:
        packets: frames, in order.
        path: the capture, pcap.
        update: write the capture.

    Raises:
        GoldenError: they differ; its text shows the first packets that do, field by field.
    """
    found = list(packets)
    file = Path(path)
    if update:
        write_capture(file, found)
        return
    if not file.is_file():
        raise GoldenError(f"{file}: expected a capture; write it with --onvm-update-golden")
    wanted = load_frames(file)
    if found != wanted:
        raise GoldenError("\n".join([f"packets differ from {file}:", *_lines(wanted, found)]))


def write_capture(path: str | os.PathLike[str], packets: Iterable[bytes]) -> None:
    """Write packets as pcap, all at time 0, so that the file depends on the packets alone."""
    from scapy.utils import RawPcapWriter

    with RawPcapWriter(os.fspath(path), linktype=1) as writer:
        writer.write_header(None)
        for packet in packets:
            writer.write_packet(packet, sec=0, usec=0)


def describe(packet: bytes) -> list[str]:
    """Return the fields of a packet, a line each, and the bytes that belong to no field."""
    from scapy.layers import inet, inet6  # noqa: F401  # the layers behind Ethernet
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet

    if len(packet) < 14:
        return [f"{len(packet)} bytes: {packet.hex(' ')}"]
    lines: list[str] = []
    layer: Packet = Ether(packet)
    while layer:
        for field in layer.fields_desc:
            value = layer.fields.get(field.name)
            if value is not None and not isinstance(value, list):
                lines.append(f"{layer.name}.{field.name} = {field.i2repr(layer, value)}")
        layer = layer.payload
    return lines


def _lines(wanted: Sequence[bytes], found: Sequence[bytes]) -> list[str]:
    lines = []
    if len(wanted) != len(found):
        lines.append(f"{len(found)} packets, expected {len(wanted)}")
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    shown = 0
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        for offset in range(max(b - a, d - c)):
            shown += 1
            if shown > SHOWN:
                continue
            before = wanted[a + offset] if a + offset < b else None
            after = found[c + offset] if c + offset < d else None
            lines += _one(a + offset if before is not None else c + offset, before, after)
    if shown > SHOWN:
        lines.append(f"… and {shown - SHOWN} more")
    return lines


def _one(number: int, before: bytes | None, after: bytes | None) -> list[str]:
    if before is None:
        assert after is not None
        return [f"packet {number} is new:", *(f"  + {line}" for line in describe(after))]
    if after is None:
        return [f"packet {number} is missing:", *(f"  - {line}" for line in describe(before))]
    lines = [
        f"  {line}" for line in difflib.ndiff(describe(before), describe(after)) if line[0] in "+-"
    ]
    return [f"packet {number}:", *lines]
