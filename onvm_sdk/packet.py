"""PacketView: a zero-copy view of one packet.

``pkt.ipv4.ttl -= 1`` changes the packet where it lies and fixes its checksums; names and rules are
those of the columns (:mod:`onvm_sdk.burst`) and of kernels (:mod:`onvm_sdk.kernel`). Values are
numbers in host byte order, also addresses (``ipaddress.ip_address(pkt.ipv4.src)``). A field of a
header that the packet does not have reads 0 and ignores what is written; surplus bits are cut off.

``pkt.flow_key`` is what names the packet's flow: 40 bytes, the key of a `FlowTable` and of an `Acl`
(:mod:`onvm_sdk.tables`), which `FiveTuple.unpack` reads.

Lifetime: a view is good until the call that it was given to returns. Using it, or one of its
headers, later raises :class:`~onvm_sdk.errors.StaleViewError`; ``pkt.data`` then raises
ValueError. ``pkt.tobytes()`` copies.
"""

from __future__ import annotations

from onvm_sdk._native.packet import PacketView

__all__ = ["PacketView"]
