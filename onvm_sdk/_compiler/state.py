"""A kernel's state as compiled code reads it: words that ``ctx->state`` points to.

    raised | handle | has_failed | address, lengths ... of each part

`raised` is the function that is called, with `handle`, when the kernel has raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onvm_sdk.errors import PluginError

__all__ = ["FIRST_PART", "check_state", "describe_state", "parts_of", "state_words"]

FAILED = 2
FIRST_PART = 3


def parts_of(state: Any) -> tuple[Any, ...]:
    """Give the parts of a state that is a tuple, or the one it is."""
    return state if isinstance(state, tuple) else (state,)


def check_state(function: Callable[..., Any], state: Any) -> None:
    """Refuse what compiled code cannot have.

    Raises:
        PluginError: `state` is something else than None, arrays, records and tables.
    """
    for value in parts_of(state):
        if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
            raise PluginError(
                "expected C-contiguous arrays", field=f"state of {function.__qualname__}"
            )
        if not (
            value is None
            or isinstance(value, (np.ndarray, np.void))
            or "kernel_type" in vars(type(value))  # not of a subclass, whose methods are others
        ):
            raise PluginError(
                "expected None, a NumPy array, a record, a table, or a tuple of those",
                field=f"state of {function.__qualname__}",
                value=value,
            )


def describe_state(state: Any) -> str:
    """Say all that compiled code depends on: types and dimensions, not values."""
    seen = [type(state).__name__, repr(getattr(state, "_fields", None))]
    for value in parts_of(state):
        if value is None:
            seen.append("None")
            continue
        if hasattr(value, "kernel_type"):
            seen.append(repr(value.kernel_type))
            continue
        dtype = value.dtype
        # Offsets and alignment are not in descr of a padded or aligned dtype.
        layout = {name: str(dtype.fields[name]) for name in dtype.names or ()}
        seen.append(f"{type(value).__name__} {dtype.str} {dtype.isalignedstruct} {layout}")
        if isinstance(value, np.ndarray):
            seen.append(f"{value.ndim} {value.flags.aligned} {value.flags.writeable}")
    return "; ".join(seen)


def state_words(state: Any, raised: int, handle: int) -> Any:
    """Make the words; they hold addresses, so `state` must live as long."""
    words = [raised, handle, 0]
    for value in parts_of(state):
        if hasattr(value, "kernel_type"):
            words.append(value.address)
        elif value is not None:
            words.append(value.__array_interface__["data"][0])
            words.extend(value.shape if isinstance(value, np.ndarray) else ())
    return np.array(words, dtype=np.uint64)
