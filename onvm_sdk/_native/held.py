"""Mirror of ``native/nf/held.h``: packets that an NF holds."""

from __future__ import annotations

from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.errors import check

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Table", "address_of", "create"]

TOKENS = 1 << 32


class Table:
    """A ``struct onvm_held`` that others own.

    Args:
        address: of the struct.
    """

    __slots__ = ("_table", "address")

    def __init__(self, address: int) -> None:
        self.address = address
        self._table = ffi.cast("struct onvm_held *", address)

    @property
    def count(self) -> int:
        """Packets that are held."""
        count: int = lib.onvm_held_count(self._table)
        return count

    @property
    def total(self) -> int:
        """Packets that were ever held."""
        total: int = lib.onvm_held_total(self._table)
        return total

    @property
    def refused(self) -> int:
        """Packets that were not held because of the limit."""
        refused: int = lib.onvm_held_refused(self._table)
        return refused

    @property
    def limit(self) -> int:
        """The most packets that may be held."""
        limit: int = lib.onvm_held_limit_of(self._table)
        return limit

    @limit.setter
    def limit(self, limit: int) -> None:
        lib.onvm_held_limit(self._table, limit)

    def has(self, token: int) -> bool:
        """True if the packet of a token is held."""
        return 0 < token < TOKENS and lib.onvm_held_get(self._table, token) != ffi.NULL

    def release(self, token: int, verdict: int, destination: int) -> bool:
        """Release a packet; False if it is not held."""
        if not 0 < token < TOKENS:
            return False
        result: int = lib.onvm_held_release(self._table, token, verdict, destination)
        return result == 0

    def release_all(self) -> int:
        """Release all packets; gives how many."""
        count: int = lib.onvm_held_release_all(self._table)
        return count

    def settle(self, packets: Any, count: int) -> int:
        """Take held packets out of a burst; gives how many are left."""
        left: int = lib.onvm_held_settle(self._table, packets, count)
        return left

    def take(self, packets: Any, count: int) -> int:
        """Take released packets; gives how many."""
        taken: int = lib.onvm_held_take(self._table, packets, count)
        return taken


def create(capacity: int) -> Any:
    """Make a table; it lives as long as the result."""
    table = lib.onvm_held_create(capacity)
    check(0 if table else -12, "make a table of held packets")
    return ffi.gc(table, lib.onvm_held_free)


def address_of(table: Any) -> int:
    """The address of what `create` has made."""
    return int(ffi.cast("uintptr_t", table))
