"""Offloads of an interface: features of the kernel's ``ethtool`` interface, by their names there.

Threads: an `Ethtool` object works in the network namespace of the thread that made it.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "CHECKSUMS",
    "MERGING",
    "SEGMENTATION",
    "VLAN_INSERTION",
    "VLAN_PARSING",
    "Ethtool",
    "Feature",
    "short_names",
]

# From linux/sockios.h and linux/ethtool.h.
_SIOCETHTOOL, _SIOCSIFMTU = 0x8946, 0x8922
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_GDRVINFO, _GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES, _GCHANNELS = (
    0x3,
    0x1B,
    0x37,
    0x3A,
    0x3B,
    0x3C,
)
_SS_FEATURES = 4
_NAME_BYTES = 32
_BLOCK_BITS = 32

MERGING = (
    "rx-lro",
    "rx-gro-hw",
    "rx-gro",
    "rx-gro-list",
    "rx-udp-gro-forwarding",
)
"""The receiver merges packets into larger ones, which fit no frame of an XDP socket."""
VLAN_PARSING = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
"""The receiver takes VLAN tags out of packets; an XDP socket never sees them."""
VLAN_INSERTION = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")
"""The sender leaves it to hardware to put in VLAN tags."""
CHECKSUMS = (
    "tx-checksum-ipv4",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv6",
    "tx-checksum-sctp",
    "tx-checksum-fcoe-crc",
)
"""The sender leaves checksums to hardware; a veth has none, and the packets go without."""
SEGMENTATION = (
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
)
"""The sender leaves cutting large packets to hardware."""
_SHORT = {
    "rx-lro": "lro",
    "rx-gro-hw": "rx-gro-hw",
    "rx-gro": "gro",
    "rx-checksum": "rx",
    "rx-vlan-hw-parse": "rxvlan",
    "tx-vlan-hw-insert": "txvlan",
    "tx-generic-segmentation": "gso",
    **dict.fromkeys(CHECKSUMS, "tx"),
    "tx-tcp-segmentation": "tso",
    "tx-tcp-ecn-segmentation": "tso",
    "tx-tcp-mangleid-segmentation": "tso",
    "tx-tcp6-segmentation": "tso",
}


def short_names(features: Iterable[str]) -> list[str]:
    """The names by which ``ethtool -K`` switches these features, without repetition."""
    return list(dict.fromkeys(_SHORT.get(name, name) for name in features))


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of an interface.

    Attributes:
        is_active: it works now.
        is_wanted: a user or the driver has asked for it; it works if others allow it.
        can_change: a user may switch it.
    """

    is_active: bool
    is_wanted: bool
    can_change: bool


class Ethtool:
    """Settings of interfaces by ``ioctl``. A context manager.

    Raises, from all calls:
        OSError: there is no such interface, or it does not have the setting, or the process may
            not change it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Ethtool:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def driver(self, interface: str) -> str:
        """Name of its driver; "" if it has none."""
        try:
            data = self._call(interface, struct.pack("=I192x", _GDRVINFO))
        except OSError:
            return ""
        return data[4:36].partition(b"\0")[0].decode(errors="replace")

    def features(self, interface: str) -> dict[str, Feature]:
        """All features of an interface by name."""
        names = self._names(interface)
        n_blocks = -(-len(names) // _BLOCK_BITS)
        data = self._call(interface, struct.pack(f"=II{16 * n_blocks}x", _GFEATURES, n_blocks))
        blocks = struct.unpack_from(f"={4 * n_blocks}I", data, 8)
        found = {}
        for bit, name in enumerate(names):
            block, shift = divmod(bit, _BLOCK_BITS)
            available, wanted, active, never = (
                bool(word >> shift & 1) for word in blocks[4 * block : 4 * block + 4]
            )
            if name:
                found[name] = Feature(active, wanted, available and not never)
        return found

    def set_features(self, interface: str, wanted: Mapping[str, bool]) -> None:
        """Switch features on or off."""
        names = self._names(interface)
        n_blocks = -(-len(names) // _BLOCK_BITS)
        words = [0] * (2 * n_blocks)
        for bit, name in enumerate(names):
            if name in wanted:
                block, shift = divmod(bit, _BLOCK_BITS)
                words[2 * block] |= 1 << shift
                words[2 * block + 1] |= int(wanted[name]) << shift
        self._call(interface, struct.pack(f"=II{2 * n_blocks}I", _SFEATURES, n_blocks, *words))

    def receive_queues(self, interface: str) -> tuple[int, int]:
        """Queues that only receive, and queues that also send; zeros if it does not say."""
        try:
            data = self._call(interface, struct.pack("=I32x", _GCHANNELS))
        except OSError:
            return 0, 0
        _, _, _, _, _, receive, _, _, combined = struct.unpack("=9I", data)
        return receive, combined

    def set_mtu(self, interface: str, mtu: int) -> None:
        """Set the MTU."""
        fcntl.ioctl(self._socket, _SIOCSIFMTU, _request(interface, struct.pack("=i", mtu)))

    def set_flag(self, interface: str, flag: int, is_set: bool) -> None:
        """Set or clear one of its flags (``IFF_``)."""
        data = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, _request(interface))
        (flags,) = struct.unpack_from("=H", data, 16)
        flags = flags | flag if is_set else flags & ~flag
        fcntl.ioctl(self._socket, _SIOCSIFFLAGS, _request(interface, struct.pack("=H", flags)))

    def _names(self, interface: str) -> list[str]:
        data = self._call(interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
        _, _, mask, count = struct.unpack("=IIQI", data)
        if not mask:
            return []
        data = self._call(
            interface,
            struct.pack(f"=III{_NAME_BYTES * count}x", _GSTRINGS, _SS_FEATURES, count),
        )[12:]
        return [
            data[at : at + _NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
            for at in range(0, _NAME_BYTES * count, _NAME_BYTES)
        ]

    def _call(self, interface: str, data: bytes) -> bytes:
        """Let the kernel read and change `data`."""
        room = array.array("B", data)
        address, _ = room.buffer_info()
        fcntl.ioctl(self._socket, _SIOCETHTOOL, _request(interface, struct.pack("=Q", address)))
        return room.tobytes()


def _request(interface: str, data: bytes = b"") -> bytes:
    """A ``struct ifreq``."""
    return struct.pack("=16s24s", interface.encode()[:15], data)
