"""Columns over a burst: header fields of many packets as NumPy arrays.

``burst.ipv4.ttl`` is an array with one entry per packet, in host byte order. The first use gathers
it from the packets. After the handler returns, entries that have changed are written into the
packets, and checksums are updated (RFC 1624). The entry of a packet without the header reads 0 and
is never written.

Lifetime: the next burst reuses the arrays, so copy what you keep. :meth:`Burst.packet`,
:meth:`Burst.push` and :meth:`Burst.pull` write all changes into the packets and end the arrays
taken before; take them again from the burst. A packet view ends with its burst. Using it later
raises :class:`~onvm_sdk.errors.StaleViewError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onvm_sdk._hosting.author import located
from onvm_sdk._native import columns as _columns
from onvm_sdk._native import packet as _packet
from onvm_sdk.columns import (
    U8,
    U16,
    U32,
    U64,
    ArpColumns,
    BurstState,
    Column,
    Columns,
    EthColumns,
    GeneveColumns,
    GreColumns,
    GtpuColumns,
    HeaderMask,
    IcmpColumns,
    Ipv4Columns,
    Ipv6Columns,
    Mask,
    MplsColumns,
    PppoeColumns,
    SctpColumns,
    TcpColumns,
    UdpColumns,
    VlanColumns,
    VxlanColumns,
)
from onvm_sdk.verdict import Verdict

if TYPE_CHECKING:
    from onvm_sdk.packet import PacketView

__all__ = ["Burst"]

_PAYLOAD_MAX = 65535


class Burst(Columns):
    """The packets of one call of ``process``.

    The SDK creates it and passes it to the handler.

    Lifetime: valid until the handler returns.
    """

    __slots__ = (
        "_handler",
        "_views",
        "arp",
        "eth",
        "geneve",
        "gre",
        "gtpu",
        "icmp",
        "ipv4",
        "ipv6",
        "mpls",
        "native",
        "pppoe",
        "sctp",
        "tcp",
        "udp",
        "vlan",
        "vxlan",
    )
    length = Column(U16, "Bytes of each packet. Read-only.")
    port = Column(U16, "Ingress port. Read-only.")
    flow_hash = Column(U32, "Hash of the flow; 0 if none was needed. Read-only.")
    protocol = Column(U8, "Transport protocol, after IPv6 extension headers. Read-only.")
    vlan_count = Column(U8, "VLAN tags. Read-only.")
    verdict = Column(U8, "Verdict for each packet, a number of Verdict.")
    destination = Column(U16, "Drop reason, service ID or port, depending on the verdict.")
    flow_key = Column(
        U8,
        "Key of each packet's flow for `onvm_sdk.tables`, n × 40 bytes. It does not show changes "
        "of other columns that are not written back yet. Read-only.",
    )
    l3_offset = Column(U16, "Offset of the network header in the packet. Read-only.")
    l4_offset = Column(U16, "Offset of the transport header, or of what it would be. Read-only.")
    payload_length = Column(
        U16, "Bytes of payload behind all headers that fields are known of. Read-only."
    )
    time_ns = Column(
        U64,
        "When each packet was captured, or when the burst began if it comes from a live port, in "
        "nanoseconds since 1970. Read-only.",
    )

    is_vlan = HeaderMask(1, "Has a VLAN tag.")
    is_ipv4 = HeaderMask(2, "Has a complete and valid IPv4 header.")
    is_ipv6 = HeaderMask(3, "Has a complete and valid IPv6 header.")
    is_tcp = HeaderMask(4, "Has a TCP header; later fragments have none.")
    is_udp = HeaderMask(5, "Has a UDP header; later fragments have none.")
    is_icmp = HeaderMask(6, "Has an ICMP or ICMPv6 header.")
    is_fragment = HeaderMask(8, "Is an IP fragment, the first one included.")
    is_arp = HeaderMask(16, "Is ARP for IPv4 over Ethernet.")
    is_mpls = HeaderMask(17, "Has an MPLS label behind its EtherType.")
    is_pppoe = HeaderMask(18, "Has a PPPoE header.")
    is_sctp = HeaderMask(19, "Has an SCTP header.")
    is_gre = HeaderMask(20, "Has a GRE header.")
    is_vxlan = HeaderMask(21, "Has a VXLAN header.")
    is_geneve = HeaderMask(22, "Has a Geneve header.")
    is_gtpu = HeaderMask(23, "Has a GTP-U header.")
    is_reverse = HeaderMask(9, "Travels its chain backwards.")

    def __init__(
        self, handler: Callable[[Burst], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._handler: Callable[[Burst], object] = handler
        self._views: list[PacketView] = []
        self.native = _columns.Columns(self._run, on_error)
        super().__init__(BurstState(self.native))
        self.eth = EthColumns(self.burst)
        self.vlan = VlanColumns(self.burst)
        self.ipv4 = Ipv4Columns(self.burst)
        self.ipv6 = Ipv6Columns(self.burst)
        self.tcp = TcpColumns(self.burst)
        self.udp = UdpColumns(self.burst)
        self.icmp = IcmpColumns(self.burst)
        self.arp = ArpColumns(self.burst)
        self.mpls = MplsColumns(self.burst)
        self.pppoe = PppoeColumns(self.burst)
        self.sctp = SctpColumns(self.burst)
        self.gre = GreColumns(self.burst)
        self.vxlan = VxlanColumns(self.burst)
        self.geneve = GeneveColumns(self.burst)
        self.gtpu = GtpuColumns(self.burst)

    def __len__(self) -> int:
        return self.burst.length

    @property
    def now_ns(self) -> int:
        """The monotonic clock in nanoseconds, read once per burst."""
        return self.native.now_ns()

    def drop(self, where: Any = None, reason: int = 0) -> None:
        """Drop packets. A later verdict for a packet replaces an earlier one.

        Args:
            where: mask or index of packets; None: all packets.
            reason: index into the manifest's ``drop_reasons``.
        """
        self._decide(where, Verdict.DROP, reason)

    def out(self, where: Any, port: int) -> None:
        """Send packets out of `port`, skipping the rest of their chain."""
        self._decide(where, Verdict.OUT, port)

    def to_service(self, where: Any, service_id: int) -> None:
        """Send packets to the service with this ID."""
        self._decide(where, Verdict.TO_SERVICE, service_id)

    def hold(self, where: Any = None) -> NDArray[np.uint32]:
        """Keep packets beyond this burst, until ``ctx.held`` releases them.

        Call it last for a packet: another verdict undoes it.

        Args:
            where: mask or index of packets; None: all packets.

        Returns:
            A token for each packet of the burst; 0 where the packet is not held.

        Raises:
            PermissionError: the manifest has no ``held_packets``.
        """
        tokens = np.zeros(len(self), dtype=np.uint32)
        self.native.hold(self._mask(where), tokens)
        return tokens

    def next(self, where: Any = None) -> None:
        """Send packets to the next service of their chain, which replaces any earlier verdict."""
        self.native.decide(self._mask(where), Verdict.NEXT, 0)

    def push(self, header: bytes | NDArray[np.uint8], where: Any = None) -> Mask:
        """Put a header in front of packets (encapsulation).

        Args:
            header: bytes for all packets, or an array of n × length bytes, one row per packet.
            where: mask or index of packets; None: all packets.

        Returns:
            A mask of the packets that got the header. A packet without enough headroom is
            unchanged.

        Raises:
            ValueError: `header` is an array without one row per packet.
        """
        return self._put(self.native.push, header, where)

    def pull(self, length: int, where: Any = None) -> Mask:
        """Remove the first `length` bytes of packets.

        Returns:
            A mask of the packets that were long enough and have changed.
        """
        return self._cut(self.native.pull, length, where)

    def append(self, content: bytes | NDArray[np.uint8], where: Any = None) -> Mask:
        """Put bytes behind packets. Lengths in headers, and checksums, stay as they are.

        Args:
            content: bytes for all packets, or an array of n × length bytes, one row per packet.
            where: mask or index of packets; None: all packets.

        Returns:
            A mask of the packets that got them. A packet without enough tailroom is unchanged.

        Raises:
            ValueError: `content` is an array without one row per packet.
        """
        return self._put(self.native.append, content, where)

    def trim(self, length: int, where: Any = None) -> Mask:
        """Remove the last `length` bytes of packets.

        Returns:
            A mask of the packets that were long enough and have changed.
        """
        return self._cut(self.native.trim, length, where)

    def update_checksums(self, where: Any = None) -> None:
        """Make all checksums of packets from their bytes, after a change that no field made.

        These are the checksums of IPv4, TCP, UDP, ICMP, ICMPv6 and SCTP. Those of fragments stay,
        but for that of the IPv4 header.
        """
        self.native.make_checksums(self._mask(where))
        self.burst.ready.clear()

    def payload(self, offset: int = 0, length: int = 64) -> NDArray[np.uint8]:
        """Return a part of each packet's payload, n × `length` bytes.

        The payload is everything behind the transport header, up to the end of the IP packet; see
        `payload_length`. Bytes behind its end are 0. The array is a copy: to change payloads, use
        `packet`.

        Args:
            offset: first byte, from the start of the payload.
            length: bytes of each packet, up to 65535.
        """
        if offset < 0 or not 0 <= length <= _PAYLOAD_MAX:
            raise ValueError(f"expected an offset of 0 or more, a length of 0 to {_PAYLOAD_MAX}")
        entries = np.empty((len(self), length), dtype=np.uint8)
        self.native.payload(min(offset, _PAYLOAD_MAX), length, entries.reshape(-1))
        return entries

    def packet(self, row: int) -> PacketView:
        """Return a view of one packet, valid until the handler returns."""
        packet, context = self.native.packet(row)
        self.burst.ready.clear()
        view = _packet.view(packet, context)
        self._views.append(view)
        return view

    def originate(self, packet: bytes, *, port: int | None = None) -> bool:
        """Create a packet. The manifest needs the permission ``originate``.

        Args:
            packet: the whole frame.
            port: port to send it out of; None: send it to the next service.

        Returns:
            False if no lent buffer is left, or if the packet is too long for one.

        Raises:
            PermissionError: the manifest does not have it.
        """
        context = self.native.context()
        if port is None:
            return _columns.originate(context, packet, Verdict.NEXT, 0)
        return _columns.originate(context, packet, Verdict.OUT, port)

    def _put(
        self, put: Callable[..., None], content: bytes | NDArray[np.uint8], where: Any
    ) -> Mask:
        """Put bytes before or behind packets: the same ones, or a row for each."""
        done = np.zeros(len(self), dtype=np.bool_)
        if isinstance(content, bytes):
            put(self._mask(where), len(content), content, 0, done)
        else:
            rows = np.ascontiguousarray(content, dtype=np.uint8)
            if rows.ndim != 2 or len(rows) != len(self):
                raise ValueError(f"expected a row of bytes for each of {len(self)} packets")
            length = rows.shape[1]
            put(self._mask(where), length, rows.reshape(-1), length, done)
        self.burst.ready.clear()
        return done

    def _cut(self, cut: Callable[..., None], length: int, where: Any) -> Mask:
        """Remove bytes at one end of packets."""
        done = np.zeros(len(self), dtype=np.bool_)
        cut(self._mask(where), length, done)
        self.burst.ready.clear()
        return done

    def _decide(self, where: Any, verdict: int, destination: int) -> None:
        if not 0 <= destination < 65536:
            raise OverflowError("a reason, port or service ID is below 65536")
        self.native.decide(self._mask(where), verdict, destination)

    def _mask(self, where: Any) -> Mask | None:
        if where is None:
            return None
        if (
            type(where) is np.ndarray
            and where.dtype == np.bool_
            and len(where) == self.burst.length
            and where.flags.c_contiguous
        ):
            return where
        mask = np.zeros(self.burst.length, dtype=np.bool_)
        mask[where] = True
        return mask

    def _run(self) -> None:
        state = self.burst
        state.ready.clear()
        state.length = len(state.native)
        try:
            returned = self._handler(self)
            if returned is not None:
                raise located(TypeError(f"returned {returned!r}, expected None"), self._handler)
        finally:
            for view in self._views:
                _packet.end_view(view)
            self._views.clear()
            state.length = 0
            state.ready.clear()
