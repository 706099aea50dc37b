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
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from onvm_sdk._hosting.author import located
from onvm_sdk._native import columns as _columns
from onvm_sdk._native import packet as _packet
from onvm_sdk.verdict import Verdict

if TYPE_CHECKING:
    from onvm_sdk.packet import PacketView

__all__ = ["Burst"]

_Scalar = TypeVar("_Scalar", bound=np.generic)
U8 = np.uint8
U16 = np.uint16
U32 = np.uint32
U64 = np.uint64
Mask = NDArray[np.bool_]
_PAYLOAD_MAX = 65535


class _Column(Generic[_Scalar]):
    """One column of a burst or of one of its headers."""

    def __init__(self, dtype: type[_Scalar], doc: str) -> None:
        self._dtype = np.dtype(dtype)
        self.__doc__ = doc

    def __set_name__(self, owner: type[_Columns], name: str) -> None:
        self._id = _columns.COLUMN_IDS[owner.header + name]

    @overload
    def __get__(self, owner: None, kind: object = None) -> _Column[_Scalar]: ...
    @overload
    def __get__(self, owner: _Columns, kind: object = None) -> NDArray[_Scalar]: ...
    def __get__(
        self, owner: _Columns | None, kind: object = None
    ) -> NDArray[_Scalar] | _Column[_Scalar]:
        if owner is None:
            return self
        burst = owner.burst
        ready = burst.ready
        column = self._id
        if column in ready:
            return ready[column]
        view = burst.views.get(column)
        if view is None or len(view) != burst.length:
            whole = burst.arrays.get(column)
            if whole is None:
                whole = burst.arrays[column] = burst.native.array(column, self._dtype)
            view = burst.views[column] = whole[: burst.length]
            view.flags.writeable = column not in _columns.READ_ONLY
        burst.native.gather(column)
        ready[column] = view
        return view

    def __set__(self, owner: _Columns, value: Any) -> None:
        array = self.__get__(owner)
        if value is array:
            return
        try:
            array[...] = value
        except OverflowError:  # a number with more bits than the field: they are cut off
            array[...] = np.asarray(value, dtype=object) & np.iinfo(self._dtype).max


class _Mask:
    """A read-only mask of the packets with a header or a property."""

    def __init__(self, header: int, doc: str) -> None:
        self._header = header
        self.__doc__ = doc

    @overload
    def __get__(self, owner: None, kind: object = None) -> _Mask: ...
    @overload
    def __get__(self, owner: Burst, kind: object = None) -> Mask: ...
    def __get__(self, owner: Burst | None, kind: object = None) -> Mask | _Mask:
        if owner is None:
            return self
        burst = owner.burst
        key = ~self._header
        if key in burst.ready:
            return burst.ready[key]
        view = burst.views.get(key)
        if view is None or len(view) != burst.length:
            whole = burst.arrays.get(key)
            if whole is None:
                whole = burst.arrays[key] = burst.native.mask_array(self._header)
            view = burst.views[key] = whole[: burst.length]
            view.flags.writeable = False
        burst.native.gather_mask(self._header)
        burst.ready[key] = view
        return view


class _State:
    """State that the columns of one burst object share."""

    __slots__ = ("arrays", "length", "native", "ready", "views")

    def __init__(self, native: _columns.Columns) -> None:
        self.native = native
        self.length = 0
        self.ready: dict[int, NDArray[Any]] = {}
        self.views: dict[int, NDArray[Any]] = {}
        self.arrays: dict[int, NDArray[Any]] = {}


class _Columns:
    __slots__ = ("burst",)  # and no others: an attribute that is no field is a mistake
    header = ""

    def __init__(self, burst: _State) -> None:
        self.burst = burst


class EthColumns(_Columns):
    """Ethernet."""

    __slots__ = ()
    header = "eth."
    dst = _Column(U8, "Destination address, n × 6 bytes.")
    src = _Column(U8, "Source address, n × 6 bytes.")
    type = _Column(U16, "EtherType after all VLAN tags.")


class VlanColumns(_Columns):
    """The outermost VLAN tag; ``burst.vlan_count`` is the number of tags."""

    __slots__ = ()
    header = "vlan."
    tci = _Column(U16, "Tag control information: priority, DEI, identifier.")
    id = _Column(U16, "VLAN identifier, 12 bits.")
    priority = _Column(U8, "Priority code point, 3 bits.")


class Ipv4Columns(_Columns):
    """IPv4."""

    __slots__ = ()
    header = "ipv4."
    header_length = _Column(U8, "Header length in words of 4 bytes. Read-only.")
    tos = _Column(U8, "DSCP and ECN.")
    dscp = _Column(U8, "Differentiated services code point, 6 bits.")
    ecn = _Column(U8, "Explicit congestion notification, 2 bits.")
    total_length = _Column(U16, "Bytes of header and payload.")
    id = _Column(U16, "Identification.")
    flags = _Column(U8, "Bit 1: do not fragment, bit 0: more fragments.")
    fragment_offset = _Column(U16, "In units of 8 bytes.")
    ttl = _Column(U8, "Time to live.")
    protocol = _Column(U8, "Transport protocol.")
    checksum = _Column(U16, "Header checksum; a write changes only this field.")
    src = _Column(U32, "Source address as a number.")
    dst = _Column(U32, "Destination address as a number.")


class Ipv6Columns(_Columns):
    """IPv6."""

    __slots__ = ()
    header = "ipv6."
    traffic_class = _Column(U8, "DSCP and ECN.")
    flow_label = _Column(U32, "20 bits.")
    payload_length = _Column(U16, "Bytes after the header of 40 bytes.")
    next_header = _Column(U8, "Next header; burst.protocol skips extension headers.")
    hop_limit = _Column(U8, "Hop limit.")
    src = _Column(U8, "Source address, n × 16 bytes.")
    dst = _Column(U8, "Destination address, n × 16 bytes.")
    src_high = _Column(U64, "First 64 bits of the source address.")
    src_low = _Column(U64, "Last 64 bits of the source address.")
    dst_high = _Column(U64, "First 64 bits of the destination address.")
    dst_low = _Column(U64, "Last 64 bits of the destination address.")


class TcpColumns(_Columns):
    """TCP."""

    __slots__ = ()
    header = "tcp."
    src_port = _Column(U16, "Source port.")
    dst_port = _Column(U16, "Destination port.")
    seq = _Column(U32, "Sequence number.")
    ack = _Column(U32, "Acknowledgement number.")
    data_offset = _Column(U8, "Header length in words of 4 bytes. Read-only.")
    flags = _Column(U8, "CWR ECE URG ACK PSH RST SYN FIN, from the top.")
    window = _Column(U16, "Window.")
    checksum = _Column(U16, "Checksum; a write changes only this field.")
    urgent = _Column(U16, "Urgent pointer.")


class UdpColumns(_Columns):
    """UDP."""

    __slots__ = ()
    header = "udp."
    src_port = _Column(U16, "Source port.")
    dst_port = _Column(U16, "Destination port.")
    length = _Column(U16, "Bytes of header and payload.")
    checksum = _Column(U16, "Checksum, 0: none; a write changes only this field.")


class IcmpColumns(_Columns):
    """ICMP and ICMPv6."""

    __slots__ = ()
    header = "icmp."
    type = _Column(U8, "Type.")
    code = _Column(U8, "Code.")
    checksum = _Column(U16, "Checksum; a write changes only this field.")
    id = _Column(U16, "Identifier of an echo; bytes 4 and 5 of any other message.")
    sequence = _Column(U16, "Sequence number of an echo; bytes 6 and 7 of any other message.")


class ArpColumns(_Columns):
    """ARP for IPv4 over Ethernet."""

    __slots__ = ()
    header = "arp."
    operation = _Column(U16, "1: request, 2: reply.")
    sender_mac = _Column(U8, "Sender's Ethernet address, n × 6 bytes.")
    sender_ip = _Column(U32, "Sender's IPv4 address as a number.")
    target_mac = _Column(U8, "Target's Ethernet address, n × 6 bytes.")
    target_ip = _Column(U32, "Target's IPv4 address as a number.")


class MplsColumns(_Columns):
    """The first MPLS label (RFC 3032)."""

    __slots__ = ()
    header = "mpls."
    label = _Column(U32, "Label, 20 bits.")
    traffic_class = _Column(U8, "Traffic class, 3 bits.")
    bottom = _Column(U8, "1: the last label of the stack.")
    ttl = _Column(U8, "Time to live.")


class PppoeColumns(_Columns):
    """PPPoE, discovery and session (RFC 2516)."""

    __slots__ = ()
    header = "pppoe."
    code = _Column(U8, "0: session data.")
    session = _Column(U16, "Session identifier.")
    length = _Column(U16, "Bytes after this header of 6 bytes.")


class SctpColumns(_Columns):
    """SCTP; ``update_checksums`` makes its CRC32c again."""

    __slots__ = ()
    header = "sctp."
    src_port = _Column(U16, "Source port.")
    dst_port = _Column(U16, "Destination port.")
    tag = _Column(U32, "Verification tag.")
    checksum = _Column(U32, "CRC32c.")


class GreColumns(_Columns):
    """GRE (RFC 2784)."""

    __slots__ = ()
    header = "gre."
    flags = _Column(U16, "Flags and version; bit 15: checksum, 13: key, 12: sequence number.")
    protocol = _Column(U16, "EtherType of the content.")


class VxlanColumns(_Columns):
    """VXLAN (RFC 7348): UDP to port 4789."""

    __slots__ = ()
    header = "vxlan."
    flags = _Column(U8, "0x08: the VNI is valid.")
    vni = _Column(U32, "VXLAN network identifier, 24 bits.")


class GeneveColumns(_Columns):
    """Geneve (RFC 8926): UDP to port 6081."""

    __slots__ = ()
    header = "geneve."
    options = _Column(U8, "Length of the options, in words of 4 bytes. Read-only.")
    flags = _Column(U8, "2: control packet, 1: critical options.")
    protocol = _Column(U16, "EtherType of the content.")
    vni = _Column(U32, "Virtual network identifier, 24 bits.")


class GtpuColumns(_Columns):
    """GTP-U: UDP to port 2152."""

    __slots__ = ()
    header = "gtpu."
    flags = _Column(U8, "Version, protocol type, and flags of optional fields.")
    type = _Column(U8, "255: a packet of a user.")
    length = _Column(U16, "Bytes after the first 8.")
    teid = _Column(U32, "Tunnel endpoint identifier.")


class Burst(_Columns):
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
    length = _Column(U16, "Bytes of each packet. Read-only.")
    port = _Column(U16, "Ingress port. Read-only.")
    flow_hash = _Column(U32, "Hash of the flow; 0 if none was needed. Read-only.")
    protocol = _Column(U8, "Transport protocol, after IPv6 extension headers. Read-only.")
    vlan_count = _Column(U8, "VLAN tags. Read-only.")
    verdict = _Column(U8, "Verdict for each packet, a number of Verdict.")
    destination = _Column(U16, "Drop reason, service ID or port, depending on the verdict.")
    flow_key = _Column(
        U8,
        "Key of each packet's flow for `onvm_sdk.tables`, n × 40 bytes. It does not show changes "
        "of other columns that are not written back yet. Read-only.",
    )
    l3_offset = _Column(U16, "Offset of the network header in the packet. Read-only.")
    l4_offset = _Column(U16, "Offset of the transport header, or of what it would be. Read-only.")
    payload_length = _Column(
        U16, "Bytes of payload behind all headers that fields are known of. Read-only."
    )
    time_ns = _Column(
        U64,
        "When each packet was captured, or when the burst began if it comes from a live port, in "
        "nanoseconds since 1970. Read-only.",
    )

    is_vlan = _Mask(1, "Has a VLAN tag.")
    is_ipv4 = _Mask(2, "Has a complete and valid IPv4 header.")
    is_ipv6 = _Mask(3, "Has a complete and valid IPv6 header.")
    is_tcp = _Mask(4, "Has a TCP header; later fragments have none.")
    is_udp = _Mask(5, "Has a UDP header; later fragments have none.")
    is_icmp = _Mask(6, "Has an ICMP or ICMPv6 header.")
    is_fragment = _Mask(8, "Is an IP fragment, the first one included.")
    is_arp = _Mask(16, "Is ARP for IPv4 over Ethernet.")
    is_mpls = _Mask(17, "Has an MPLS label behind its EtherType.")
    is_pppoe = _Mask(18, "Has a PPPoE header.")
    is_sctp = _Mask(19, "Has an SCTP header.")
    is_gre = _Mask(20, "Has a GRE header.")
    is_vxlan = _Mask(21, "Has a VXLAN header.")
    is_geneve = _Mask(22, "Has a Geneve header.")
    is_gtpu = _Mask(23, "Has a GTP-U header.")
    is_reverse = _Mask(9, "Travels its chain backwards.")

    def __init__(
        self, handler: Callable[[Burst], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._handler: Callable[[Burst], object] = handler
        self._views: list[PacketView] = []
        self.native = _columns.Columns(self._run, on_error)
        super().__init__(_State(self.native))
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
        done = np.zeros(len(self), dtype=np.bool_)
        if isinstance(header, bytes):
            self.native.push(self._mask(where), len(header), header, 0, done)
        else:
            rows = np.ascontiguousarray(header, dtype=np.uint8)
            if rows.ndim != 2 or len(rows) != len(self):
                raise ValueError(f"expected a row of header bytes for each of {len(self)} packets")
            length = rows.shape[1]
            self.native.push(self._mask(where), length, rows.reshape(-1), length, done)
        self.burst.ready.clear()
        return done

    def pull(self, length: int, where: Any = None) -> Mask:
        """Remove the first `length` bytes of packets.

        Returns:
            A mask of the packets that were long enough and have changed.
        """
        done = np.zeros(len(self), dtype=np.bool_)
        self.native.pull(self._mask(where), length, done)
        self.burst.ready.clear()
        return done

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
        done = np.zeros(len(self), dtype=np.bool_)
        if isinstance(content, bytes):
            self.native.append(self._mask(where), len(content), content, 0, done)
        else:
            rows = np.ascontiguousarray(content, dtype=np.uint8)
            if rows.ndim != 2 or len(rows) != len(self):
                raise ValueError(f"expected a row of bytes for each of {len(self)} packets")
            length = rows.shape[1]
            self.native.append(self._mask(where), length, rows.reshape(-1), length, done)
        self.burst.ready.clear()
        return done

    def trim(self, length: int, where: Any = None) -> Mask:
        """Remove the last `length` bytes of packets.

        Returns:
            A mask of the packets that were long enough and have changed.
        """
        done = np.zeros(len(self), dtype=np.bool_)
        self.native.trim(self._mask(where), length, done)
        self.burst.ready.clear()
        return done

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
