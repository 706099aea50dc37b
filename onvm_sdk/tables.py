# SPDX-License-Identifier: Apache-2.0
"""Look-up tables for network functions, built on DPDK's algorithms.

* `Acl`: first match by priority over 5-tuples (rte_acl), IPv4 or IPv6.
* `Lpm`: longest prefix match (rte_fib), IPv4 or IPv6.
* `FlowTable`: exact match with a value per flow and idle expiry (rte_hash).

The first table of a process starts DPDK's environment in ordinary memory: no privileges, no huge
pages, 0.1 s. A process without tables never starts it.

Bulk look-ups take any C-contiguous buffer (a NumPy array, bytes, …) and return a NumPy array, or
fill the buffer given as ``out``; only the former imports NumPy.

Kernels: a table may be the state of a ``@kernel`` or a part of it. `Acl.find`, `Lpm.find`,
`FlowTable.find`, `try_add`, `remove`, `touch`, `value` and ``len()`` mean the same there, compiled
into direct calls, and changes are seen by both sides. `find` and `try_add` give -1 for nothing, as
``str.find`` does. The table must live as long as the kernel may run.

Threads: one thread per table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from onvm_sdk._native import tables as _native
from onvm_sdk.five_tuple import PACKED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = [
    "FLOW_KEY_BYTES", "MISS", "Acl", "AclRule", "FlowTable", "Lpm", "pack_tuple", "start",
]  # fmt: skip

MISS = _native.MISS
"""What `Lpm.lookup` gives for an address without a route."""
FLOW_KEY_BYTES = PACKED.size
"""Size of a packed 5-tuple, as ``flow_key`` of packets and bursts."""

_ANY_PORT = range(65536)
_NUMBERS = {"I", "@I", "=I", "<I"}  # of 32 bits in this machine's order; network order is ">I"


def start(megabytes: int = 0) -> None:
    """Start DPDK's environment now, with address space for larger tables if need be.

    Args:
        megabytes: of address space for tables; 0 takes 1024. Only the first call counts.
    """
    _native.init(megabytes)


class _Table:
    """What tables have in common: a handle that is freed once."""

    def __init__(self, handle: Any) -> None:
        self._open: Any = handle

    @property
    def _handle(self) -> Any:
        if self._open is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._open

    @property
    def address(self) -> int:
        """Where the table lies, for native code."""
        return _native.address(self._handle)

    def close(self) -> None:
        """Free the table. Closing twice is allowed."""
        handle, self._open = self._open, None
        if handle is not None:
            _native.release(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _records(buffer: Buffer, size: int, what: str) -> tuple[memoryview, int]:
    """View `buffer` as bytes and count its records of `size` bytes."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError(f"{what} must be C-contiguous")
    if view.nbytes % size:
        raise ValueError(f"{what} must be a multiple of {size} bytes, not {view.nbytes}")
    return view, view.nbytes // size


def _output(out: Buffer | None, length: int, dtype: str) -> Any:
    if out is None:
        import numpy

        return numpy.empty(length, dtype)
    if memoryview(out).nbytes < 4 * length:
        raise ValueError(f"out must have room for {length} values of 4 bytes")
    return out


@dataclass(frozen=True, slots=True)
class AclRule:
    """One rule of an `Acl`; what is left out matches everything.

    Args:
        src: network, as "10.0.0.0/8"; None matches any address.
        dst: likewise.
        protocol: IP protocol number; None matches any.
        src_ports: half-open, as in ``range(80, 81)``.
        dst_ports: likewise.
        priority: the highest that matches wins; None: rules count in the order given.
        value: what a look-up gives, 1..2**32-2; None: the rule's place in the order, from 1.
    """

    src: str | IPv4Network | IPv6Network | None = None
    dst: str | IPv4Network | IPv6Network | None = None
    protocol: int | None = None
    src_ports: range = _ANY_PORT
    dst_ports: range = _ANY_PORT
    priority: int | None = None
    value: int | None = None

    def _native(self, version: int, index: int, count: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "protocol": self.protocol or 0,
            "protocol_mask": 0 if self.protocol is None else 0xFF,
            "priority": count - index if self.priority is None else self.priority,
            "value": index + 1 if self.value is None else self.value,
        }
        for side, given in (("src", self.src), ("dst", self.dst)):
            net = ip_network(("0.0.0.0/0", "::/0")[version == 6] if given is None else given)
            if net.version != version:
                raise ValueError(f"rule {index}: {side} {net} is not IPv{version}")
            fields[side] = net.network_address.packed.ljust(16, b"\0")
            fields[f"{side}_prefix"] = net.prefixlen
        for side, ports in (("src", self.src_ports), ("dst", self.dst_ports)):
            if not 0 <= ports.start < ports.stop <= 65536 or ports.step != 1:
                raise ValueError(f"rule {index}: {side}_ports {ports} is not a range of ports")
            fields[f"{side}_port_first"] = ports.start
            fields[f"{side}_port_last"] = ports.stop - 1
        return fields


def pack_tuple(src: str, dst: str, protocol: int, src_port: int = 0, dst_port: int = 0) -> bytes:
    """Give the 40 bytes that `Acl.lookup` wants for one packet (``struct onvm_tuple``)."""
    source = ip_address(src)
    addresses = source.packed, ip_address(dst).packed
    return PACKED.pack(protocol, source.version, *addresses, src_port, dst_port)


class Acl(_Table):
    """Rules over 5-tuples; the best match of a packet is found in one walk, whatever their number.

    Args:
        rules: at least one.
        version: IP version of all addresses.

    Raises:
        NativeError: the tries of these rules would not fit into half a gigabyte.

    Example:
        >>> with Acl([AclRule(dst="10.0.0.0/8", protocol=6, dst_ports=range(80, 81))]) as acl:
        ...     acl.match("192.0.2.1", "10.1.2.3", 6, 1024, 80)
        1
    """

    def __init__(self, rules: Iterable[AclRule], *, version: int = 4) -> None:
        self.version = version
        given = list(rules)
        fields = [rule._native(version, i, len(given)) for i, rule in enumerate(given)]
        super().__init__(_native.acl_create(version, fields))

    @property
    def kernel_type(self) -> tuple[Any, ...]:
        """What the code of a kernel depends on that has this table in its state."""
        return "Acl", self.version

    def lookup(self, tuples: Buffer, out: Buffer | None = None) -> NDArray[np.uint32]:
        """Give the value of each tuple's best rule, 0 where none matches.

        A tuple of another IP version, or of what is not IP, matches none.

        Args:
            tuples: packed 5-tuples one behind the other: ``burst.flow_key``, or of `pack_tuple`.
            out: filled with uint32 and returned, if given.
        """
        view, length = _records(tuples, FLOW_KEY_BYTES, "tuples")
        values = _output(out, length, "u4")
        _native.acl_lookup(self._handle, view, values, length)
        return values  # type: ignore[no-any-return]

    def match(
        self, src: str, dst: str, protocol: int, src_port: int = 0, dst_port: int = 0
    ) -> int | None:
        """Give the value of one packet's best rule, or None."""
        value = self.find(pack_tuple(src, dst, protocol, src_port, dst_port))
        return value if value >= 0 else None

    def find(self, key: Buffer) -> int:
        """Give the value of the best rule of a packed 5-tuple, as ``pkt.flow_key``; -1: no match.

        Both ports of an ICMP echo are its identifier there: rules with ports should say of which
        protocol.
        """
        out = bytearray(4)
        if _records(key, FLOW_KEY_BYTES, "key")[1] != 1:
            raise ValueError(f"key must be {FLOW_KEY_BYTES} bytes")
        self.lookup(key, out)
        return memoryview(out).cast("I")[0] or -1


class Lpm(_Table):
    """Longest prefix match: prefix → number.

    Args:
        max_routes: prefixes it must hold. Each table takes 64 MiB besides.
        version: IP version of all prefixes.

    Example:
        >>> with Lpm(16) as routes:
        ...     routes.add("10.0.0.0/8", 1)
        ...     routes.add("10.1.0.0/16", 2)
        ...     routes.find("10.1.2.3"), routes.find("192.0.2.1")
        (2, -1)
    """

    def __init__(self, max_routes: int = 65536, *, version: int = 4) -> None:
        self.version = version
        super().__init__(_native.lpm_create(version, max_routes))

    @property
    def kernel_type(self) -> tuple[Any, ...]:
        """What the code of a kernel depends on that has this table in its state."""
        return "Lpm", self.version

    def _network(self, prefix: str | IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
        net = ip_network(prefix)
        if net.version != self.version:
            raise ValueError(f"{net} is not IPv{self.version}")
        return net

    def add(self, prefix: str | IPv4Network | IPv6Network, value: int) -> None:
        """Route `prefix` to `value`, 0..2**31-2; a prefix that is there gets the new value.

        Raises:
            TableFullError: no room for another prefix, or for its second-level table.
        """
        net = self._network(prefix)
        _native.lpm_add(self._handle, net.network_address.packed, net.prefixlen, value)

    def remove(self, prefix: str | IPv4Network | IPv6Network) -> None:
        """Forget `prefix`; the next shorter one takes its place.

        Raises:
            NativeError: there is no such prefix.
        """
        net = self._network(prefix)
        _native.lpm_delete(self._handle, net.network_address.packed, net.prefixlen)

    def lookup(self, addresses: Buffer, out: Buffer | None = None) -> NDArray[np.uint32]:
        """Give each address's value, `MISS` where no prefix matches.

        Args:
            addresses: 4 or 16 bytes each, network order, one behind the other, as
                ``burst.ipv6.dst``; or IPv4 as numbers of 32 bits, as ``burst.ipv4.dst``.
            out: filled with uint32 and returned, if given.

        Raises:
            ValueError: `addresses` are numbers of another size, or IPv6 as numbers.
        """
        given = memoryview(addresses)
        if self.version == 4 and given.format in _NUMBERS:
            import numpy

            addresses = numpy.asarray(addresses).astype(">u4").data
        elif given.itemsize != 1 and (self.version, given.format) != (4, ">I"):
            wanted = "bytes or numbers of 32 bits" if self.version == 4 else "bytes"
            raise ValueError(f"addresses: expected {wanted}, not an array of {given.format!r}")
        view, length = _records(addresses, 4 if self.version == 4 else 16, "addresses")
        values = _output(out, length, "u4")
        _native.lpm_lookup(self._handle, view, values, length)
        return values  # type: ignore[no-any-return]

    def find(self, address: str | int, low: int | None = None) -> int:
        """Give one address's value; -1: no prefix matches.

        Args:
            address: as text or number, or, with `low`, the upper 64 bits of an IPv6 address:
                ``routes.find(pkt.ipv4.dst)``, ``routes.find(pkt.ipv6.dst_high, pkt.ipv6.dst_low)``.
                Kernels have no text and no numbers of 128 bits.
            low: the lower 64 bits.
        """
        if not isinstance(address, str):
            address = index(address) if low is None else index(address) << 64 | index(low)
        key = IPv4Address(address) if self.version == 4 else IPv6Address(address)
        out = bytearray(4)
        self.lookup(key.packed, out)
        value = memoryview(out).cast("I")[0]
        return -1 if value == MISS else value


class FlowTable(_Table):
    """Exact match from a fixed-size key to a slot with a value, forgotten when idle.

    A flow keeps its slot until it is removed; a slot is a number below `capacity`, at which an NF
    may keep columns of its own.

    Args:
        capacity: flows.
        key_bytes: 1..64.
        value_bytes: 0..256, kept beside each flow and zero when it is added.

    Example:
        >>> with FlowTable(1024, key_bytes=13, value_bytes=8) as flows:
        ...     slot = flows.add(b"k" * 13, now_ns=0)
        ...     flows.value(slot)[0] = 7
        ...     flows.expire(now_ns=10, idle_ns=10), len(flows)
        (1, 0)
    """

    def __init__(self, capacity: int, key_bytes: int, value_bytes: int = 0) -> None:
        self.capacity = capacity
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        super().__init__(_native.flow_create(capacity, key_bytes, value_bytes))

    @property
    def kernel_type(self) -> tuple[Any, ...]:
        """What the code of a kernel depends on that has this table in its state."""
        return "FlowTable", self.key_bytes, self.value_bytes

    def _key(self, key: Buffer) -> bytes:
        data = bytes(key)
        if len(data) != self.key_bytes:
            raise ValueError(f"key must be {self.key_bytes} bytes, not {len(data)}")
        return data

    def _used(self, slot: int) -> int:
        if not 0 <= slot < 1 << 31 or _native.flow_key(self._handle, slot, 0) is None:
            raise KeyError(f"no flow has slot {slot}")
        return slot

    def add(self, key: Buffer, now_ns: int | None = None) -> int:
        """Give the slot of the flow, made if it was not there, and mark it as used.

        Args:
            now_ns: time of use; None reads the monotonic clock.

        Raises:
            TableFullError: `capacity` flows are there.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        return _native.flow_add(self._handle, self._key(key), now)

    def try_add(self, key: Buffer, now_ns: int | None = None) -> int:
        """Do as `add`; give -1 when the table is full."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        return _native.flow_try_add(self._handle, self._key(key), now)

    def find(self, key: Buffer) -> int:
        """Give the slot of the flow; -1: there is none. That alone is not a use."""
        return max(_native.flow_lookup(self._handle, self._key(key)), -1)

    def lookup(self, keys: Buffer, out: Buffer | None = None) -> NDArray[np.int32]:
        """Give the slot of each flow, below 0 where there is none.

        Args:
            keys: `key_bytes` each, one behind the other.
            out: filled with int32 and returned, if given.
        """
        view, length = _records(keys, self.key_bytes, "keys")
        slots = _output(out, length, "i4")
        _native.flow_lookup_bulk(self._handle, view, slots, length)
        return slots  # type: ignore[no-any-return]

    def add_bulk(
        self, keys: Buffer, now_ns: int | None = None, out: Buffer | None = None
    ) -> NDArray[np.int32]:
        """Do as `try_add` for many keys: give each one's slot, below 0 where the table is full.

        Args:
            keys: `key_bytes` each, one behind the other, as ``burst.flow_key``.
            out: filled with int32 and returned, if given.
        """
        view, length = _records(keys, self.key_bytes, "keys")
        slots = _output(out, length, "i4")
        now = time.monotonic_ns() if now_ns is None else now_ns
        _native.flow_add_bulk(self._handle, view, slots, length, now)
        return slots  # type: ignore[no-any-return]

    def remove(self, key: Buffer) -> bool:
        """Forget the flow; False if it was not there."""
        return _native.flow_delete(self._handle, self._key(key))

    def value(self, slot: int) -> memoryview:
        """Give the flow's value to read and write, without a copy.

        Bytes: a number above 255 raises ValueError, and is cut in a compiled kernel, where the
        value is an array. Count in arrays of your own, with the slot as an index.

        Lifetime: until the flow is removed or the table closed; do not use it afterwards.
        """
        return _native.flow_value(self._handle, self._used(slot), self.value_bytes)

    def key(self, slot: int) -> bytes:
        """Give the key of the flow at `slot`."""
        return _native.flow_key(self._handle, self._used(slot), self.key_bytes) or b""

    def slots(self) -> Iterator[int]:
        """Give the slot of each flow, as for a snapshot; the table must not change meanwhile."""
        slot = _native.flow_next(self._handle, 0)
        while slot >= 0:
            yield slot
            slot = _native.flow_next(self._handle, slot + 1)

    def used_ns(self, slot: int) -> int:
        """Say when the flow in a slot was used last."""
        return _native.flow_used_ns(self._handle, self._used(slot))

    def touch(self, slot: int, now_ns: int | None = None) -> None:
        """Mark the flow as used."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        _native.flow_touch(self._handle, self._used(slot), now)

    def set_idle(self, slot: int, idle_ns: int) -> None:
        """Give the flow an idle time of its own; 0 takes the one given to `expire`."""
        _native.flow_set_idle(self._handle, self._used(slot), idle_ns)

    def expire(
        self,
        now_ns: int | None = None,
        idle_ns: int = 300_000_000_000,
        budget: int | None = None,
        on_expired: Callable[[int], None] | None = None,
    ) -> int:
        """Forget flows that were not used for their idle time.

        Args:
            budget: slots to look at, from where the last call ended; None: all.
            on_expired: called with the slot of each flow before it goes.

        Returns:
            Flows forgotten.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        slots = 0xFFFFFFFF if budget is None else budget
        return _native.flow_expire(self._handle, now, idle_ns, slots, on_expired)

    def __len__(self) -> int:
        return _native.flow_count(self._handle)

    def __contains__(self, key: Buffer) -> bool:
        return self.find(key) >= 0
