"""NetworkFunction: what an NF author subclasses.

Exactly one of four things decides how packets reach the NF, and how fast:

* ``process(self, burst)``: columns, header fields of a burst as NumPy arrays;
* ``process_packet(self, pkt)``: one packet at a time, easiest and slowest;
* ``@kernel def process_packet(pkt, state)``: the same, compiled by numba;
* ``native(self)``: a C function from the NF's own cffi module.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import COUNTERS_MAX

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar

    from onvm_sdk.burst import Burst
    from onvm_sdk.packet import PacketView
    from onvm_sdk.verdict import Verdict

__all__ = ["Context", "Counters", "NativeKernel", "NetworkFunction"]


class NativeKernel:
    """A kernel in C: ``void f(struct onvm_ctx *, struct onvm_pkt *, uint32_t)``.

    Args:
        function: its address, as ``int(ffi.cast("uintptr_t", lib.f))``.
        state: the address that ``ctx->state`` shall have, or 0.
        keep: what must not be freed while the kernel may be called (cffi objects, tables).
    """

    __slots__ = ("function", "keep", "state")

    def __init__(self, function: int, state: int = 0, keep: object = None) -> None:
        self.function = function
        self.state = state
        self.keep = keep


class Counters(Mapping[str, int]):
    """An NF's own counters, by the names of its manifest.

    ``ctx.counters["hits"] += 1``. Operators read them while the NF runs.

    Threads: the one that runs the NF host.
    """

    def __init__(self, names: Sequence[str], values: memoryview | None = None) -> None:
        self._index = {name: number for number, name in enumerate(names)}
        self._values = (
            memoryview(bytearray(8 * COUNTERS_MAX)).cast("Q") if values is None else values
        )

    def move(self, values: memoryview) -> None:
        """Continue in other memory: counts are carried over (a manager that came back)."""
        for number in range(len(self._index)):
            values[number] = self._values[number]
        self._values = values

    def keep(self) -> None:
        """Continue in memory of their own, before that shared with the manager is unmapped."""
        values = memoryview(bytearray(8 * COUNTERS_MAX)).cast("Q")
        self.move(values)

    def __getitem__(self, name: str) -> int:
        return self._values[self._index[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._values[self._index[name]] = value & 0xFFFF_FFFF_FFFF_FFFF

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


def _nowhere(to: str, payload: bytes) -> None:
    raise ConfigError("an NF host with a manager expected", field=f"message to {to!r}")


def _no_claim(address: str, first_port: int, end_port: int, protocol: int) -> None:
    return None


class Context:
    """What ``setup`` is called with; good as long as the NF lives.

    Args:
        name: the NF's.
        instance: this instance's; "" when the manager chooses it.
        config: the user's configuration, checked against the manifest, defaults filled in.
        counters: the NF's own, by the names of its manifest.
        reasons: names of the manifest's drop reasons, in order.
        send_message: send bytes to a service or an instance by name; "" is the manager.
        claim: ``claim(address, first_port, end_port, protocol)``: that traffic belongs to this
            instance.
        unclaim: the same arguments: it does so no longer.
    """

    __slots__ = (
        "claim", "config", "counters", "instance", "name", "reasons", "send_message", "unclaim",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        instance: str = "",
        config: Mapping[str, Any] | None = None,
        counters: Counters | None = None,
        reasons: tuple[str, ...] = (),
        send_message: Callable[[str, bytes], None] = _nowhere,
        claim: Callable[[str, int, int, int], None] = _no_claim,
        unclaim: Callable[[str, int, int, int], None] = _no_claim,
    ) -> None:
        self.name = name
        self.instance = instance
        self.config = {} if config is None else config
        self.counters = Counters(()) if counters is None else counters
        self.reasons = reasons
        self.send_message = send_message
        self.claim = claim
        self.unclaim = unclaim

    def reason(self, name: str) -> int:
        """Give the number of a drop reason of the manifest."""
        return self.reasons.index(name)

    @property
    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()


class NetworkFunction:
    """Base of every network function.

    Threads: all methods are called by one thread, never two at once.
    """

    manifest: ClassVar[Mapping[str, Any]] = {}
    """What an ``onvm-nf.toml`` would say, for an NF that is run as ``module:Class`` without one."""
    timer_interval_s: float = 0.0
    """How often ``on_timer`` is called; 0: never."""
    state: Any = None
    """What a ``@kernel`` gets as its second argument; set it in ``setup``."""

    def setup(self, ctx: Context) -> None:
        """Get ready; packets come only after this has returned."""

    def process(self, burst: Burst) -> None:
        """Work on the packets of a burst through columns."""
        raise NotImplementedError

    def process_packet(self, pkt: PacketView) -> Verdict | int | None:
        """Work on one packet; None lets it go on, unless ``pkt.drop()`` or the like said else."""
        raise NotImplementedError

    def native(self) -> NativeKernel:
        """Give the C kernel; called after ``setup``."""
        raise NotImplementedError

    def on_message(self, sender: str, payload: bytes) -> None:
        """Take a message; `sender` is a service or instance, "" the manager."""

    def on_timer(self, now_ns: int) -> None:
        """Do what is due every ``timer_interval_s``."""

    def snapshot(self) -> bytes:
        """Give the state for an instance that takes over; at most 64 MiB.

        Called when a draining instance hands its flows over to another, and when the NF host ends
        cleanly and was started with ``--snapshot``. No packets come meanwhile. If the other does
        not take the state, packets come again as if nothing had been asked. Whoever overrides it
        overrides ``restore`` too.
        """
        return b""

    def restore(self, snapshot: bytes) -> None:
        """Add the state that ``snapshot`` gave, of an instance with the same configuration.

        Called after ``setup``, before any packet, or on an instance that serves: its own state
        stays. Raising refuses: check before anything is changed.
        """

    def inherits(self) -> bool:
        """Say whether anything is in use that another instance owned and ``restore`` brought.

        Asked about once a second after a ``restore``; as long as it is so, no new instance gets the
        name of the one that owned it. For NFs whose name decides what they own.
        """
        return False

    def drain(self) -> bool:
        """Say whether the state may go; asked again every 100 ms once no new flows come."""
        return True

    def teardown(self) -> None:
        """Let go of resources; no packets come any more."""
