"""The benchmark NF w2 in the three Python ways; native/bench/w2_nf.c is the one in C.

w2 looks up the UDP destination port in a set and drops the packet if the port is in it. Otherwise
it decrements the TTL and corrects the checksum. Packets other than UDP over IPv4, and those without
TTL left, are dropped.

    python -P -m onvm_sdk.runtime --socket PATH --nf onvm_core.bench.nfs:W2Kernel --service w0
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from onvm_sdk import NetworkFunction, Verdict, kernel

if TYPE_CHECKING:
    from onvm_sdk import Burst, Context, PacketView

__all__ = ["BLOCKED_PORTS", "Pass", "Spin", "W2Columns", "W2Kernel", "W2Packets", "W2Twin", "Wait"]

BLOCKED_PORTS = frozenset({9999, *(20000 + number * 7 for number in range(64))})
CYCLES_PER_TURN = 8
_PERMISSIONS = ["read", "rewrite", "drop"]


class W2Packets(NetworkFunction):
    """w2, one packet at a time."""

    manifest: ClassVar = {"permissions": _PERMISSIONS, "burst_size": 64}

    def process_packet(self, pkt: PacketView) -> Verdict | int | None:
        """Work on one packet."""
        if not pkt.is_ipv4 or not pkt.is_udp or pkt.udp.dst_port in BLOCKED_PORTS:
            return pkt.drop()
        ipv4 = pkt.ipv4
        ttl = ipv4.ttl
        if ttl <= 1:
            return pkt.drop()
        ipv4.ttl = ttl - 1
        return None


class W2Columns(NetworkFunction):
    """w2 on columns; ``--burst-size`` sets the number of packets."""

    manifest: ClassVar = {"permissions": _PERMISSIONS, "burst_size": 1024}

    def setup(self, ctx: Context) -> None:
        """Make the set an array, to look up a whole burst at once."""
        self.blocked = _blocked_array()

    def process(self, burst: Burst) -> None:
        """Work on a burst."""
        ttl = burst.ipv4.ttl
        bad = self.blocked[burst.udp.dst_port]
        bad |= ttl <= 1
        bad |= ~burst.is_udp
        burst.drop(bad)
        ttl -= 1


class W2Kernel(NetworkFunction):
    """w2 compiled by numba."""

    manifest: ClassVar = {"permissions": _PERMISSIONS, "service": "w", "burst_size": 64}

    def setup(self, ctx: Context) -> None:
        """Make the set an array of bits, as in C."""
        import numpy as np

        self.state = np.packbits(_blocked_array(), bitorder="little").view(np.uint64)

    @kernel(compile="required")
    def process_packet(pkt: Any, blocked: Any) -> Any:
        """Work on one packet."""
        if not pkt.is_ipv4 or not pkt.is_udp:
            return pkt.drop()
        port = pkt.udp.dst_port
        if (int(blocked[port >> 6]) >> (port & 63)) & 1:
            return pkt.drop()
        ttl = pkt.ipv4.ttl
        if ttl <= 1:
            return pkt.drop()
        pkt.ipv4.ttl = ttl - 1
        return Verdict.NEXT


class W2Twin(W2Kernel):
    """The same for another service, so both can run at the same time."""

    manifest: ClassVar = {**W2Kernel.manifest, "service": "twin"}


def _blocked_array() -> Any:
    import numpy as np

    blocked = np.zeros(65536, np.bool_)
    blocked[list(BLOCKED_PORTS)] = True
    return blocked


class Wait(NetworkFunction):
    """Spend time on each packet without a CPU, so a few cores carry many instances."""

    manifest: ClassVar = {
        "permissions": ["read"],
        "service": "w",
    }

    def setup(self, ctx: Context) -> None:
        """Read the time from the instance name: ``300us-1`` takes 300 µs."""
        self.wait_s = int(ctx.instance.partition("us")[0]) / 1e6

    def on_message(self, sender: str, payload: bytes) -> None:
        """Set a new time for each packet, in microseconds."""
        self.wait_s = int(payload) / 1e6

    def process_packet(self, pkt: PacketView) -> None:
        """Wait, and let the packet go on."""
        time.sleep(self.wait_s)


class Spin(NetworkFunction):
    """Compute for a number of cycles with each packet, compiled."""

    manifest: ClassVar = {"permissions": ["read"], "service": "w", "burst_size": 64}

    def setup(self, ctx: Context) -> None:
        """Read the number from the instance name: ``500cy-1`` computes for about 500 cycles."""
        import numpy as np

        turns = max(int(ctx.instance.partition("cy")[0]) // CYCLES_PER_TURN, 1)
        self.state = np.array([turns, 1.0])

    @kernel(compile="required")
    def process_packet(pkt: Any, state: Any) -> Any:
        """Multiply and add; each step waits for the last."""
        value = state[1]
        for _ in range(int(state[0])):
            value = value * 0.999 + 0.001
        state[1] = value
        return Verdict.NEXT


class Pass(NetworkFunction):
    """Do nothing: measures the start of an NF in Python."""

    manifest: ClassVar = {"permissions": ["read"], "service": "w"}

    def process_packet(self, pkt: PacketView) -> None:
        """Let the packet go on."""
