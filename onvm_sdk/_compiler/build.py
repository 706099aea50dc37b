# mypy: ignore-errors
# numba and llvmlite have no types to check against; the property test of kernels checks this.
"""From a per-packet function to a burst kernel in machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from onvm_sdk._compiler.emit import BYTES, I64
from onvm_sdk._compiler.types import open_packet, store_verdict
from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.errors import PluginError
from onvm_sdk.nf import NativeKernel

__all__ = ["build"]

llvmlite.binding.add_symbol(
    "onvm_layout_word", int(ffi.cast("uintptr_t", ffi.addressof(lib, "onvm_layout_word")))
)
_SIGNATURE = types.void(types.voidptr, types.voidptr, types.uint32)


def build(function: Callable[..., Any], state: Any, *, is_bounds_checked: bool) -> NativeKernel:
    """Compile `function`.

    Raises:
        PluginError: numba cannot compile it, or `state` is nothing a kernel can have.
    """
    kinds = _state_types(function, state)
    words, keep = _state_words(state)
    try:
        library, name = _compile(function, kinds, is_bounds_checked)
    except NumbaError as error:
        raise PluginError(
            f"a function that numba can compile expected: {error}", field=function.__qualname__
        ) from error
    address = library.get_pointer_to_function(name)
    return NativeKernel(address, words.ctypes.data, (library, words, keep))


def _state_types(function: Callable[..., Any], state: Any) -> Any:
    parts = state if isinstance(state, tuple) else (state,)
    kinds = []
    for value in parts:
        if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
            raise PluginError(
                "C-contiguous arrays expected", field=f"state of {function.__qualname__}"
            )
        if value is not None and not isinstance(value, (np.ndarray, np.void)):
            raise PluginError(
                "None, a NumPy array, a record, or a tuple of those expected",
                field=f"state of {function.__qualname__}",
                value=value,
            )
        kinds.append(numba.typeof(value))
    return types.Tuple(tuple(kinds)) if isinstance(state, tuple) else kinds[0]


def _state_words(state: Any) -> tuple[Any, Any]:
    """Addresses and shapes, as the compiled code reads them from ctx->state."""
    words: list[int] = []
    for value in state if isinstance(state, tuple) else (state,):
        if value is not None:
            words.append(value.__array_interface__["data"][0])
            words.extend(value.shape if isinstance(value, np.ndarray) else ())
    return np.array(words or [0], dtype=np.uint64), state


def _make_state_reader(kind: Any) -> Any:
    """An intrinsic that gives the state that ctx->state describes."""

    def read_one(context: Any, builder: Any, part: Any, words: Any, at: int) -> tuple[Any, int]:
        def word(index: int) -> Any:
            return builder.load(builder.gep(words, [I64(index)]))

        if part is types.none:
            return context.get_dummy_value(), at
        if isinstance(part, types.Record):
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
                return read_one(context, builder, kind, words, 0)[0]
            values, at = [], 0
            for part in kind.types:
                value, at = read_one(context, builder, part, words, at)
                values.append(value)
            return cgutils.pack_struct(builder, values) if values else context.get_dummy_value()

        return kind(types.voidptr), code

    return read_state


@intrinsic
def _decide(typing: Any, pkt: Any, result: Any) -> Any:
    """What a kernel has returned becomes the verdict; None leaves what pkt.drop() and such said."""
    if isinstance(result, types.NoneType):
        return types.void(
            pkt, result
        ), lambda context, builder, signature, arguments: context.get_dummy_value()

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, value = signature.args[1], arguments[1]
        if isinstance(kind, types.Optional):
            pair = context.make_helper(builder, kind, value)
            with builder.if_then(pair.valid):
                number = context.cast(builder, pair.data, kind.type, types.int64)
                store_verdict(builder, arguments[0], number)
        else:
            number = context.cast(builder, value, kind, types.int64)
            store_verdict(builder, arguments[0], number)
        return context.get_dummy_value()

    return types.void(pkt, result), code


def _compile(function: Callable[..., Any], kinds: Any, is_bounds_checked: bool) -> tuple[Any, str]:
    inner = numba.njit(boundscheck=is_bounds_checked)(function)
    read_state = _make_state_reader(kinds)

    def burst(ctx: Any, pkts: Any, nb_pkts: Any) -> None:
        state = read_state(ctx)
        count = np.int64(nb_pkts)
        for row in range(count):
            pkt = open_packet(pkts, row, count)
            try:
                _decide(pkt, inner(pkt, state))
            except Exception:  # noqa: BLE001  numba knows no narrower one
                # Nobody could be told from here; the packet that did it must not pass.
                pkt.drop(0)

    compiled = numba.cfunc(_SIGNATURE, nopython=True)(burst)
    return compiled._library, compiled._wrapper_name
