"""The ways in which a port can use an interface of the kernel."""

from __future__ import annotations

from enum import Enum

__all__ = ["InterfaceUse"]


class InterfaceUse(Enum):
    """The packets that a port can exchange with an interface."""

    PACKETS = "packets"
    """Through a packet socket: also packets with offloads, as large as the kernel makes them. The
    kernel handles the received ones as well.
    """
    FRAMES = "frames"
    """Through an XDP socket: only packets as they are on a wire. The kernel does not see them."""
