"""Failed calls of ``native/dataplane/dataplane.h``, as exceptions."""

from __future__ import annotations

from typing import Any

from onvm_core._native._dataplane import ffi, lib
from onvm_core.dataplane.interface import DataplaneError

__all__ = ["check", "ip_address"]


def check(result: int) -> int:
    """Return the result of a call.

    Raises:
        DataplaneError: it failed.
    """
    if result < 0:
        raise DataplaneError(-result, ffi.string(lib.onvm_dp_error()).decode())
    return result


def ip_address(address: bytes) -> tuple[int, Any]:
    """IP version of an address, and its bytes for a call."""
    return 4 if len(address) == 4 else 6, ffi.from_buffer(address)
