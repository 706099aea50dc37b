# mypy: ignore-errors
# numba and llvmlite have no types to check against; the property test of kernels checks this.
"""numba's view of a packet: types, attributes and methods of `pkt` in a kernel."""

from __future__ import annotations

import errno
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import LoweringError, TypingError
from numba.core.imputils import lower_getattr, lower_setattr
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    infer_getattr,
    intrinsic,
    models,
    overload_method,
    register_jitable,
    register_model,
)
from numba.np.arrayobj import make_array, populate_array

from onvm_sdk._compiler import emit
from onvm_sdk._compiler.emit import I8, I16, I32, I64
from onvm_sdk._native._nf import ffi, lib

__all__ = [
    "FLOW_KEY",
    "PACKET",
    "PKT_BYTES",
    "FlowKeyType",
    "drop_packet",
    "emit_alloca",
    "open_packet",
    "store_verdict",
]

PKT_BYTES: int = ffi.sizeof("struct onvm_pkt")
"""Size of struct onvm_pkt."""


class PacketType(types.Type):
    """`pkt`."""

    def __init__(self) -> None:
        super().__init__(name="onvm.Packet")


class HeaderType(types.Type):
    """`pkt.ipv4` and the like; the same pointer as the packet."""

    def __init__(self, header: str) -> None:
        self.header = header
        super().__init__(name=f"onvm.Header({header})")


FLOW_KEY = ir.ArrayType(I64, ffi.sizeof("struct onvm_tuple") // 8)
"""A struct onvm_tuple."""


class FlowKeyType(types.Type):
    """`pkt.flow_key`, by value."""

    def __init__(self) -> None:
        super().__init__(name="onvm.FlowKey")


@register_model(FlowKeyType)
class _FlowKeyModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOW_KEY)


@register_model(PacketType)
@register_model(HeaderType)
class _SlotModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, emit.SLOT.as_pointer())


PACKET = PacketType()
_HEADERS = {name: HeaderType(name) for name in (*emit.HEADERS, *emit.RARE)}
_RARE_MASKS = {f"is_{name}": header for name, header in emit.RARE.items()}
_MEMBERS = {
    name: (member.offset, 8 * ffi.sizeof(member.type))
    for name, member in ffi.typeof("struct onvm_pkt").fields
}
"""Byte offset and width of each member of struct onvm_pkt."""
_OWN = ("headroom", "length", "flow_hash", "port", "verdict", "destination", "tailroom")
_FLAGS = emit.layout_at("flags")
_DROP, _TO_SERVICE, _OUT = lib.ONVM_DROP, lib.ONVM_TO_SERVICE, lib.ONVM_OUT
_EPERM = errno.EPERM
_LAYOUT = ("protocol", "vlan_count", "l3_offset", "l4_offset")
_CTX = {name: member.offset for name, member in ffi.typeof("struct onvm_ctx").fields}
"""Byte offset of each member of struct onvm_ctx."""
_ARRAYS = {
    "payload": types.Array(types.uint8, 1, "C"),
    "counters": types.Array(types.uint64, 1, "C"),
}


@infer_getattr
class _PacketAttributes(AttributeTemplate):
    key = PacketType

    def generic_resolve(self, kind: Any, name: str) -> Any:
        if name in _HEADERS:
            return _HEADERS[name]
        if name in emit.MASKS or name in _RARE_MASKS:
            return types.boolean
        if name == "flow_key":
            return FlowKeyType()
        if name in ("now_ns", "time_ns"):
            return types.int64
        if name in _ARRAYS:
            return _ARRAYS[name]
        return types.int64 if name in _OWN or name in _LAYOUT else None


@infer_getattr
class _HeaderAttributes(AttributeTemplate):
    key = HeaderType

    def generic_resolve(self, kind: Any, name: str) -> Any:
        field = emit.FIELDS.get((kind.header, name))
        if field is None:
            return None
        return types.uint64 if field.bits == 64 else types.int64


def own(builder: Any, slot: Any, name: str) -> Any:
    """Pointer to a member of struct onvm_pkt."""
    offset, bits = _MEMBERS[name]
    pkt = builder.load(emit.part(builder, slot, 0))
    place = builder.gep(pkt, [I64(offset)])
    return builder.bitcast(place, ir.IntType(bits).as_pointer())


def _install() -> None:
    for name in _HEADERS:
        lower_getattr(PacketType, name)(lambda context, builder, kind, slot: slot)
    for name, header in emit.MASKS.items():
        lower_getattr(PacketType, name)(
            lambda context, builder, kind, slot, header=header: emit.has(builder, slot, header)
        )
    for name, header in _RARE_MASKS.items():
        lower_getattr(PacketType, name)(
            lambda context, builder, kind, slot, header=header: emit.has_rare(builder, slot, header)
        )
    for name in _OWN:
        lower_getattr(PacketType, name)(
            lambda context, builder, kind, slot, name=name: builder.zext(
                builder.load(own(builder, slot, name)), I64
            )
        )
    lower_getattr(PacketType, "protocol")(
        lambda context, builder, kind, slot: emit.layout_bits(
            builder, slot, emit.layout_at("protocol"), 8
        )
    )
    for name in ("l3", "l4"):
        lower_getattr(PacketType, f"{name}_offset")(
            lambda context, builder, kind, slot, name=name: emit.layout_member(builder, slot, name)
        )
    lower_getattr(PacketType, "now_ns")(
        lambda context, builder, kind, slot: builder.load(_in_ctx(builder, slot, "now_ns", I64))
    )
    lower_getattr(PacketType, "time_ns")(_time_ns)
    lower_getattr(PacketType, "payload")(_payload)
    lower_getattr(PacketType, "counters")(_counters)
    lower_getattr(PacketType, "vlan_count")(_vlan_count)
    lower_getattr(PacketType, "flow_key")(_flow_key)
    for name in {name for _, name in emit.FIELDS}:
        lower_getattr(HeaderType, name)(
            lambda context, builder, kind, slot, name=name: emit.load_field(
                builder, slot, emit.FIELDS[kind.header, name]
            )
        )
        lower_setattr(HeaderType, name)(
            lambda context, builder, signature, arguments, name=name: _set_field(
                context, builder, signature, arguments, name
            )
        )


def _vlan_count(context: Any, builder: Any, kind: Any, slot: Any) -> Any:
    l3 = emit.layout_member(builder, slot, "l3")
    count = builder.lshr(builder.sub(l3, I64(14)), I64(2))
    return builder.select(emit.has(builder, slot, emit.HEADERS["vlan"]), count, I64(0))


def _in_ctx(builder: Any, slot: Any, name: str, kind: Any) -> Any:
    """Pointer to a member of struct onvm_ctx."""
    ctx = builder.load(emit.part(builder, slot, 3))
    return builder.bitcast(builder.gep(ctx, [I64(_CTX[name])]), kind.as_pointer())


def _time_ns(context: Any, builder: Any, kind: Any, slot: Any) -> Any:
    function = _declare(builder, "onvm_pkt_time", I64, [emit.BYTES, emit.BYTES])
    ctx, pkt = (builder.load(emit.part(builder, slot, index)) for index in (3, 0))
    return builder.call(function, [ctx, pkt])


def _array(context: Any, builder: Any, kind: Any, data: Any, length: Any) -> Any:
    """Make an array of memory that lives longer than the call of the kernel."""
    array = make_array(kind)(context, builder)
    itemsize = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
    )
    place = builder.bitcast(data, context.get_data_type(kind.dtype).as_pointer())
    populate_array(array, place, [length], [itemsize], itemsize, meminfo=None)
    return array._getvalue()


def _payload(context: Any, builder: Any, kind: Any, slot: Any) -> Any:
    pkt = builder.load(emit.part(builder, slot, 0))
    function = _declare(builder, "onvm_pkt_payload", I32, [emit.BYTES])
    payload = builder.zext(builder.call(function, [pkt]), I64)
    data = builder.load(builder.bitcast(pkt, emit.BYTES.as_pointer()))
    first = builder.gep(data, [builder.lshr(payload, I64(16))])
    length = builder.and_(payload, I64(0xFFFF))
    return _array(context, builder, _ARRAYS["payload"], first, length)


def _counters(context: Any, builder: Any, kind: Any, slot: Any) -> Any:
    counters = builder.load(_in_ctx(builder, slot, "counters", emit.BYTES))
    return _array(context, builder, _ARRAYS["counters"], counters, I64(lib.ONVM_COUNTERS_MAX))


def _flow_key(context: Any, builder: Any, kind: Any, slot: Any) -> Any:
    place = emit_alloca(builder, FLOW_KEY)
    function = _declare(
        builder, "onvm_flow_key", ir.VoidType(), [emit.BYTES, I64, FLOW_KEY.as_pointer()]
    )
    pkt, layout = (builder.load(emit.part(builder, slot, index)) for index in (0, 2))
    builder.call(function, [pkt, layout, place])
    return builder.load(place)


def _declare(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Give a function of the SDK's native part."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _set_field(context: Any, builder: Any, signature: Any, arguments: Any, name: str) -> None:
    kind, value_type = signature.args
    field = emit.FIELDS[kind.header, name]
    if not field.is_writable:
        raise LoweringError(f"{kind.header}.{name} is read-only")
    wide = types.uint64 if field.bits == 64 else types.int64
    value = context.cast(builder, arguments[1], value_type, wide)
    emit.store_field(builder, arguments[0], field, value)


_install()


def _read_layout(builder: Any, slot: Any) -> None:
    """Fill a SLOT: a short way for untagged IPv4 without options, a call for the rest."""
    pkt = builder.load(emit.part(builder, slot, 0))
    data = builder.load(builder.bitcast(pkt, I8.as_pointer().as_pointer()))
    builder.store(data, emit.part(builder, slot, 1))
    length = builder.zext(builder.load(own(builder, slot, "length")), I64)
    place = emit.part(builder, slot, 2)
    with builder.if_else(builder.icmp_unsigned(">=", length, I64(54))) as (long, short):
        with long:
            _fast_layout(builder, data, length, pkt, place)
        with short:
            _slow_layout(builder, pkt, place)
    flags = builder.load(builder.gep(pkt, [I64(_MEMBERS["flags"][0])]))
    is_reverse = builder.icmp_unsigned("!=", builder.and_(flags, I8(lib.ONVM_F_REVERSE)), I8(0))
    reverse = builder.shl(builder.zext(is_reverse, I64), I64(_FLAGS + emit.MASKS["is_reverse"]))
    builder.store(builder.or_(builder.load(place), reverse), place)


def _common_layout(transport: str, checksum: int) -> int:
    """Make the layout of untagged IPv4 without options; `checksum` is an offset behind it."""
    flags = (lib.ONVM_H_ETH, lib.ONVM_H_TYPE, lib.ONVM_H_IPV4, lib.ONVM_H_PSEUDO, lib.ONVM_H_PORTS)
    values = {
        "l3": 14,
        "l4": 34,
        "flags": sum(1 << header for header in (*flags, emit.HEADERS[transport])),
        "protocol": getattr(lib, f"ONVM_PROTO_{transport.upper()}"),
        "l4_checksum": checksum,
    }
    return sum(value << emit.layout_at(member) for member, value in values.items())


def _fast_layout(builder: Any, data: Any, length: Any, pkt: Any, place: Any) -> None:
    def byte(offset: int, size: int) -> Any:
        return emit.load_be(builder, builder.gep(data, [I64(offset)]), size)

    total = byte(16, 2)
    protocol = byte(23, 1)
    is_udp = builder.icmp_unsigned("==", protocol, I64(lib.ONVM_PROTO_UDP))
    tests = [
        builder.icmp_unsigned("==", builder.and_(byte(12, 4), I64(0xFFFFFF00)), I64(0x08004500)),
        builder.icmp_unsigned("==", builder.and_(byte(20, 2), I64(0x3FFF)), I64(0)),
        builder.icmp_unsigned(">=", total, I64(40)),
        builder.icmp_unsigned("<=", total, builder.sub(length, I64(14))),
        builder.or_(is_udp, builder.icmp_unsigned("==", protocol, I64(lib.ONVM_PROTO_TCP))),
    ]
    is_common = tests[0]
    for test in tests[1:]:
        is_common = builder.and_(is_common, test)
    udp, tcp = (I64(_common_layout(*transport)) for transport in (("udp", 6), ("tcp", 16)))
    with builder.if_else(is_common, likely=True) as (fast, slow):
        with fast:
            builder.store(builder.select(is_udp, udp, tcp), place)
        with slow:
            _slow_layout(builder, pkt, place)


def _slow_layout(builder: Any, pkt: Any, place: Any) -> None:
    function = _declare(builder, "onvm_layout_word", I64, [emit.BYTES])
    builder.store(builder.call(function, [pkt]), place)


@intrinsic
def open_packet(typing: Any, ctx: Any, pkts: Any, row: Any, count: Any) -> Any:
    """Packet `row` of a burst of `count`; brings a later one into the cache."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ctx, pkts, row, count = arguments
        slot = emit_alloca(builder)
        builder.store(ctx, emit.part(builder, slot, 3))
        pkt = builder.gep(pkts, [builder.mul(row, I64(PKT_BYTES))])
        later = builder.add(row, I64(4))
        is_inside = builder.icmp_signed("<", later, count)
        later_pkt = builder.gep(
            pkts, [builder.mul(builder.select(is_inside, later, row), I64(PKT_BYTES))]
        )
        later_data = builder.load(builder.bitcast(later_pkt, emit.BYTES.as_pointer()))
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [emit.BYTES],
            ir.FunctionType(ir.VoidType(), [emit.BYTES, I32, I32, I32]),
        )
        builder.call(prefetch, [later_data, I32(1), I32(3), I32(1)])
        builder.store(pkt, emit.part(builder, slot, 0))
        _read_layout(builder, slot)
        return slot

    return PACKET(types.voidptr, types.voidptr, types.int64, types.int64), code


def emit_alloca(builder: Any, kind: Any = emit.SLOT) -> Any:
    """One place on the stack of the function, not one per turn of a loop."""
    with builder.goto_entry_block():
        return builder.alloca(kind)


def drop_packet(builder: Any, pkt: Any) -> None:
    """Drop the packet of a struct onvm_pkt, for no reason of the NF's."""
    for name, value in (("verdict", I8(lib.ONVM_DROP)), ("destination", I16(0))):
        offset, bits = _MEMBERS[name]
        place = builder.gep(pkt, [I64(offset)])
        builder.store(value, builder.bitcast(place, ir.IntType(bits).as_pointer()))


def store_verdict(builder: Any, slot: Any, verdict: Any) -> Any:
    """Store a verdict; say whether it is one. Any other number drops the packet."""
    is_known = builder.icmp_unsigned("<=", verdict, I64(lib.ONVM_OUT))
    known = builder.select(is_known, builder.trunc(verdict, I8), I8(lib.ONVM_DROP))
    builder.store(known, own(builder, slot, "verdict"))
    return is_known


@intrinsic
def _decide(typing: Any, pkt: Any, verdict: Any, destination: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot, verdict, destination = arguments
        builder.store(builder.trunc(verdict, I8), own(builder, slot, "verdict"))
        builder.store(builder.trunc(destination, I16), own(builder, slot, "destination"))
        return verdict

    return types.int64(pkt, types.int64, types.int64), code


def _move(is_push: bool) -> Any:
    @intrinsic
    def move(typing: Any, pkt: Any, size: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            slot, size = arguments
            length = builder.zext(builder.load(own(builder, slot, "length")), I64)
            headroom = builder.zext(builder.load(own(builder, slot, "headroom")), I64)
            if is_push:
                fits = builder.and_(
                    builder.icmp_unsigned("<=", size, headroom),
                    builder.icmp_unsigned("<=", builder.add(length, size), I64(65535)),
                )
                step = builder.neg(size)
            else:
                fits = builder.icmp_unsigned("<", size, length)
                step = size
            with builder.if_then(fits):
                pkt = builder.load(emit.part(builder, slot, 0))
                place = builder.bitcast(pkt, emit.BYTES.as_pointer())
                builder.store(builder.gep(builder.load(place), [step]), place)
                for name, value in (
                    ("length", builder.sub(length, step)),
                    ("headroom", builder.add(headroom, step)),
                ):
                    builder.store(builder.trunc(value, I16), own(builder, slot, name))
                _read_layout(builder, slot)
            return fits

        return types.boolean(pkt, types.int64), code

    return move


_push, _pull = _move(True), _move(False)


@intrinsic
def _trim(typing: Any, pkt: Any, size: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot, size = arguments
        length, tailroom = (
            builder.zext(builder.load(own(builder, slot, name)), I64)
            for name in ("length", "tailroom")
        )
        fits = builder.icmp_unsigned("<", size, length)
        with builder.if_then(fits):
            for name, value in (
                ("length", builder.sub(length, size)),
                ("tailroom", builder.add(tailroom, size)),
            ):
                builder.store(builder.trunc(value, I16), own(builder, slot, name))
            _read_layout(builder, slot)
        return fits

    return types.boolean(pkt, types.int64), code


def _bytes_of(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, Any]:
    """Address and length of an array of bytes."""
    array = make_array(kind)(context, builder, value)
    return builder.bitcast(array.data, emit.BYTES), builder.trunc(array.nitems, I32)


def _is_bytes(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.dtype == types.uint8 and kind.layout == "C"


@intrinsic
def _append(typing: Any, pkt: Any, content: Any) -> Any:
    if not _is_bytes(content):
        raise TypingError(f"append({content}): expected a C-contiguous array of uint8")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot, value = arguments
        place, length = _bytes_of(context, builder, content, value)
        kinds = [emit.BYTES, emit.BYTES, I32]
        function = _declare(builder, "onvm_pkt_append_bytes", I8, kinds)
        pkt = builder.load(emit.part(builder, slot, 0))
        done = builder.trunc(builder.call(function, [pkt, place, length]), ir.IntType(1))
        with builder.if_then(done):
            _read_layout(builder, slot)
        return done

    return types.boolean(pkt, content), code


@intrinsic
def _originate(typing: Any, pkt: Any, frame: Any, verdict: Any, destination: Any) -> Any:
    if not _is_bytes(frame):
        raise TypingError(f"originate({frame}): expected a C-contiguous array of uint8")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot, value, verdict, destination = arguments
        place, length = _bytes_of(context, builder, frame, value)
        kinds = [emit.BYTES, emit.BYTES, I32, I32, I32]
        function = _declare(builder, "onvm_originate", I32, kinds)
        ctx = builder.load(emit.part(builder, slot, 3))
        numbers = [builder.trunc(each, I32) for each in (verdict, destination)]
        return builder.sext(builder.call(function, [ctx, place, length, *numbers]), I64)

    return types.int64(pkt, frame, types.int64, types.int64), code


@intrinsic
def _hold(typing: Any, pkt: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (slot,) = arguments
        function = _declare(builder, "onvm_ctx_hold", I32, [emit.BYTES, emit.BYTES])
        ctx, pkt = (builder.load(emit.part(builder, slot, index)) for index in (3, 0))
        return builder.zext(builder.call(function, [ctx, pkt]), I64)

    return types.int64(pkt), code


@intrinsic
def _release(typing: Any, pkt: Any, token: Any, verdict: Any, destination: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot, *numbers = arguments
        function = _declare(builder, "onvm_ctx_release", I32, [emit.BYTES, I32, I32, I32])
        ctx = builder.load(emit.part(builder, slot, 3))
        words = [builder.trunc(each, I32) for each in numbers]
        return builder.icmp_signed("==", builder.call(function, [ctx, *words]), I32(0))

    return types.boolean(pkt, types.int64, types.int64, types.int64), code


@intrinsic
def _update_checksums(typing: Any, pkt: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = _declare(builder, "onvm_pkt_make_checksums", ir.VoidType(), [emit.BYTES])
        builder.call(function, [builder.load(emit.part(builder, arguments[0], 0))])
        return context.get_dummy_value()

    return types.void(pkt), code


@intrinsic
def _has_held(typing: Any, pkt: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table = builder.load(_in_ctx(builder, arguments[0], "held_packets", I64))
        return builder.icmp_unsigned("!=", table, I64(0))

    return types.boolean(pkt), code


@register_jitable
def _decide_checked(pkt: Any, verdict: Any, destination: Any) -> Any:
    if destination < 0 or destination > 65535:
        raise OverflowError("a reason, port or service ID is below 65536")
    return _decide(pkt, verdict, destination)


@overload_method(PacketType, "drop", strict=False)
def _drop(pkt: Any, reason: Any = 0) -> Any:
    return lambda pkt, reason=0: _decide_checked(pkt, _DROP, reason)


@overload_method(PacketType, "to_service", strict=False)
def _to_service(pkt: Any, service_id: Any) -> Any:
    return lambda pkt, service_id: _decide_checked(pkt, _TO_SERVICE, service_id)


@overload_method(PacketType, "out", strict=False)
def _out(pkt: Any, port: Any) -> Any:
    return lambda pkt, port: _decide_checked(pkt, _OUT, port)


@overload_method(PacketType, "trim", strict=False)
def _trim_method(pkt: Any, length: Any) -> Any:
    return lambda pkt, length: _trim(pkt, length)


@overload_method(PacketType, "append", strict=False)
def _append_method(pkt: Any, content: Any) -> Any:
    return lambda pkt, content: _append(pkt, content)


@overload_method(PacketType, "update_checksums", strict=False)
def _update_checksums_method(pkt: Any) -> Any:
    return lambda pkt: _update_checksums(pkt)


@overload_method(PacketType, "hold", strict=False)
def _hold_method(pkt: Any) -> Any:
    def hold(pkt: Any) -> Any:
        if not _has_held(pkt):
            raise PermissionError("expected held_packets in the manifest")
        return _hold(pkt)

    return hold


@overload_method(PacketType, "release", strict=False)
def _release_method(pkt: Any, token: Any, verdict: Any = 0, destination: Any = 0) -> Any:
    def release(pkt: Any, token: Any, verdict: Any = 0, destination: Any = 0) -> Any:
        if verdict < 0 or verdict > _OUT or destination < 0 or destination > 65535:
            raise OverflowError("a reason, port or service ID is below 65536")
        return _release(pkt, token, verdict, destination)

    return release


@overload_method(PacketType, "originate", strict=False)
def _originate_method(pkt: Any, packet: Any, verdict: Any = 0, destination: Any = 0) -> Any:
    def originate(pkt: Any, packet: Any, verdict: Any = 0, destination: Any = 0) -> Any:
        result = _originate(pkt, packet, verdict, destination)
        if result == -_EPERM:
            raise PermissionError("expected the permission originate in the manifest")
        return result == 0

    return originate


@overload_method(PacketType, "push", strict=False)
def _push_method(pkt: Any, length: Any) -> Any:
    return lambda pkt, length: _push(pkt, length)


@overload_method(PacketType, "pull", strict=False)
def _pull_method(pkt: Any, length: Any) -> Any:
    return lambda pkt, length: _pull(pkt, length)
