"""@kernel: one per-packet function, interpreted or compiled to machine code.

    class Hop(NetworkFunction):
        def setup(self, ctx):
            self.state = np.zeros(65536, dtype=np.bool_)     # what the kernel gets

        @kernel
        def process_packet(pkt, blocked):
            if pkt.is_udp and blocked[pkt.udp.dst_port]:
                return pkt.drop()
            pkt.ipv4.ttl -= 1
            return Verdict.NEXT

`pkt` has the names and rules of :class:`~onvm_sdk.packet.PacketView`, without ``data`` and
``tobytes``, and with ``ipv6.src_high`` and ``src_low`` (unsigned, 64 bits) for IPv6 addresses.
`state` is None, a C-contiguous NumPy array, a structured record, or a tuple of those; it is handed
over by address, so changes are seen by both sides.

numba compiles it when the NF starts (not when it is imported), about a second. Without
numba it runs interpreted, with the same results.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

from onvm_sdk.errors import PluginError
from onvm_sdk.nf import NativeKernel

__all__ = ["Kernel", "kernel"]

Compile = Literal["auto", "required", "never"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A per-packet function that can be compiled.

    Args:
        function: ``function(pkt, state) -> Verdict | None``.
        mode: auto: compiled where numba is installed; required: an error without it; never.
        is_bounds_checked: whether compiled array accesses are checked; a bad one drops the packet.
    """

    function: Callable[[Any, Any], Any]
    mode: Compile = "auto"
    is_bounds_checked: bool = False
    onvm_kernel: bool = True

    def __call__(self, pkt: Any, state: Any) -> Any:
        """Run interpreted."""
        return self.function(pkt, state)

    def compile(self, state: Any) -> NativeKernel | None:
        """Compile for a state of this type; None where it is to run interpreted.

        Raises:
            PluginError: numba is missing although it is required, or cannot compile the function.
        """
        if self.mode == "never":
            return None
        if importlib.util.find_spec("numba") is None:
            if self.mode == "required":
                raise PluginError(
                    "numba expected: pip install 'onvm[kernels]'", field=self.function.__qualname__
                )
            return None
        from onvm_sdk._compiler.build import build

        return build(self.function, state, is_bounds_checked=self.is_bounds_checked)


@overload
def kernel(function: Callable[[Any, Any], Any], /) -> Kernel: ...
@overload
def kernel(
    *, compile: Compile = "auto", boundscheck: bool = False
) -> Callable[[Callable[[Any, Any], Any]], Kernel]: ...
def kernel(
    function: Callable[[Any, Any], Any] | None = None,
    /,
    *,
    compile: Compile = "auto",
    boundscheck: bool = False,
) -> Kernel | Callable[[Callable[[Any, Any], Any]], Kernel]:
    """Mark a per-packet function as a kernel; see :class:`Kernel` for the options."""
    if function is not None:
        return Kernel(function)
    return lambda inner: Kernel(inner, compile, boundscheck)
