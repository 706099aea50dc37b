"""Verdict: what an NF decides for a packet."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Verdict"]


class Verdict(IntEnum):
    """What an NF decides for a packet; the numbers are those of ``onvm/wire.h``."""

    NEXT = 0
    """On to the next service of the chain."""
    DROP = 1
    """Free it, and count it under the reason the NF gives."""
    TO_SERVICE = 2
    """To the service with the given service ID."""
    OUT = 3
    """Out of the given port, past the rest of the chain."""
