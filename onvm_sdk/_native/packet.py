"""Mirror of ``native/nf/packet.c``: packet views and the loop that calls a handler with them."""

from __future__ import annotations

from onvm_sdk._native._packet import Loop, PacketView, end_view, held_view, loop, view

__all__ = ["Loop", "PacketView", "end_view", "held_view", "loop", "view"]
