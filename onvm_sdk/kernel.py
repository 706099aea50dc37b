"""@kernel: one per-packet function, interpreted or compiled to machine code.

    class Hop(NetworkFunction):
        def setup(self, ctx):
            self.state = np.zeros(65536, dtype=np.bool_)     # the kernel's second argument

        @kernel
        def process_packet(pkt, blocked):
            if pkt.is_udp and blocked[pkt.udp.dst_port]:
                return pkt.drop()
            pkt.ipv4.ttl -= 1
            return Verdict.NEXT

`pkt` has the names and rules of :class:`~onvm_sdk.packet.PacketView`, without ``data`` and
``tobytes``, and with ``ipv6.src_high`` and ``src_low`` (unsigned, 64 bits) for IPv6 addresses.
Use ``pkt.flow_key`` only as the key of a table.
`state` is None, a C-contiguous NumPy array, a structured record, a table of `onvm_sdk.tables`, or a
tuple or NamedTuple of those. The kernel gets it by address, so both sides see all changes.

numba compiles the kernel at the first start of the NF, not at its import. That takes a second or
two. The object code is stored in ``$NUMBA_CACHE_DIR/onvm``, or under ``$XDG_CACHE_HOME/onvm``, and
later starts do not even import numba. A kernel that refers to an object without a name outside this
process (such as a ctypes function) is compiled at each start. Without numba the kernel runs
interpreted, with the same results.

An exception in a compiled kernel ends the NF host, as in an interpreted one. The burst is dropped,
and the interpreted function runs on the packet to get a traceback.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Literal, overload

from onvm_sdk.errors import PluginError
from onvm_sdk.nf import NativeKernel

__all__ = ["Kernel", "kernel"]

Compile = Literal["auto", "required", "never"]


class Kernel:
    """A per-packet function that can be compiled.

    Args:
        function: ``function(pkt, state) -> Verdict | None``.
        mode: "auto" compiles it if numba is installed, "required" fails without numba, and "never"
            always interprets it.
        is_bounds_checked: whether compiled array accesses are checked; a bad one drops the packet.
    """

    # No dataclass: what it imports takes a fifth of the time in which an NF starts.
    __slots__ = ("function", "is_bounds_checked", "mode")
    onvm_kernel = True

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        mode: Compile = "auto",
        is_bounds_checked: bool = False,
    ) -> None:
        self.function = function
        self.mode = mode
        self.is_bounds_checked = is_bounds_checked

    def __call__(self, pkt: Any, state: Any) -> Any:
        """Run interpreted."""
        return self.function(pkt, state)

    def compile(self, state: Any, on_error: Callable[[BaseException], None]) -> NativeKernel | None:
        """Compile it for a state of this type; None if it runs interpreted.

        Args:
            state: the kernel's second argument.
            on_error: called, with the interpreter locked, with the exception that the kernel
                raised.

        Raises:
            PluginError: numba is required and missing, or cannot compile the function.
        """
        if self.mode == "never":
            return None
        if importlib.util.find_spec("numba") is None:
            if self.mode == "required":
                raise PluginError(
                    "expected numba; run: pip install 'onvm[kernels]'",
                    field=self.function.__qualname__,
                )
            return None
        from onvm_sdk._compiler.load import load_kernel

        return load_kernel(self.function, state, on_error, is_bounds_checked=self.is_bounds_checked)


@overload
def kernel(function: Callable[[Any, Any], Any], /) -> Any: ...
@overload
def kernel(
    *, compile: Compile = "auto", boundscheck: bool = False
) -> Callable[[Callable[[Any, Any], Any]], Any]: ...
def kernel(
    function: Callable[[Any, Any], Any] | None = None,
    /,
    *,
    compile: Compile = "auto",
    boundscheck: bool = False,
) -> Any:
    """Mark a per-packet function as a kernel; see :class:`Kernel` for the options.

    The result has type Any, because it replaces a method with another signature.
    """
    if function is not None:
        return Kernel(function)
    return lambda inner: Kernel(inner, compile, boundscheck)
