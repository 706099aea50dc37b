"""Links and addresses of a network namespace, over rtnetlink (RFC 3549).

sysfs knows less, and shows the namespace in which it was mounted, not that of the process.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Link", "Rtnetlink"]

# From linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/net_namespace.h.
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_GETLINK, _SETLINK, _NEWADDR, _GETADDR, _GETNSID = 18, 19, 20, 22, 90
_CREATE, _REPLACE = 0x400, 0x100
_IFA_ADDRESS, _IFA_LOCAL, _NODAD = 1, 2, 0x2
_HEADER, _LINK, _ADDRESS, _ATTRIBUTE = (
    struct.Struct("=IHHII"),
    struct.Struct("=BxHiII"),
    struct.Struct("=BBBBI"),
    struct.Struct("=HH"),
)
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_CARRIER, _IFLA_NETNSID, _IFLA_XDP = 18, 29, 33, 37, 43
_INFO_KIND = 1
_XDP_FD, _XDP_ATTACHED, _XDP_FLAGS, _XDP_PROGRAM = 1, 2, 3, 4
_XDP_MODES = {1: 1 << 2, 2: 1 << 1, 3: 1 << 3}
"""The flag that names the mode in which a program is attached: driver, generic, hardware."""
_SKIP_STATISTICS = 1 << 3
_NSID_FD, _NSID = 3, 1
_NO_NSID = -1
_RECEIVE_BYTES = 1 << 17

IFF_UP, IFF_LOOPBACK, IFF_PROMISC = 0x1, 0x8, 0x100
ETHERNET, LOOPBACK = 1, 772
"""Types of links (ARPHRD) whose packets are Ethernet frames."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it.

    Attributes:
        kind: the kernel's word for a virtual one: veth, bridge, bond, vlan, …; "" for others.
        type: type of its frames (ARPHRD).
        master: index of the bridge or bond of which it is a member; 0: none.
        lower: index of the interface below it, or of the other end of a veth; 0: none.
        namespace: number of the namespace in which `lower` is; None: in this one.
        xdp_program: number of the XDP program on it; 0: none.
        xdp_flags: flags with which that program is removed.
    """

    index: int
    name: str
    flags: int = 0
    type: int = ETHERNET
    kind: str = ""
    mtu: int = 1500
    address: str = ""
    has_carrier: bool = True
    master: int = 0
    lower: int = 0
    namespace: int | None = None
    xdp_program: int = 0
    xdp_flags: int = 0

    @property
    def is_up(self) -> bool:
        """It is switched on; it may still have no carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promiscuous(self) -> bool:
        """A user has made it promiscuous, and it stays so without a program that needs it."""
        return bool(self.flags & IFF_PROMISC)


class Rtnetlink:
    """A netlink socket of the namespace of the calling thread. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def links(self) -> list[Link]:
        """All interfaces, by index."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        body += _attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))
        return sorted(map(_link, self._ask(_GETLINK, _DUMP, body)), key=lambda link: link.index)

    def addresses(self) -> dict[int, list[str]]:
        """Addresses with prefix length, by index of the interface; without link-local ones."""
        found: dict[int, list[str]] = {}
        for body in self._ask(_GETADDR, _DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            _, prefix, _, _, index = _ADDRESS.unpack_from(body)
            values = _attributes(body[_ADDRESS.size :])
            data = values.get(2) or values.get(1)  # IFA_LOCAL; IFA_ADDRESS is a far end's, if there
            if data is not None and not (address := ipaddress.ip_address(data)).is_link_local:
                found.setdefault(index, []).append(f"{address}/{prefix}")
        return found

    def namespace_number(self, descriptor: int) -> int | None:
        """The number that this namespace gives the one of a descriptor; None: it has none."""
        body = bytes(4) + _attribute(_NSID_FD, struct.pack("=I", descriptor))
        for answer in self._ask(_GETNSID, 0, body):
            (number,) = struct.unpack("=i", _attributes(answer[4:])[_NSID])
            return None if number == _NO_NSID else int(number)
        return None

    def remove_xdp(self, link: Link) -> None:
        """Take the XDP program off an interface.

        Raises:
            OSError: the kernel refuses.
        """
        body = _LINK.pack(socket.AF_UNSPEC, 0, link.index, 0, 0)
        inner = _attribute(_XDP_FD, struct.pack("=i", -1))
        inner += _attribute(_XDP_FLAGS, struct.pack("=I", link.xdp_flags))
        body += _attribute(_IFLA_XDP | _NESTED, inner)
        for _ in self._ask(_SETLINK, _ACK, body):
            pass

    def set_mac(self, index: int, mac: bytes) -> None:
        """Set the MAC address of an interface.

        Raises:
            OSError: the kernel refuses.
        """
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _attribute(_IFLA_ADDRESS, mac)
        for _ in self._ask(_SETLINK, _ACK, body):
            pass

    def add_address(self, index: int, address: str) -> None:
        """Give an interface an address with the length of its prefix, at once.

        Raises:
            OSError: the kernel refuses.
        """
        one = ipaddress.ip_interface(address)
        family = socket.AF_INET if one.version == 4 else socket.AF_INET6
        body = _ADDRESS.pack(family, one.network.prefixlen, _NODAD, 0, index)
        body += _attribute(_IFA_LOCAL, one.packed) + _attribute(_IFA_ADDRESS, one.packed)
        for _ in self._ask(_NEWADDR, _ACK | _CREATE | _REPLACE, body):
            pass

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        length = _HEADER.size + len(body)
        head = _HEADER.pack(length, kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            while data:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                message, data = data[_HEADER.size : length], data[_aligned(length) :]
                if sequence != self._sequence:
                    continue  # the rest of an answer that was not read to its end
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", message)
                    if number == 0:
                        return
                    raise OSError(-number, os.strerror(-number))
                yield message
            if not flags & (_DUMP | _ACK):
                return


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(_aligned(length) - length)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return found


def _link(body: bytes) -> Link:
    _, type_, index, flags, _ = _LINK.unpack_from(body)
    values = _attributes(body[_LINK.size :])

    def number(kind: int, default: int = 0) -> int:
        data = values.get(kind)
        return default if data is None else int.from_bytes(data, sys.byteorder, signed=True)

    info = _attributes(values.get(_IFLA_LINKINFO, b""))
    xdp = _attributes(values.get(_IFLA_XDP, b""))
    lower = number(_IFLA_LINK)
    return Link(
        index,
        _text(values[_IFLA_IFNAME]),
        flags,
        type_,
        _text(info.get(_INFO_KIND, b"")),
        number(_IFLA_MTU),
        values.get(_IFLA_ADDRESS, b"").hex(":"),
        bool(number(_IFLA_CARRIER, 1)),
        number(_IFLA_MASTER),
        0 if lower == index and _IFLA_NETNSID not in values else lower,
        number(_IFLA_NETNSID) if _IFLA_NETNSID in values else None,
        int.from_bytes(xdp.get(_XDP_PROGRAM, b""), sys.byteorder),
        _XDP_MODES.get(xdp.get(_XDP_ATTACHED, b"\0")[0], 0),
    )


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")
