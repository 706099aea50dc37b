"""A kernel ready to be called: from the cache, or compiled and kept there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onvm_sdk._compiler import cache
from onvm_sdk._compiler.state import check_state, describe_state, state_words
from onvm_sdk._native.kernel import Raised
from onvm_sdk.nf import NativeKernel

__all__ = ["load_kernel"]


def load_kernel(
    function: Callable[..., Any],
    state: Any,
    on_error: Callable[[BaseException], None],
    *,
    is_bounds_checked: bool,
) -> NativeKernel:
    """Give `function` as a kernel.

    Raises:
        PluginError: numba cannot compile it, or `state` is nothing a kernel can have.
    """
    check_state(function, state)
    file = cache.cache_file(function, describe_state(state), is_bounds_checked)
    entry = None if file is None else cache.load(file)
    if entry is None or not cache.prepare(entry.symbols):
        from onvm_sdk._compiler.build import compile_burst

        entry = compile_burst(function, state, is_bounds_checked=is_bounds_checked)
        if file is not None:
            cache.store(file, entry)
        cache.prepare(entry.symbols)
    address, engine = cache.link(entry)
    raised = Raised(function, state, on_error)
    words = state_words(state, raised.address, raised.handle)
    return NativeKernel(address, words.ctypes.data, (engine, words, state, raised))
