"""An author's exception in one line, with the line of the author's code."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["describe", "located"]

_OURS = frozenset({"onvm_sdk", "importlib"})


def describe(error: BaseException, nf: object = None) -> str:
    """``ERROR: text (FILE:LINE)``; the line is the innermost one in the package of the NF.

    Args:
        nf: the NF whose hook raised it; None: there is none yet, and any code but ours counts.
    """
    package = None if nf is None else type(nf).__module__.partition(".")[0]
    place = ""
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name == package or (package is None and name not in _OURS):
            place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    text = str(error)
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def located(error: BaseException, function: Callable[..., Any]) -> BaseException:
    """Put the line of `function` into an error about its result.

    Such an error has no traceback: the function has ended.
    """
    if error.__traceback__ is not None:
        return error
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__name__)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return type(error)(f"{name} {error}{place}")
