"""FiveTuple: addresses, ports and protocol, the name of a flow."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from onvm_sdk.packet import PacketView

__all__ = ["FiveTuple"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PACKED = struct.Struct("!BBxx16s16sHH")
"""The layout of ``struct onvm_tuple``: protocol, IP version, addresses, ports."""


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """Addresses, ports and protocol of one direction of a flow.

    Ports are 0 if the protocol has none. Both ports of an ICMP echo are its identifier, so a
    request and its reply are each other's reverse. All numbers are in host byte order.

    Raises:
        ValueError: the addresses are of different IP versions, or a number is out of range.
    """

    src: Address
    dst: Address
    src_port: int
    dst_port: int
    protocol: int

    def __post_init__(self) -> None:
        if self.src.version != self.dst.version:
            raise ValueError(f"{self.src} and {self.dst} are of different IP versions")
        for name, port in (("src_port", self.src_port), ("dst_port", self.dst_port)):
            if not 0 <= port < 65536:
                raise ValueError(f"{name}: {port}: expected a number from 0 to 65535")
        if not 0 <= self.protocol < 256:
            raise ValueError(f"protocol: {self.protocol}: expected a number from 0 to 255")

    @classmethod
    def make(
        cls, src: str | int, src_port: int, dst: str | int, dst_port: int, protocol: int
    ) -> Self:
        """Make one from addresses as text or as numbers; one below 2**32 is an IPv4 address."""
        source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
        return cls(source, destination, src_port, dst_port, protocol)

    @classmethod
    def of(cls, packet: PacketView) -> Self | None:
        """Read the 5-tuple of a packet; None if it is not IP."""
        return cls.unpack(packet.flow_key)

    @classmethod
    def unpack(cls, key: Buffer) -> Self | None:
        """Read a packed 5-tuple, such as `PacketView.flow_key`; None if the packet is not IP.

        Raises:
            struct.error: `key` is not 40 bytes.
        """
        protocol, version, source, destination, src_port, dst_port = PACKED.unpack(key)
        size = {4: 4, 6: 16}.get(version)
        if size is None:
            return None
        src = ipaddress.ip_address(source[:size])
        dst = ipaddress.ip_address(destination[:size])
        return cls(src, dst, src_port, dst_port, protocol)

    def pack(self) -> bytes:
        """Return its 40 bytes, the key for look-ups in `onvm_sdk.tables`."""
        return PACKED.pack(
            self.protocol,
            self.ip_version,
            self.src.packed,
            self.dst.packed,
            self.src_port,
            self.dst_port,
        )

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return self.src.version

    def reversed(self) -> Self:
        """Return the 5-tuple of the other direction."""
        return type(self)(self.dst, self.src, self.dst_port, self.src_port, self.protocol)

    def __str__(self) -> str:
        wrap = "[{}]" if self.ip_version == 6 else "{}"
        source, destination = wrap.format(self.src), wrap.format(self.dst)
        return f"{source}:{self.src_port} > {destination}:{self.dst_port} / {self.protocol}"
