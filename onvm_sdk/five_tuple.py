"""FiveTuple: what names a flow."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from onvm_sdk.packet import PacketView

__all__ = ["FiveTuple"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """Addresses, ports and protocol of one direction of a flow.

    Ports are 0 where the protocol has none; those of an ICMP echo are both its identifier, so
    that a request and its reply are each other's reverse.
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
                raise ValueError(f"{name} {port}: a number below 65536 expected")
        if not 0 <= self.protocol < 256:
            raise ValueError(f"protocol {self.protocol}: a number below 256 expected")

    @classmethod
    def make(
        cls, src: str | int, src_port: int, dst: str | int, dst_port: int, protocol: int
    ) -> Self:
        """Build one from addresses as text or, IPv4 below 2**32, as numbers."""
        source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
        return cls(source, destination, src_port, dst_port, protocol)

    @classmethod
    def of(cls, packet: PacketView) -> Self | None:
        """Read the 5-tuple of a packet; None when it is not IP."""
        src: Address
        dst: Address
        if packet.is_ipv4:
            src = ipaddress.IPv4Address(packet.ipv4.src)
            dst = ipaddress.IPv4Address(packet.ipv4.dst)
        elif packet.is_ipv6:
            src = ipaddress.IPv6Address(packet.ipv6.src)
            dst = ipaddress.IPv6Address(packet.ipv6.dst)
        else:
            return None
        ports = (0, 0)
        if packet.is_tcp:
            ports = (packet.tcp.src_port, packet.tcp.dst_port)
        elif packet.is_udp:
            ports = (packet.udp.src_port, packet.udp.dst_port)
        elif packet.is_icmp and packet.icmp.type in (0, 8, 128, 129):
            ports = (packet.icmp.id, packet.icmp.id)
        return cls(src, dst, *ports, packet.protocol)

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return self.src.version

    def reversed(self) -> Self:
        """Give the 5-tuple of the other direction."""
        return type(self)(self.dst, self.src, self.dst_port, self.src_port, self.protocol)

    def __str__(self) -> str:
        wrap = "[{}]" if self.ip_version == 6 else "{}"
        source, destination = wrap.format(self.src), wrap.format(self.dst)
        return f"{source}:{self.src_port} > {destination}:{self.dst_port} / {self.protocol}"
