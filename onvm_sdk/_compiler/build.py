# mypy: ignore-errors
# numba and llvmlite have no types to check against; the property test of kernels checks this.
"""From a per-packet function to a burst kernel in machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import NumbaError, UnsupportedBytecodeError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from onvm_sdk._compiler.cache import Entry, prepare
from onvm_sdk._compiler.emit import BYTES, I64
from onvm_sdk._compiler.refusal import check_calls, check_returns, refusal
from onvm_sdk._compiler.state import FAILED, FIRST_PART, parts_of
from onvm_sdk._compiler.types import PACKET, PKT_BYTES, drop_packet, open_packet, store_verdict

__all__ = ["compile_burst"]

_SIGNATURE = types.void(types.voidptr, types.voidptr, types.uint32)


def compile_burst(function: Callable[..., Any], state: Any, *, is_bounds_checked: bool) -> Entry:
    """Compile `function` and the loop around it.

    Raises:
        PluginError: numba cannot compile it.
    """
    check_calls(function)
    kind = _type_of(state)
    try:
        library, name = _compile(function, kind, is_bounds_checked)
    except (NumbaError, UnsupportedBytecodeError) as error:
        raise refusal(error, function) from error
    module = library._final_module
    symbols = [
        value.name
        for value in (*module.functions, *module.global_variables)
        if value.is_declaration and not value.name.startswith("llvm.")
    ]
    _, _, (code, _) = library.serialize_using_object_code()
    return Entry(name, symbols, code)


def _type_of(state: Any) -> Any:
    parts = parts_of(state)
    if any(hasattr(part, "kernel_type") for part in parts):
        from onvm_sdk._compiler.tables import SYMBOLS, type_of

        prepare(SYMBOLS)
    else:
        type_of = numba.typeof
        prepare([])
    kinds = tuple(type_of(part) for part in parts)
    if not isinstance(state, tuple):
        return kinds[0]
    is_named = hasattr(state, "_fields")
    return types.NamedTuple(kinds, type(state)) if is_named else types.Tuple(kinds)


def _make_state_reader(kind: Any) -> Any:
    """An intrinsic that gives the state that ctx->state describes."""

    def read_one(context: Any, builder: Any, part: Any, words: Any, at: int) -> tuple[Any, int]:
        def word(index: int) -> Any:
            return builder.load(builder.gep(words, [I64(index)]))

        if part is types.none:
            return context.get_dummy_value(), at
        if isinstance(part, types.Record) or hasattr(part, "is_onvm_table"):
            return builder.inttoptr(word(at), context.get_value_type(part)), at + 1
        array = make_array(part)(context, builder)
        shape = [word(at + 1 + axis) for axis in range(part.ndim)]
        itemsize = context.get_constant(
            types.intp, context.get_abi_sizeof(context.get_data_type(part.dtype))
        )
        strides = [itemsize]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(word(at), context.get_data_type(part.dtype).as_pointer())
        populate_array(array, data, shape, strides[: part.ndim], itemsize, meminfo=None)
        return array._getvalue(), at + 1 + part.ndim

    @intrinsic
    def read_state(typing: Any, ctx: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.bitcast(arguments[0], BYTES.as_pointer())
            words = builder.bitcast(builder.load(place), I64.as_pointer())
            if not isinstance(kind, types.BaseTuple):
                return read_one(context, builder, kind, words, FIRST_PART)[0]
            values, at = [], FIRST_PART
            for part in kind.types:
                value, at = read_one(context, builder, part, words, at)
                values.append(value)
            return context.make_tuple(builder, kind, values)

        return kind(types.voidptr), code

    return read_state


@intrinsic
def _decide(typing: Any, pkt: Any, result: Any) -> Any:
    """The return value of a kernel becomes the verdict; None leaves the one set by pkt.drop() and
    such. Gives whether the value is a verdict.
    """
    if isinstance(result, types.NoneType):
        return types.boolean(
            pkt, result
        ), lambda context, builder, signature, arguments: ir.IntType(1)(1)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, value = signature.args[1], arguments[1]
        if not isinstance(kind, types.Optional):
            number = context.cast(builder, value, kind, types.int64)
            return store_verdict(builder, arguments[0], number)
        before = builder.block
        pair = context.make_helper(builder, kind, value)
        with builder.if_then(pair.valid):
            number = context.cast(builder, pair.data, kind.type, types.int64)
            stored = store_verdict(builder, arguments[0], number)
            inside = builder.block
        is_known = builder.phi(ir.IntType(1))
        is_known.add_incoming(ir.IntType(1)(1), before)
        is_known.add_incoming(stored, inside)
        return is_known

    return types.boolean(pkt, result), code


def _word(builder: Any, ctx: Any, index: int) -> Any:
    """Pointer to word `index` of the state."""
    words = builder.load(builder.bitcast(ctx, I64.as_pointer().as_pointer()))
    return builder.gep(words, [I64(index)])


@intrinsic
def _raised(typing: Any, ctx: Any, pkt: Any) -> Any:
    """Tell the NF host of the first exception; see onvm_sdk._compiler.state."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ctx, slot = arguments
        failed = _word(builder, ctx, FAILED)
        is_first = builder.icmp_unsigned("==", builder.load(failed), I64(0))
        with builder.if_then(is_first):
            builder.store(I64(1), failed)
            kind = ir.FunctionType(ir.VoidType(), [BYTES, BYTES, BYTES])
            tell = builder.inttoptr(builder.load(_word(builder, ctx, 0)), kind.as_pointer())
            handle = builder.inttoptr(builder.load(_word(builder, ctx, 1)), BYTES)
            pkt = builder.load(builder.gep(slot, [ir.IntType(32)(0), ir.IntType(32)(0)]))
            builder.call(tell, [handle, ctx, pkt])
        return context.get_dummy_value()

    return types.void(ctx, pkt), code


@intrinsic
def _has_failed(typing: Any, ctx: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned(
            "!=", builder.load(_word(builder, arguments[0], FAILED)), I64(0)
        )

    return types.boolean(types.voidptr), code


@intrinsic
def _drop_row(typing: Any, pkts: Any, row: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pkt = builder.gep(arguments[0], [builder.mul(arguments[1], I64(PKT_BYTES))])
        drop_packet(builder, pkt)
        return context.get_dummy_value()

    return types.void(pkts, types.int64), code


def _compile(function: Callable[..., Any], kind: Any, is_bounds_checked: bool) -> tuple[Any, str]:
    inner = numba.njit(boundscheck=is_bounds_checked)(function)
    # By itself first: so a mistake of the author's is reported at the author's line.
    inner.compile((PACKET, kind))
    check_returns(inner.nopython_signatures[0].return_type)
    read_state = _make_state_reader(kind)

    def burst(ctx: Any, pkts: Any, nb_pkts: Any) -> None:
        state = read_state(ctx)
        count = np.int64(nb_pkts)
        if not _has_failed(ctx):
            for row in range(count):
                pkt = open_packet(ctx, pkts, row, count)
                try:
                    if not _decide(pkt, inner(pkt, state)):
                        _raised(ctx, pkt)
                except Exception:
                    _raised(ctx, pkt)
        if _has_failed(ctx):
            for row in range(count):
                _drop_row(pkts, row)

    compiled = numba.cfunc(_SIGNATURE, nopython=True)(burst)
    return compiled._library, compiled._wrapper_name
