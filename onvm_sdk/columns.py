"""Columns of headers: the fields of one header of all packets of a burst, as NumPy arrays.

:class:`~onvm_sdk.burst.Burst` has one of them for each header, and columns of its own.

Lifetime: the next burst reuses the arrays.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from onvm_sdk._native import columns as _columns

__all__ = [
    "ArpColumns",
    "BurstState",
    "Column",
    "Columns",
    "EthColumns",
    "GeneveColumns",
    "GreColumns",
    "GtpuColumns",
    "HeaderMask",
    "IcmpColumns",
    "Ipv4Columns",
    "Ipv6Columns",
    "Mask",
    "MplsColumns",
    "PppoeColumns",
    "SctpColumns",
    "TcpColumns",
    "UdpColumns",
    "VlanColumns",
    "VxlanColumns",
]

_Scalar = TypeVar("_Scalar", bound=np.generic)
U8 = np.uint8
U16 = np.uint16
U32 = np.uint32
U64 = np.uint64
Mask = NDArray[np.bool_]


class Column(Generic[_Scalar]):
    """One column of a burst or of one of its headers."""

    def __init__(self, dtype: type[_Scalar], doc: str) -> None:
        self._dtype = np.dtype(dtype)
        self.__doc__ = doc

    def __set_name__(self, owner: type[Columns], name: str) -> None:
        self._id = _columns.COLUMN_IDS[owner.header + name]

    @overload
    def __get__(self, owner: None, kind: object = None) -> Column[_Scalar]: ...
    @overload
    def __get__(self, owner: Columns, kind: object = None) -> NDArray[_Scalar]: ...
    def __get__(
        self, owner: Columns | None, kind: object = None
    ) -> NDArray[_Scalar] | Column[_Scalar]:
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

    def __set__(self, owner: Columns, value: Any) -> None:
        array = self.__get__(owner)
        if value is array:
            return
        try:
            array[...] = value
        except OverflowError:  # a number with more bits than the field: they are cut off
            array[...] = np.asarray(value, dtype=object) & np.iinfo(self._dtype).max


class HeaderMask:
    """A read-only mask of the packets with a header or a property."""

    def __init__(self, header: int, doc: str) -> None:
        self._header = header
        self.__doc__ = doc

    @overload
    def __get__(self, owner: None, kind: object = None) -> HeaderMask: ...
    @overload
    def __get__(self, owner: Columns, kind: object = None) -> Mask: ...
    def __get__(self, owner: Columns | None, kind: object = None) -> Mask | HeaderMask:
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


class BurstState:
    """State that the columns of one burst object share."""

    __slots__ = ("arrays", "length", "native", "ready", "views")

    def __init__(self, native: _columns.Columns) -> None:
        self.native = native
        self.length = 0
        self.ready: dict[int, NDArray[Any]] = {}
        self.views: dict[int, NDArray[Any]] = {}
        self.arrays: dict[int, NDArray[Any]] = {}


class Columns:
    """Columns of one header, or of the packets themselves."""

    __slots__ = ("burst",)  # and no others: an attribute that is no field is a mistake
    header = ""

    def __init__(self, burst: BurstState) -> None:
        self.burst = burst


class EthColumns(Columns):
    """Ethernet."""

    __slots__ = ()
    header = "eth."
    dst = Column(U8, "Destination address, n × 6 bytes.")
    src = Column(U8, "Source address, n × 6 bytes.")
    type = Column(U16, "EtherType after all VLAN tags.")


class VlanColumns(Columns):
    """The outermost VLAN tag; ``burst.vlan_count`` is the number of tags."""

    __slots__ = ()
    header = "vlan."
    tci = Column(U16, "Tag control information: priority, DEI, identifier.")
    id = Column(U16, "VLAN identifier, 12 bits.")
    priority = Column(U8, "Priority code point, 3 bits.")


class Ipv4Columns(Columns):
    """IPv4."""

    __slots__ = ()
    header = "ipv4."
    header_length = Column(U8, "Header length in words of 4 bytes. Read-only.")
    tos = Column(U8, "DSCP and ECN.")
    dscp = Column(U8, "Differentiated services code point, 6 bits.")
    ecn = Column(U8, "Explicit congestion notification, 2 bits.")
    total_length = Column(U16, "Bytes of header and payload.")
    id = Column(U16, "Identification.")
    flags = Column(U8, "Bit 1: do not fragment, bit 0: more fragments.")
    fragment_offset = Column(U16, "In units of 8 bytes.")
    ttl = Column(U8, "Time to live.")
    protocol = Column(U8, "Transport protocol.")
    checksum = Column(U16, "Header checksum; a write changes only this field.")
    src = Column(U32, "Source address as a number.")
    dst = Column(U32, "Destination address as a number.")


class Ipv6Columns(Columns):
    """IPv6."""

    __slots__ = ()
    header = "ipv6."
    traffic_class = Column(U8, "DSCP and ECN.")
    flow_label = Column(U32, "20 bits.")
    payload_length = Column(U16, "Bytes after the header of 40 bytes.")
    next_header = Column(U8, "Next header; burst.protocol skips extension headers.")
    hop_limit = Column(U8, "Hop limit.")
    src = Column(U8, "Source address, n × 16 bytes.")
    dst = Column(U8, "Destination address, n × 16 bytes.")
    src_high = Column(U64, "First 64 bits of the source address.")
    src_low = Column(U64, "Last 64 bits of the source address.")
    dst_high = Column(U64, "First 64 bits of the destination address.")
    dst_low = Column(U64, "Last 64 bits of the destination address.")


class TcpColumns(Columns):
    """TCP."""

    __slots__ = ()
    header = "tcp."
    src_port = Column(U16, "Source port.")
    dst_port = Column(U16, "Destination port.")
    seq = Column(U32, "Sequence number.")
    ack = Column(U32, "Acknowledgement number.")
    data_offset = Column(U8, "Header length in words of 4 bytes. Read-only.")
    flags = Column(U8, "CWR ECE URG ACK PSH RST SYN FIN, from the top.")
    window = Column(U16, "Window.")
    checksum = Column(U16, "Checksum; a write changes only this field.")
    urgent = Column(U16, "Urgent pointer.")


class UdpColumns(Columns):
    """UDP."""

    __slots__ = ()
    header = "udp."
    src_port = Column(U16, "Source port.")
    dst_port = Column(U16, "Destination port.")
    length = Column(U16, "Bytes of header and payload.")
    checksum = Column(U16, "Checksum, 0: none; a write changes only this field.")


class IcmpColumns(Columns):
    """ICMP and ICMPv6."""

    __slots__ = ()
    header = "icmp."
    type = Column(U8, "Type.")
    code = Column(U8, "Code.")
    checksum = Column(U16, "Checksum; a write changes only this field.")
    id = Column(U16, "Identifier of an echo; bytes 4 and 5 of any other message.")
    sequence = Column(U16, "Sequence number of an echo; bytes 6 and 7 of any other message.")


class ArpColumns(Columns):
    """ARP for IPv4 over Ethernet."""

    __slots__ = ()
    header = "arp."
    operation = Column(U16, "1: request, 2: reply.")
    sender_mac = Column(U8, "Sender's Ethernet address, n × 6 bytes.")
    sender_ip = Column(U32, "Sender's IPv4 address as a number.")
    target_mac = Column(U8, "Target's Ethernet address, n × 6 bytes.")
    target_ip = Column(U32, "Target's IPv4 address as a number.")


class MplsColumns(Columns):
    """The first MPLS label (RFC 3032)."""

    __slots__ = ()
    header = "mpls."
    label = Column(U32, "Label, 20 bits.")
    traffic_class = Column(U8, "Traffic class, 3 bits.")
    bottom = Column(U8, "1: the last label of the stack.")
    ttl = Column(U8, "Time to live.")


class PppoeColumns(Columns):
    """PPPoE, discovery and session (RFC 2516)."""

    __slots__ = ()
    header = "pppoe."
    code = Column(U8, "0: session data.")
    session = Column(U16, "Session identifier.")
    length = Column(U16, "Bytes after this header of 6 bytes.")


class SctpColumns(Columns):
    """SCTP; ``update_checksums`` makes its CRC32c again."""

    __slots__ = ()
    header = "sctp."
    src_port = Column(U16, "Source port.")
    dst_port = Column(U16, "Destination port.")
    tag = Column(U32, "Verification tag.")
    checksum = Column(U32, "CRC32c.")


class GreColumns(Columns):
    """GRE (RFC 2784)."""

    __slots__ = ()
    header = "gre."
    flags = Column(U16, "Flags and version; bit 15: checksum, 13: key, 12: sequence number.")
    protocol = Column(U16, "EtherType of the content.")


class VxlanColumns(Columns):
    """VXLAN (RFC 7348): UDP to port 4789."""

    __slots__ = ()
    header = "vxlan."
    flags = Column(U8, "0x08: the VNI is valid.")
    vni = Column(U32, "VXLAN network identifier, 24 bits.")


class GeneveColumns(Columns):
    """Geneve (RFC 8926): UDP to port 6081."""

    __slots__ = ()
    header = "geneve."
    options = Column(U8, "Length of the options, in words of 4 bytes. Read-only.")
    flags = Column(U8, "2: control packet, 1: critical options.")
    protocol = Column(U16, "EtherType of the content.")
    vni = Column(U32, "Virtual network identifier, 24 bits.")


class GtpuColumns(Columns):
    """GTP-U: UDP to port 2152."""

    __slots__ = ()
    header = "gtpu."
    flags = Column(U8, "Version, protocol type, and flags of optional fields.")
    type = Column(U8, "255: a packet of a user.")
    length = Column(U16, "Bytes after the first 8.")
    teid = Column(U32, "Tunnel endpoint identifier.")
