"""Turn an NF into the parts that the native loop calls: the addresses of a kernel and its state."""

from __future__ import annotations

from onvm_sdk._hosting.author import located
from onvm_sdk.errors import PluginError
from onvm_sdk.nf import NetworkFunction

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["HOOKS", "Stage", "build_stage", "kind_of"]

HOOKS = ("process", "process_packet", "native")
_KINDS = {"process": "columns", "process_packet": "packets", "native": "native"}


class Stage:
    """One NF of an NF host, ready to be called."""

    __slots__ = ("function", "hook", "keep", "nf", "state")

    def __init__(
        self, nf: NetworkFunction, hook: str, function: int, state: int, keep: object
    ) -> None:
        self.nf = nf
        self.hook = hook
        self.function = function
        self.state = state
        self.keep = keep


def _hook_of(nf: NetworkFunction) -> str:
    kind = type(nf)
    found = [hook for hook in HOOKS if getattr(kind, hook) is not getattr(NetworkFunction, hook)]
    if len(found) != 1:
        raise PluginError(
            f"expected exactly one of {', '.join(HOOKS)}", field=kind.__qualname__, value=found
        )
    return found[0]


def kind_of(nf: NetworkFunction) -> str:
    """Return the kind of `nf`: columns, packets, kernel or native."""
    hook = _hook_of(nf)
    is_kernel = hook == "process_packet" and hasattr(type(nf).process_packet, "onvm_kernel")
    return "kernel" if is_kernel else _KINDS[hook]


def build_stage(
    nf: NetworkFunction,
    on_error: Callable[[BaseException], None],
    *,
    compiled: bool = True,
) -> Stage:
    """Make a stage from an NF that is set up.

    Args:
        nf: the NF, after its ``setup``.
        on_error: called, with the interpreter locked, with the exception of a handler. The rest of
            the burst is dropped.
        compiled: False runs a ``@kernel`` interpreted.

    Raises:
        PluginError: `nf` does not define exactly one of process, process_packet and native.
    """
    hook = _hook_of(nf)
    kind = kind_of(nf)
    if kind == "native":
        native = nf.native()
        return Stage(nf, hook, native.function, native.state, native)
    if kind == "columns":
        from onvm_sdk.burst import Burst

        burst = Burst(nf.process, on_error)
        return Stage(nf, hook, burst.native.kernel, burst.native.state, burst)
    if kind == "kernel":
        kernel: Any = type(nf).process_packet
        native_kernel = kernel.compile(nf.state, on_error) if compiled else None
        if native_kernel is not None:
            return Stage(nf, hook, native_kernel.function, native_kernel.state, native_kernel)
        return _packet_stage(nf, hook, kernel.function, on_error, (nf.state,))
    return _packet_stage(nf, hook, nf.process_packet, on_error, ())


def _packet_stage(
    nf: NetworkFunction,
    hook: str,
    function: Callable[..., Any],
    on_error: Callable[[BaseException], None],
    arguments: tuple[Any, ...],
) -> Stage:
    from onvm_sdk._native import packet

    def report() -> None:
        on_error(located(loop.error, function))

    loop = packet.loop(function, report, *arguments)
    return Stage(nf, hook, loop.kernel, loop.state, (loop, report))
