# mypy: ignore-errors
# numba and llvmlite have no types to check against; the property test of kernels checks this.
"""LLVM code for header fields: the rules of ``onvm/fields.h``, inlined into kernels.

A packet in a kernel is a pointer to a `SLOT` on the stack; LLVM keeps its parts in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from onvm_sdk._native._nf import ffi, lib

__all__ = [
    "FIELDS",
    "HEADERS",
    "MASKS",
    "RARE",
    "SLOT",
    "Field",
    "has_rare",
    "layout_at",
    "load_field",
    "store_field",
]

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
BYTES = I8.as_pointer()
SLOT = ir.LiteralStructType([BYTES, BYTES, I64, BYTES])
"""The struct onvm_pkt, the packet's first byte, its struct onvm_layout as a number, and the struct
onvm_ctx."""

_NAMES = ("eth", "vlan", "ipv4", "ipv6", "tcp", "udp", "icmp")
HEADERS: dict[str, int] = {name: getattr(lib, f"ONVM_H_{name.upper()}") for name in _NAMES}
MASKS: dict[str, int] = {
    f"is_{name}": getattr(lib, f"ONVM_H_{name.upper()}")
    for name in (*_NAMES[1:], "fragment", "reverse")
}

_RARE_NAMES = ("arp", "mpls", "pppoe", "sctp", "gre", "vxlan", "geneve", "gtpu")
RARE: dict[str, int] = {name: getattr(lib, f"ONVM_H_{name.upper()}") for name in _RARE_NAMES}
"""Headers that C looks for when they are used."""


def layout_at(member: str) -> int:
    """First bit of a member in a struct onvm_layout as a number."""
    return 8 * ffi.offsetof("struct onvm_layout", member)


_FLAGS = layout_at("flags")


@dataclass(frozen=True, slots=True)
class Field:
    """A ``struct onvm_field``."""

    header: int
    offset: int
    bytes: int
    shift: int
    bits: int
    sums: int
    is_writable: bool
    rare: int = -1
    """Number among the fields of headers that few packets have; -1: it is none of them."""


def _read_fields() -> dict[tuple[str, str], Field]:
    fields = {}
    table = lib.onvm_field_table()
    for number in range(lib.ONVM_FIELD_COUNT):
        header, name = ffi.string(lib.onvm_field_name(number)).decode().lower().split(".")
        raw = table[number]
        if raw.bytes <= 8:
            fields["eth" if header == "type" else header, name] = Field(
                raw.header,
                raw.offset,
                raw.bytes,
                raw.shift,
                raw.bits,
                raw.sums,
                bool(raw.is_writable),
            )
    for number in range(lib.ONVM_RARE_COUNT):
        header, name = ffi.string(lib.onvm_rare_field_name(number)).decode().lower().split(".")
        raw = lib.onvm_rare_field(number)
        fields[header, name] = Field(
            raw.header,
            raw.offset,
            raw.bytes,
            raw.shift,
            raw.bits,
            raw.sums,
            bool(raw.is_writable),
            number,
        )
    return fields


FIELDS = _read_fields()


def part(builder: Any, slot: Any, index: int) -> Any:
    """Pointer to part `index` of a SLOT."""
    return builder.gep(slot, [I32(0), I32(index)], inbounds=True)


def layout_bits(builder: Any, slot: Any, first: int, bits: int) -> Any:
    """Some bits of the layout, as i64."""
    word = builder.load(part(builder, slot, 2))
    return builder.and_(builder.lshr(word, I64(first)), I64((1 << bits) - 1))


def layout_member(builder: Any, slot: Any, name: str) -> Any:
    """Member of the struct onvm_layout, as i64."""
    member = dict(ffi.typeof("struct onvm_layout").fields)[name]
    return layout_bits(builder, slot, 8 * member.offset, 8 * ffi.sizeof(member.type))


def has(builder: Any, slot: Any, header: int) -> Any:
    """True if the packet has a header, as i1."""
    return builder.trunc(layout_bits(builder, slot, _FLAGS + header, 1), ir.IntType(1))


def at(builder: Any, data: Any, offset: Any) -> Any:
    """Pointer `offset` bytes behind `data`."""
    return builder.gep(data, [offset])


def header_at(builder: Any, slot: Any, header: int) -> Any:
    """Pointer to the first byte of a header."""
    data = builder.load(part(builder, slot, 1))
    if header == HEADERS["eth"]:
        return data
    if header == HEADERS["vlan"]:
        return at(builder, data, I64(14))
    if header in (HEADERS["ipv4"], HEADERS["ipv6"], lib.ONVM_H_TYPE):
        offset = layout_member(builder, slot, "l3")
        return at(
            builder, data, builder.sub(offset, I64(2)) if header == lib.ONVM_H_TYPE else offset
        )
    return at(builder, data, layout_member(builder, slot, "l4"))


def load_be(builder: Any, place: Any, size: int) -> Any:
    """`size` big-endian bytes as i64."""
    if size == 6:
        high = load_be(builder, place, 2)
        low = load_be(builder, at(builder, place, I64(2)), 4)
        return builder.or_(builder.shl(high, I64(32)), low)
    kind = ir.IntType(size * 8)
    value = builder.load(builder.bitcast(place, kind.as_pointer()))
    value.align = 1
    if size > 1:
        value = builder.bswap(value)
    return value if size == 8 else builder.zext(value, I64)


def store_be(builder: Any, place: Any, size: int, value: Any) -> None:
    """Store an i64 as `size` big-endian bytes."""
    if size == 6:
        store_be(builder, place, 2, builder.lshr(value, I64(32)))
        store_be(builder, at(builder, place, I64(2)), 4, value)
        return
    kind = ir.IntType(size * 8)
    word = value if size == 8 else builder.trunc(value, kind)
    if size > 1:
        word = builder.bswap(word)
    builder.store(word, builder.bitcast(place, kind.as_pointer())).align = 1


def load_field(builder: Any, slot: Any, field: Field) -> Any:
    """Value of a field as i64; 0 without its header."""
    if field.rare >= 0:
        return _call_rare(builder, "onvm_pkt_rare_load", I64, slot, I32(field.rare))
    before = builder.block
    with builder.if_then(has(builder, slot, field.header)):
        place = at(builder, header_at(builder, slot, field.header), I64(field.offset))
        word = load_be(builder, place, field.bytes)
        value = builder.and_(builder.lshr(word, I64(field.shift)), I64(_mask(field)))
        inside = builder.block
    result = builder.phi(I64)
    result.add_incoming(I64(0), before)
    result.add_incoming(value, inside)
    return result


def store_field(builder: Any, slot: Any, field: Field, value: Any) -> None:
    """Store an i64 into a field and fix every checksum that covers it."""
    if field.rare >= 0:
        _call_rare(builder, "onvm_pkt_rare_store", ir.VoidType(), slot, I32(field.rare), value)
        return
    with builder.if_then(has(builder, slot, field.header)):
        place = at(builder, header_at(builder, slot, field.header), I64(field.offset))
        mask = _mask(field) << field.shift
        full = (1 << 64) - 1
        old = load_be(builder, place, field.bytes)
        kept = builder.and_(old, I64(full & ~mask))
        new = builder.or_(kept, builder.and_(builder.shl(value, I64(field.shift)), I64(mask)))
        if not field.sums:
            store_be(builder, place, field.bytes, new)
            return
        with builder.if_then(builder.icmp_unsigned("!=", old, new)):
            delta = builder.sub(_words(builder, field, new), _words(builder, field, old))
            data = builder.load(part(builder, slot, 1))
            if field.sums & lib.ONVM_SUM_IP:
                l3 = layout_member(builder, slot, "l3")
                _fix(builder, at(builder, data, builder.add(l3, I64(10))), delta)
            if field.sums & (lib.ONVM_SUM_L4 | lib.ONVM_SUM_PSEUDO):
                _fix_transport(builder, slot, field, data, delta)
            store_be(builder, place, field.bytes, new)


def has_rare(builder: Any, slot: Any, header: int) -> Any:
    """True if the packet has a header that C looks for, as i1."""
    found = _call_rare(builder, "onvm_pkt_has_rare", I8, slot, I32(header))
    return builder.trunc(found, ir.IntType(1))


def _call_rare(builder: Any, name: str, result: Any, slot: Any, *arguments: Any) -> Any:
    """Call a function of ``native/nf/rare.h`` with the packet and its layout."""
    values = [builder.load(part(builder, slot, index)) for index in (0, 2)] + list(arguments)
    kind = ir.FunctionType(result, [value.type for value in values])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, values)


def _mask(field: Field) -> int:
    return (1 << field.bits) - 1


def _words(builder: Any, field: Field, word: Any) -> Any:
    """Sum of the 16-bit words of a field's word."""
    if field.bytes == 1:
        return word if field.offset & 1 else builder.shl(word, I64(8))
    low = I64(0xFFFF)
    total = builder.and_(word, low)
    for shift in range(16, field.bytes * 8, 16):
        total = builder.add(total, builder.and_(builder.lshr(word, I64(shift)), low))
    return total


def _fix(builder: Any, place: Any, delta: Any) -> None:
    """RFC 1624, equation 3; 0x4fffb is a multiple of 0xffff that keeps the sum positive."""
    low = I64(0xFFFF)
    total = builder.xor(load_be(builder, place, 2), low)
    total = builder.add(builder.add(total, I64(0x4FFFB)), delta)
    for _ in range(2):
        total = builder.add(builder.and_(total, low), builder.lshr(total, I64(16)))
    store_be(builder, place, 2, builder.xor(total, low))


def _fix_transport(builder: Any, slot: Any, field: Field, data: Any, delta: Any) -> None:
    offset = layout_member(builder, slot, "l4_checksum")
    wanted = builder.icmp_unsigned("!=", offset, I64(0))
    if not field.sums & lib.ONVM_SUM_L4:
        wanted = builder.and_(wanted, has(builder, slot, lib.ONVM_H_PSEUDO))
    with builder.if_then(wanted):
        l4 = layout_member(builder, slot, "l4")
        place = at(builder, data, builder.add(l4, offset))
        protocol = layout_member(builder, slot, "protocol")
        is_udp = builder.icmp_unsigned("==", protocol, I64(lib.ONVM_PROTO_UDP))
        is_zero = builder.icmp_unsigned("==", load_be(builder, place, 2), I64(0))
        with builder.if_then(builder.not_(builder.and_(is_udp, is_zero))):
            _fix(builder, place, delta)
            became = builder.icmp_unsigned("==", load_be(builder, place, 2), I64(0))
            with builder.if_then(builder.and_(is_udp, became)):
                store_be(builder, place, 2, I64(0xFFFF))
