"""The way back from a compiled kernel to Python: what it has raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onvm_sdk._hosting.author import located
from onvm_sdk._native import packet
from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.verdict import Verdict

__all__ = ["Raised"]


class Raised:
    """Finds out what a compiled kernel raised, and reports it.

    Compiled code knows only that it did; so the packet goes through the interpreted function.

    Args:
        function: ``function(pkt, state)``, interpreted.
        state: its second argument.
        on_error: called with what it raised.

    Lifetime: must live as long as the kernel may be called.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        state: Any,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._function = function
        self._state = state
        self._on_error = on_error
        self._handle = ffi.new_handle(self)
        self.handle = int(ffi.cast("uintptr_t", self._handle))
        self.address = int(ffi.cast("uintptr_t", ffi.cast("void *", lib.onvm_python_raised)))

    def report(self, pkt: int, ctx: int) -> None:
        """Run the packet interpreted and report what comes of it."""
        view = packet.view(pkt, ctx)
        try:
            returned = self._function(view, self._state)
        except BaseException as error:  # the plugin boundary: the NF host reports it
            self._on_error(error)
        else:
            found: Exception = TypeError(f"returned {returned!r}, expected a Verdict or None")
            if returned is None or returned in tuple(Verdict):
                text = "raised when it was compiled; interpreted, the same packet passes"
                found = RuntimeError(text)
            self._on_error(located(found, self._function))
        finally:
            packet.end_view(view)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def onvm_python_raised(handle: Any, ctx: Any, pkt: Any) -> None:
    raised: Raised = ffi.from_handle(handle)
    raised.report(int(ffi.cast("uintptr_t", pkt)), int(ffi.cast("uintptr_t", ctx)))
