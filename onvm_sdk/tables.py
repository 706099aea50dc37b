# SPDX-License-Identifier: Apache-2.0
"""Look-up tables for network functions, built on DPDK's algorithms.

* `Acl`: first match by priority over 5-tuples (rte_acl), IPv4 or IPv6.
* `Lpm`: longest prefix match (rte_fib), IPv4 or IPv6.
* `FlowTable`: exact match with a value per flow and expiry of idle flows (rte_hash).

The first table of a process starts DPDK's environment in ordinary memory. That takes 0.1 s, and
needs no privileges and no huge pages. A process without tables never starts it.

Bulk look-ups take any C-contiguous buffer (a NumPy array, bytes, …). They return a NumPy array, or
fill the buffer given as ``out`` and then do not import NumPy.

Kernels: a table may be the state of a ``@kernel``, or a part of it. `Acl.find`, `Lpm.find`,
`FlowTable.find`, `try_add`, `remove`, `touch`, `value` and ``len()`` work there as in Python,
compiled into direct calls. Both sides see all changes. `find` and `try_add` return -1 if they find
nothing or have no slot, as ``str.find`` does. The table must live as long as the kernel may run.

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
    from typing_extensions import Buffer as _Buffer

    Buffer = _Buffer | NDArray[Any]  # before Python 3.12 NumPy says of no array that it is a buffer

__all__ = [
    "FLOW_KEY_BYTES",
    "MISS",
    "Acl",
    "AclRule",
    "FlowTable",
    "Lpm",
    "pack_tuple",
    "start",
]

MISS = _native.MISS
"""The result of `Lpm.lookup` for an address without a route."""
FLOW_KEY_BYTES = PACKED.size
"""Bytes of a packed 5-tuple, such as ``flow_key`` of packets and bursts."""

_ANY_PORT = range(65536)
_NUMBERS = {"I", "@I", "=I", "<I"}  # of 32 bits in this machine's order; network order is ">I"


def start(megabytes: int = 0) -> None:
    """Start DPDK's environment now, for example with address space for larger tables.

    Args:
        megabytes: address space for tables; 0 means 1024. Only the first call has an effect.
    """
    _native.init(megabytes)


class _Table:
    """Common base of tables: a handle that is freed once."""

    def __init__(self, handle: Any) -> None:
        self._open: Any = handle

    @property
    def _handle(self) -> Any:
        if self._open is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._open

    @property
    def address(self) -> int:
        """Address of the table, for native code."""
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


def _view(buffer: Buffer) -> memoryview:
    return memoryview(buffer)  # type: ignore[arg-type]  # an array is a buffer


def _records(buffer: Buffer, size: int, what: str) -> tuple[memoryview, int]:
    """View `buffer` as bytes and count its records of `size` bytes."""
    view = _view(buffer)
    if not view.c_contiguous:
        raise ValueError(f"{what} must be C-contiguous")
    if view.nbytes % size:
        raise ValueError(f"{what} must be a multiple of {size} bytes, not {view.nbytes}")
    return view, view.nbytes // size


def _output(out: Buffer | None, length: int, dtype: str) -> Any:
    if out is None:
        import numpy

        return numpy.empty(length, dtype)
    if _view(out).nbytes < 4 * length:
        raise ValueError(f"out must have room for {length} values of 4 bytes")
    return out


@dataclass(frozen=True, slots=True)
class AclRule:
    """One rule of an `Acl`. A field that is left out matches everything.

    Args:
        src: source network, as in "10.0.0.0/8"; None matches any address.
        dst: destination network, likewise.
        protocol: IP protocol number; None matches any.
        src_ports: half-open range of source ports, as in ``range(80, 81)``.
        dst_ports: half-open range of destination ports.
        priority: among matching rules the highest wins; None: earlier rules win.
        value: result of a look-up, 1..2**32-2; None: the number of the rule, from 1.
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
    """Return the 40 bytes of one packet for `Acl.lookup` (``struct onvm_tuple``).

    Args:
        src, dst: addresses of one IP version, as text.
    """
    source = ip_address(src)
    addresses = source.packed, ip_address(dst).packed
    return PACKED.pack(protocol, source.version, *addresses, src_port, dst_port)


class Acl(_Table):
    """Rules over 5-tuples. One walk finds a packet's best match, however many rules there are.

    Args:
        rules: at least one.
        version: IP version of all addresses, 4 or 6.

    Raises:
        NativeError: the tries of these rules need more than half a gigabyte.
        ValueError: a network has another IP version, or a range is not one of ports.

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
        """Properties of the table that the code of a kernel depends on."""
        return "Acl", self.version

    def lookup(self, tuples: Buffer, out: Buffer | None = None) -> NDArray[np.uint32]:
        """Look up the best rule of each tuple.

        Args:
            tuples: packed 5-tuples, one after the other: ``burst.flow_key``, or from `pack_tuple`.
            out: buffer for the result, uint32; None creates an array.

        Returns:
            The value of each tuple's best rule; 0 if no rule matches. A tuple of another IP
            version, or of a packet that is not IP, matches no rule.

        Raises:
            ValueError: `tuples` are not whole tuples, or `out` is too short.
        """
        view, length = _records(tuples, FLOW_KEY_BYTES, "tuples")
        values = _output(out, length, "u4")
        _native.acl_lookup(self._handle, view, values, length)
        return values  # type: ignore[no-any-return]

    def match(
        self, src: str, dst: str, protocol: int, src_port: int = 0, dst_port: int = 0
    ) -> int | None:
        """Return the value of one packet's best rule; None if no rule matches."""
        value = self.find(pack_tuple(src, dst, protocol, src_port, dst_port))
        return value if value >= 0 else None

    def find(self, key: Buffer) -> int:
        """Return the value of the best rule of a packed 5-tuple; -1 if no rule matches.

        Both ports of an ICMP echo are its identifier, so give rules with ports a protocol.

        Args:
            key: 40 bytes, such as ``pkt.flow_key``.
        """
        out = bytearray(4)
        if _records(key, FLOW_KEY_BYTES, "key")[1] != 1:
            raise ValueError(f"key must be {FLOW_KEY_BYTES} bytes")
        self.lookup(key, out)
        return memoryview(out).cast("I")[0] or -1


class Lpm(_Table):
    """Longest prefix match: prefix → number.

    Args:
        max_routes: number of prefixes it must hold. Each table takes another 64 MiB.
        version: IP version of all prefixes, 4 or 6.

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
        """Properties of the table that the code of a kernel depends on."""
        return "Lpm", self.version

    def _network(self, prefix: str | IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
        net = ip_network(prefix)
        if net.version != self.version:
            raise ValueError(f"{net} is not IPv{self.version}")
        return net

    def add(self, prefix: str | IPv4Network | IPv6Network, value: int) -> None:
        """Route `prefix` to `value`. An existing prefix gets the new value.

        Args:
            prefix: a network, host bits zero.
            value: 0..2**31-2.

        Raises:
            TableFullError: the table cannot hold another prefix, or its second-level table.
        """
        net = self._network(prefix)
        _native.lpm_add(self._handle, net.network_address.packed, net.prefixlen, value)

    def remove(self, prefix: str | IPv4Network | IPv6Network) -> None:
        """Remove `prefix`; the next shorter one takes its place.

        Raises:
            NativeError: there is no such prefix.
        """
        net = self._network(prefix)
        _native.lpm_delete(self._handle, net.network_address.packed, net.prefixlen)

    def lookup(self, addresses: Buffer, out: Buffer | None = None) -> NDArray[np.uint32]:
        """Look up the longest prefix of each address.

        Args:
            addresses: 4 or 16 bytes each in network order, one after the other, such as
                ``burst.ipv6.dst``; or IPv4 addresses as numbers of 32 bits, such as
                ``burst.ipv4.dst``.
            out: buffer for the result, uint32; None creates an array.

        Returns:
            The value of each address; `MISS` if no prefix matches.

        Raises:
            ValueError: `addresses` are numbers of another size, or IPv6 as numbers.
        """
        given = _view(addresses)
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
        """Return the value of one address; -1 if no prefix matches.

        Args:
            address: text or a number; with `low`, the upper 64 bits of an IPv6 address:
                ``routes.find(pkt.ipv4.dst)``, ``routes.find(pkt.ipv6.dst_high, pkt.ipv6.dst_low)``.
                Kernels have neither text nor numbers of 128 bits.
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
    """Exact match from a fixed-size key to a slot with a value. Idle flows expire.

    A flow keeps its slot until it is removed. A slot is a number below `capacity`. Use it as an
    index into your own arrays.

    Args:
        capacity: maximum number of flows.
        key_bytes: bytes of a key, 1..64.
        value_bytes: bytes of the value beside each flow, 0..256; zero when the flow is added.

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
        """Properties of the table that the code of a kernel depends on."""
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
        """Return the slot of a flow, and mark the flow as used. A new flow is added.

        Args:
            key: exactly `key_bytes` bytes.
            now_ns: time of use, nanoseconds; None reads the monotonic clock.

        Raises:
            TableFullError: the table already has `capacity` flows.
            ValueError: `key` has another length.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        return _native.flow_add(self._handle, self._key(key), now)

    def try_add(self, key: Buffer, now_ns: int | None = None) -> int:
        """Like `add`, but return -1 if the table is full."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        return _native.flow_try_add(self._handle, self._key(key), now)

    def find(self, key: Buffer) -> int:
        """Return the slot of a flow; -1 if there is none. Does not mark the flow as used."""
        return max(_native.flow_lookup(self._handle, self._key(key)), -1)

    def lookup(self, keys: Buffer, out: Buffer | None = None) -> NDArray[np.int32]:
        """Look up the slot of each flow.

        Args:
            keys: `key_bytes` bytes each, one after the other.
            out: buffer for the result, int32; None creates an array.

        Returns:
            The slot of each flow; below 0 if there is none.
        """
        view, length = _records(keys, self.key_bytes, "keys")
        slots = _output(out, length, "i4")
        _native.flow_lookup_bulk(self._handle, view, slots, length)
        return slots  # type: ignore[no-any-return]

    def add_bulk(
        self, keys: Buffer, now_ns: int | None = None, out: Buffer | None = None
    ) -> NDArray[np.int32]:
        """Like `try_add`, for many keys.

        Args:
            keys: `key_bytes` bytes each, one after the other, such as ``burst.flow_key``.
            now_ns: time of use, nanoseconds; None reads the monotonic clock.
            out: buffer for the result, int32; None creates an array.

        Returns:
            The slot of each flow; below 0 if the table is full.
        """
        view, length = _records(keys, self.key_bytes, "keys")
        slots = _output(out, length, "i4")
        now = time.monotonic_ns() if now_ns is None else now_ns
        _native.flow_add_bulk(self._handle, view, slots, length, now)
        return slots  # type: ignore[no-any-return]

    def remove(self, key: Buffer) -> bool:
        """Remove a flow. Returns False if there was none."""
        return _native.flow_delete(self._handle, self._key(key))

    def value(self, slot: int) -> memoryview:
        """Return the value of a flow, to read and write without a copy.

        The value consists of bytes. A number above 255 raises ValueError; in a compiled kernel,
        where the value is an array, it is cut. To count, use your own arrays, with the slot as the
        index.

        Lifetime: until the flow is removed or the table is closed; do not use it afterwards.

        Raises:
            KeyError: there is no flow in this slot.
        """
        return _native.flow_value(self._handle, self._used(slot), self.value_bytes)

    def key(self, slot: int) -> bytes:
        """Return the key of the flow in a slot."""
        return _native.flow_key(self._handle, self._used(slot), self.key_bytes) or b""

    def slots(self) -> Iterator[int]:
        """Yield the slot of each flow, for a snapshot. The table must not change meanwhile."""
        slot = _native.flow_next(self._handle, 0)
        while slot >= 0:
            yield slot
            slot = _native.flow_next(self._handle, slot + 1)

    def used_ns(self, slot: int) -> int:
        """Return the time of the flow's last use, in nanoseconds."""
        return _native.flow_used_ns(self._handle, self._used(slot))

    def touch(self, slot: int, now_ns: int | None = None) -> None:
        """Mark the flow in a slot as used."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        _native.flow_touch(self._handle, self._used(slot), now)

    def set_idle(self, slot: int, idle_ns: int) -> None:
        """Set the idle time of one flow, in nanoseconds; 0: use that of `expire`."""
        _native.flow_set_idle(self._handle, self._used(slot), idle_ns)

    def expire(
        self,
        now_ns: int | None = None,
        idle_ns: int = 300_000_000_000,
        budget: int | None = None,
        on_expired: Callable[[int], None] | None = None,
    ) -> int:
        """Remove flows that were not used for their idle time.

        Args:
            now_ns: current time, nanoseconds; None reads the monotonic clock.
            idle_ns: idle time of flows without their own, nanoseconds.
            budget: number of slots to check, from the end of the last call; None: all.
            on_expired: called with the slot of each flow before it is removed.

        Returns:
            The number of removed flows.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        slots = 0xFFFFFFFF if budget is None else budget
        return _native.flow_expire(self._handle, now, idle_ns, slots, on_expired)

    def __len__(self) -> int:
        return _native.flow_count(self._handle)

    def __contains__(self, key: Buffer) -> bool:
        return self.find(key) >= 0
