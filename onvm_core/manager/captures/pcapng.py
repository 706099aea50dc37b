"""Reads the pcapng files that captures write (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["Sight", "read_sights"]

_INTERFACE, _PACKET = 1, 6
_END, _COMMENT, _NAME, _ID = 0, 1, 2, 5
_FLAGS = 2
_OUTBOUND = 2


class Sight(msgspec.Struct, frozen=True):
    """A packet as it passed a point."""

    point: str
    time_ns: int
    """Since 1970."""
    data: bytes
    is_outbound: bool
    """It left by the port, or came from the NF."""
    number: int
    """Of the packet, at all points; 0: it is not followed."""
    comment: str


def read_sights(path: Path) -> Iterator[Sight]:
    """The packets of a file, in order."""
    data = path.read_bytes()
    names: list[str] = []
    at = 0
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("=II", data, at)
        body = data[at + 8 : at + length - 4]
        if kind == _INTERFACE:
            names.append(_options(body[8:]).get(_NAME, b"").decode())
        elif kind == _PACKET:
            number, high, low, captured, _ = struct.unpack_from("=5I", body)
            options = _options(body[20 + (captured + 3) // 4 * 4 :])
            flags = int.from_bytes(options.get(_FLAGS, b""), "little")
            yield Sight(
                point=names[number],
                time_ns=high << 32 | low,
                data=body[20 : 20 + captured],
                is_outbound=flags & 3 == _OUTBOUND,
                number=int.from_bytes(options.get(_ID, b""), "little"),
                comment=options.get(_COMMENT, b"").decode(),
            )
        at += length


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("=HH", data, at)
        if code == _END:
            break
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found
