# SPDX-License-Identifier: Apache-2.0
"""The keyed hash that external ports depend on."""

from __future__ import annotations

__all__ = ["siphash"]

_MASK = (1 << 64) - 1


def siphash(key: tuple[int, int], data: bytes) -> int:
    """SipHash-1-3 of 16 bytes (Aumasson, Bernstein, 2012)."""
    v0, v1, v2, v3 = (
        word ^ key[i & 1]
        for i, word in enumerate(
            (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
        )
    )

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & _MASK

    def sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
        v0, v2 = (v0 + v1) & _MASK, (v2 + v3) & _MASK
        v1, v3 = rotated(v1, 13) ^ v0, rotated(v3, 16) ^ v2
        v0 = rotated(v0, 32)
        v2, v0 = (v2 + v1) & _MASK, (v0 + v3) & _MASK
        v1, v3 = rotated(v1, 17) ^ v2, rotated(v3, 21) ^ v0
        return v0, v1, rotated(v2, 32), v3

    words = [int.from_bytes(data[i : i + 8], "little") for i in (0, 8)]
    for word in (*words, len(data) << 56):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3
