"""An author's exception in one line, with the line of the author's code."""

from __future__ import annotations

__all__ = ["describe"]

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
    return f"{type(error).__name__}: {error}{place}"
