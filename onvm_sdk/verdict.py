"""Verdict: the decision of an NF about a packet."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Verdict"]


class Verdict(IntEnum):
    """The decision of an NF about a packet. The numbers are those of ``onvm/wire.h``."""

    NEXT = 0
    """Send it to the next service of the chain."""
    DROP = 1
    """Free it, and count it under the NF's drop reason."""
    TO_SERVICE = 2
    """Send it to the service with the given service ID."""
    OUT = 3
    """Send it out of the given port, skipping the rest of the chain."""
    HOLD = 4
    """Keep it until it is released. Only ``hold`` gives this verdict."""
