# SPDX-License-Identifier: Apache-2.0
"""A firewall for cases by hand: the C kernel beside its model, with a clock of its own."""

from __future__ import annotations

from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel
from onvm_nf_firewall.model import FirewallModel

from onvm_sdk.testing.frames import ACK, SYN, tcp
from onvm_sdk.testing.kernel import DROP, NEXT, PARTIAL, KernelRunner, Packet

__all__ = ["NS", "REASONS", "WEB", "A", "B", "FirewallCase", "handshake"]

NS = 1_000_000_000
REASONS = [
    "rule", "default", "malformed", "fragment", "non_ip", "table_full", "invalid", "options",
    "source_limit",
]  # fmt: skip
A, B = "10.0.0.1", "10.0.0.2"
WEB = {"default": "drop", "rules": [{"action": "accept", "protocol": "tcp", "dst_ports": 80}]}


class FirewallCase:
    """A call gives the drop reasons of frames, None for those that pass.

    Args:
        config: the configuration of the firewall.
    """

    def __init__(self, **config: object) -> None:
        checked = load(config)
        self.kernel = make_kernel(checked)
        self.runner = KernelRunner(self.kernel)
        self.model = FirewallModel(checked)

    def __call__(
        self, *frames: bytes, t: int = 1, reverse: bool = False, flags: int = 0
    ) -> list[str | None]:
        packets = [Packet(f, reverse=reverse, flags=flags) for f in frames]
        self.runner.run([], t * NS)
        self.model.expire(t * NS)
        done = self.runner.run(packets, t * NS)
        assert [p.data for p in done] == list(frames), "a firewall changes nothing"
        assert all(p.verdict in (NEXT, DROP) for p in done)
        reasons = [REASONS[p.destination] if p.verdict == DROP else None for p in done]
        partial = bool(flags & PARTIAL)
        expected = [self.model.judge(f, t * NS, reverse=reverse, partial=partial) for f in frames]
        assert reasons == expected, "the kernel and the model differ"
        return reasons

    def idle(self, first_s: int, end_s: int) -> None:
        """Let time pass without traffic."""
        for t in range(first_s, end_s):
            self.runner.run([], t * NS)
            self.model.expire(t * NS)


def handshake(
    a: str = A, p: int = 9, b: str = B, q: int = 80, **syn: bytes
) -> tuple[bytes, bytes, bytes]:
    """Make the three segments that open a connection; the next numbers are 101 and 201."""
    return (
        tcp(a, p, b, q, SYN, seq=100, ack=0, **syn),
        tcp(b, q, a, p, SYN | ACK, seq=200, ack=101, **syn),
        tcp(a, p, b, q, ACK, seq=101, ack=201),
    )
