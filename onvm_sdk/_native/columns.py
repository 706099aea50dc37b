"""Mirror of ``native/nf/columns.h``: columns over a burst, as addresses and NumPy arrays."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.errors import NativeError, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BURST_MAX", "COLUMN_IDS", "READ_ONLY", "Columns", "originate"]

BURST_MAX: int = lib.ONVM_BURST_MAX
_META = (
    "length",
    "port",
    "flow_hash",
    "protocol",
    "vlan_count",
    "verdict",
    "destination",
    "flow_key",
    "l3_offset",
    "l4_offset",
    "payload_length",
    "time_ns",
)


def _rare(number: int) -> tuple[str, Any]:
    """Name and field of a header that few packets have."""
    name: str = ffi.string(lib.onvm_rare_field_name(number)).decode().lower()
    return name, lib.onvm_rare_field(number)


COLUMN_IDS: dict[str, int] = {
    ffi.string(lib.onvm_field_name(column)).decode().lower(): column
    for column in range(lib.ONVM_FIELD_COUNT)
} | {name: getattr(lib, f"ONVM_META_{name}") for name in _META}
COLUMN_IDS |= {
    _rare(number)[0]: lib.ONVM_COLUMN_COUNT + number for number in range(lib.ONVM_RARE_COUNT)
}
"""Number of each column by its dotted name (``ipv4.ttl``, ``length``)."""


def _is_writable(column: int) -> bool:
    if column >= lib.ONVM_COLUMN_COUNT:
        return bool(_rare(column - lib.ONVM_COLUMN_COUNT)[1].is_writable)
    return bool(lib.onvm_field_table()[column].is_writable)


READ_ONLY = frozenset(
    column
    for name, column in COLUMN_IDS.items()
    if name not in ("verdict", "destination") and (name in _META or not _is_writable(column))
)
"""Columns that are never written back."""
COLUMN_IDS["eth.type"] = COLUMN_IDS.pop("type.type")


@ffi.def_extern(error=-1)  # type: ignore[untyped-decorator]
def onvm_python_burst(handle: Any) -> int:
    columns: Columns = ffi.from_handle(handle)
    return columns.call()


class Columns:
    """A ``struct onvm_columns`` whose handler is a Python function.

    Args:
        function: called without arguments once per burst.
        on_error: called with what `function` raised.

    Threads: the one that runs the NF host.
    """

    def __init__(
        self, function: Callable[[], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._function = function
        self._on_error = on_error
        self._handle = ffi.new_handle(self)
        self._columns = lib.onvm_columns_create(lib.onvm_python_burst, self._handle)
        if not self._columns:
            raise NativeError(errno.ENOMEM, "create columns")
        self._columns = ffi.gc(self._columns, lib.onvm_columns_free)
        self.kernel = int(ffi.cast("uintptr_t", ffi.addressof(lib, "onvm_columns_kernel")))
        self.state = int(ffi.cast("uintptr_t", self._columns))

    def call(self) -> int:
        """Run the handler; -1 when it raised."""
        try:
            self._function()
        except BaseException as error:  # the plugin boundary: the NF host reports it
            self._on_error(error)
            return -1
        return 0

    def __len__(self) -> int:
        length: int = lib.onvm_columns_length(self._columns)
        return length

    def array(self, column: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """All ``BURST_MAX`` entries of a column's array; it stays where it is for good."""
        import numpy as np

        width: int = lib.onvm_columns_entry_bytes(column)
        memory = ffi.buffer(self._get(column), BURST_MAX * width)
        entries = np.frombuffer(memory, dtype=dtype)
        return entries if width == dtype.itemsize else entries.reshape(BURST_MAX, -1)

    def gather(self, column: int) -> None:
        """Fill a column's array for this burst, unless it is."""
        lib.onvm_columns_get(self._columns, column)

    def mask_array(self, header: int) -> NDArray[np.bool_]:
        """All ``BURST_MAX`` entries of a header's mask."""
        import numpy as np

        mask = lib.onvm_columns_mask(self._columns, header)
        return np.frombuffer(ffi.buffer(mask, BURST_MAX), dtype=np.bool_)

    def gather_mask(self, header: int) -> None:
        """Fill a header's mask for this burst, unless it is."""
        lib.onvm_columns_mask(self._columns, header)

    def decide(self, mask: NDArray[np.bool_] | None, verdict: int, destination: int) -> None:
        """Give the packets of `mask` (None: all) a verdict."""
        lib.onvm_columns_decide(self._columns, _pointer(mask), verdict, destination)

    def hold(self, mask: NDArray[np.bool_] | None, tokens: NDArray[np.uint32]) -> None:
        """Hold the packets of `mask` (None: all); `tokens` gets their tokens.

        Raises:
            PermissionError: the NF may hold none.
        """
        if lib.onvm_columns_ctx(self._columns).held_packets == ffi.NULL:
            raise PermissionError("expected held_packets in the manifest")
        lib.onvm_columns_hold(self._columns, _pointer(mask), ffi.from_buffer("uint32_t[]", tokens))

    def push(
        self,
        mask: NDArray[np.bool_] | None,
        length: int,
        filling: NDArray[np.uint8] | bytes | None,
        stride: int,
        done: NDArray[np.bool_],
    ) -> None:
        """Make room for `length` bytes before packets and fill it; `done` says where."""
        source = ffi.NULL if filling is None else ffi.from_buffer("uint8_t[]", filling)
        lib.onvm_columns_push(self._columns, _pointer(mask), length, source, stride, _pointer(done))

    def pull(self, mask: NDArray[np.bool_] | None, length: int, done: NDArray[np.bool_]) -> None:
        """Cut `length` bytes off the front of packets; `done` says where."""
        lib.onvm_columns_pull(self._columns, _pointer(mask), length, _pointer(done))

    def append(
        self,
        mask: NDArray[np.bool_] | None,
        length: int,
        filling: NDArray[np.uint8] | bytes,
        stride: int,
        done: NDArray[np.bool_],
    ) -> None:
        """Put `length` bytes behind packets; `done` says where."""
        source = ffi.from_buffer("uint8_t[]", filling)
        pointers = _pointer(mask), _pointer(done)
        lib.onvm_columns_append(self._columns, pointers[0], length, source, stride, pointers[1])

    def trim(self, mask: NDArray[np.bool_] | None, length: int, done: NDArray[np.bool_]) -> None:
        """Cut `length` bytes off the end of packets; `done` says where."""
        lib.onvm_columns_trim(self._columns, _pointer(mask), length, _pointer(done))

    def make_checksums(self, mask: NDArray[np.bool_] | None) -> None:
        """Make checksums from the bytes of packets."""
        lib.onvm_columns_make_checksums(self._columns, _pointer(mask))

    def payload(self, offset: int, length: int, entries: NDArray[np.uint8]) -> None:
        """Copy a part of each payload; zeros behind its end."""
        place = ffi.from_buffer("uint8_t[]", entries)
        lib.onvm_columns_payload(self._columns, offset, length, place)

    def packet(self, row: int) -> tuple[int, int]:
        """Addresses of packet `row` and of the burst's context; ends all columns."""
        packet = lib.onvm_columns_packet(self._columns, row)
        if not packet:
            raise IndexError(row)
        return int(ffi.cast("uintptr_t", packet)), self.context()

    def context(self) -> int:
        """Address of the burst's ``struct onvm_ctx``."""
        return int(ffi.cast("uintptr_t", lib.onvm_columns_ctx(self._columns)))

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC of the burst."""
        now: int = lib.onvm_columns_ctx(self._columns).now_ns
        return now

    def _get(self, column: int) -> Any:
        array = lib.onvm_columns_get(self._columns, column)
        if not array:
            raise NativeError(errno.ENOMEM, "gather a column")
        return array


def originate(context: int, packet: bytes, verdict: int, destination: int) -> bool:
    """Make a packet in a loaned buffer; False when the loan is used up or it does not fit.

    Raises:
        PermissionError: the manifest has no permission ``originate``.
    """
    ctx = ffi.cast("struct onvm_ctx *", context)
    result: int = lib.onvm_originate(ctx, packet, len(packet), verdict, destination)
    if result == -errno.EPERM:
        raise PermissionError("expected the permission originate in the manifest")
    if result in (-errno.ENOBUFS, -errno.EMSGSIZE):
        return False
    check(result, "originate a packet")
    return True


def _pointer(array: NDArray[np.bool_] | None) -> Any:
    return ffi.NULL if array is None else ffi.from_buffer("uint8_t[]", array)
