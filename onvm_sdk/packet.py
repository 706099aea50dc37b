"""PacketView: a zero-copy view of one packet.

``pkt.ipv4.ttl -= 1`` changes the packet in place and updates its checksums. Names and rules are the
same as for columns (:mod:`onvm_sdk.burst`) and kernels (:mod:`onvm_sdk.kernel`). Values are numbers
in host byte order, addresses included (``ipaddress.ip_address(pkt.ipv4.src)``). A field of a header
that the packet does not have reads 0 and ignores writes. Surplus bits are cut off.

``pkt.flow_key`` names the packet's flow. It has 40 bytes, and is the key of a `FlowTable` and of an
`Acl` (:mod:`onvm_sdk.tables`). `FiveTuple.unpack` reads it.

Lifetime: a view is valid until the call that received it returns. Using the view, or one of its
headers, later raises :class:`~onvm_sdk.errors.StaleViewError`; ``pkt.data`` then raises ValueError.
``pkt.tobytes()`` copies the packet.
"""

from __future__ import annotations

from onvm_sdk._native.packet import PacketView

__all__ = ["PacketView"]
