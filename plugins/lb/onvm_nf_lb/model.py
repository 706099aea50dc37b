# SPDX-License-Identifier: Apache-2.0
"""What the load balancer does, in plain Python: slow, short, the oracle of the C kernel.

Readings chosen:

* Permutations are those of the Maglev paper; a backend's offset and skip are BLAKE2b of its name.
  Backends take their turns in the order of their names, so the order of a configuration does not
  matter. A weighted backend takes part in weight / max(weights) of the turns.
* A connection is opened by any packet to a VIP and stays with its backend until it is idle, or
  until a SYN follows after both ends have closed it.
* Everything that is neither to a VIP nor of a connection passes unchanged.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from onvm_nf_lb.config import LbConfig, Vip
from onvm_sdk.headers import L3, L4, TCP, UDP, Headers, read_headers

__all__ = ["Drop", "LbModel", "flow_hash", "maglev_fill", "maglev_table", "permutation"]

_NS = 1_000_000_000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_MASK = (1 << 64) - 1
_End = tuple[bytes, int]
_Key = tuple[int, _End, _End]  # protocol, source, destination


def permutation(name: str, size: int) -> tuple[int, int]:
    """Give offset and skip of a backend in a table of `size` slots."""
    offset, skip = (
        int.from_bytes(blake2b(name.encode(), digest_size=8, person=person).digest(), "little")
        for person in (b"offset", b"skip")
    )
    return offset % size, skip % (size - 1) + 1


def maglev_fill(
    permutations: Sequence[tuple[int, int]], size: int, weights: Sequence[int]
) -> array[int]:
    """Fill a lookup table from (offset, skip) of each backend, in their order."""
    table, position = array("l", [-1]) * size, [offset for offset, _ in permutations]
    credit, filled = [0] * len(permutations), 0
    while True:
        for i, (_, skip) in enumerate(permutations):
            credit[i] += weights[i]
            if credit[i] < max(weights):
                continue
            credit[i] -= max(weights)
            while table[position[i]] >= 0:
                position[i] = (position[i] + skip) % size
            table[position[i]] = i
            filled += 1
            if filled == size:
                return table


def maglev_table(
    backends: Sequence[str], size: int = 65537, weights: Sequence[int] | None = None
) -> array[int]:
    """Spread backends over a consistent-hashing lookup table.

    Args:
        backends: names, unique; their order does not change which name owns a slot.
        size: slots, a prime well above ``len(backends)``.
        weights: one per backend, 1 or more; None: all equal.

    Returns:
        `size` entries, each an index into `backends`. With equal weights two
        backends differ by at most one slot.

    Raises:
        ValueError: `backends` is empty or has more names than `size`.

    Source:
        Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
    """
    if not 0 < len(backends) < size:
        raise ValueError(f"expected 1 to {size - 1} backends, got {len(backends)}")
    given = [1] * len(backends) if weights is None else weights
    order = sorted(range(len(backends)), key=backends.__getitem__)
    table = maglev_fill(
        [permutation(backends[i], size) for i in order], size, [given[i] for i in order]
    )
    return array("l", (order[entry] for entry in table))


def flow_hash(src: _End, dst: _End, protocol: int, version: int, by_client: bool) -> int:
    """Hash that chooses the slot: FNV-1a, then the finalizer of MurmurHash3."""
    data = src[0].ljust(16, b"\0")
    if not by_client:
        data += dst[0].ljust(16, b"\0")
        data += src[1].to_bytes(2, "big") + dst[1].to_bytes(2, "big") + bytes((protocol, version))
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & _MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & _MASK
    return value ^ value >> 33


class Drop(Exception):  # noqa: N818  a verdict
    """The packet goes; `args` has the reason."""


@dataclass
class _Connection:
    client: _End
    vip: _End
    backend: _End
    used_ns: int
    idle_ns: int = 0
    seen: set[bool] = field(default_factory=set)  # True: the backend
    finished: set[bool] = field(default_factory=set)
    is_reset: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_reset or len(self.finished) == 2


class LbModel:
    """`balance` says what becomes of one end of a packet."""

    def __init__(self, config: LbConfig) -> None:
        self.there: dict[_Key, _Connection] = {}
        self.back: dict[_Key, _Connection] = {}
        self.update(config)

    def update(self, config: LbConfig) -> None:
        """Take other VIPs and backends; connections stay where they are."""
        self.config = config
        self.tables = {
            vip: maglev_table(
                [b.name for b in vip.backends],
                config.settings.table_size,
                [b.weight for b in vip.backends],
            )
            for vip in config.vips
            if vip.backends
        }

    def expire(self, now_ns: int) -> None:
        """Forget idle connections."""
        for table in (self.there, self.back):
            for key, connection in list(table.items()):
                if now_ns - connection.used_ns >= connection.idle_ns:
                    del table[key]

    def balance(self, frame: bytes, now_ns: int) -> tuple[_End, _End] | None:
        """Give the ends of a packet as it leaves, or None if it passes unchanged."""
        h = read_headers(frame)
        if h.l3 is not L3.OK:
            if h.l3 is L3.NONIP:
                return None
            raise Drop("malformed")
        if h.l4 is not L4.OK or h.is_fragment:
            is_vip = any(vip.address.packed == h.dst for vip in self.config.vips)
            if h.l4 is L4.NONE or not is_vip:
                return None
            raise Drop("fragment" if h.is_fragment else "malformed")
        if h.protocol not in (TCP, UDP):
            return None
        src, dst = (h.src, h.src_port), (h.dst, h.dst_port)
        key = (h.protocol, src, dst)
        connection = self.there.get(key)
        if connection is not None and connection.is_closed and _opens(h):
            self._close(key, connection)
            connection = None
        if connection is None and key in self.back:
            connection = self.back[key]
            self._use(connection, h, True, now_ns)
            return connection.vip, dst
        if connection is None:
            vip = self._vip(h)
            if vip is None:
                return None
            connection = self._open(vip, key, h, now_ns)
        self._use(connection, h, False, now_ns)
        return src, connection.backend

    def _vip(self, h: Headers) -> Vip | None:
        for port in (h.dst_port, 0):
            for vip in self.config.vips:
                if (vip.address.packed, vip.protocol, vip.port) == (h.dst, h.protocol, port):
                    return vip
        return None

    def _open(self, vip: Vip, key: _Key, h: Headers, now_ns: int) -> _Connection:
        if not vip.backends:
            raise Drop("no_backend")
        protocol, src, dst = key
        table = self.tables[vip]
        slot = flow_hash(src, dst, protocol, h.version, vip.by_client) % len(table)
        chosen = vip.backends[table[slot]]
        backend = (chosen.address.packed, chosen.port or dst[1])
        reply = (protocol, backend, src)
        if reply in self.back or reply in self.there:
            raise Drop("conflict")
        if len(self.there) >= self.config.settings.max_connections:
            raise Drop("table_full")
        connection = _Connection(src, dst, backend, now_ns)
        self.there[key] = self.back[reply] = connection
        return connection

    def _close(self, key: _Key, connection: _Connection) -> None:
        del self.there[key]
        del self.back[key[0], connection.backend, connection.client]

    def _use(self, connection: _Connection, h: Headers, is_reply: bool, now_ns: int) -> None:
        text = self.config.settings
        connection.used_ns, seconds = now_ns, text.udp_s
        if h.protocol == TCP:
            if _opens(h) and connection.is_closed:
                connection.seen.clear()
                connection.finished.clear()
            connection.seen.add(is_reply)
            if h.tcp_flags & _FIN:
                connection.finished.add(is_reply)
            connection.is_reset = bool(h.tcp_flags & _RST)
            established = len(connection.seen) == 2 and not connection.is_closed
            seconds = text.tcp_established_s if established else text.tcp_transitory_s
        connection.idle_ns = seconds * _NS


def _opens(h: Headers) -> bool:
    return h.tcp_flags & (_SYN | _ACK | _RST) == _SYN
