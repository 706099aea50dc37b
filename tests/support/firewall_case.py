# SPDX-License-Identifier: Apache-2.0
"""A firewall for cases by hand: the C kernel beside its model, with a clock of its own."""

from __future__ import annotations

from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import bind_ports, make_kernel
from onvm_nf_firewall.model import REJECTED, FirewallModel

from onvm_sdk.testing.frames import ACK, SYN, tcp
from onvm_sdk.testing.kernel import DROP, MERGED, NEXT, OUT, PARTIAL, KernelRunner, Packet

__all__ = ["NS", "PORTS", "REASONS", "REJECTED", "WEB", "A", "B", "FirewallCase", "handshake"]

NS = 1_000_000_000
REASONS = [
    "rule", "default", "malformed", "fragment", "non_ip", "table_full", "invalid", "options",
    "source_limit",
]  # fmt: skip
A, B = "10.0.0.1", "10.0.0.2"
PORTS = {0: "lan", 1: "wan", 2: "dmz", 5: "wan2"}
WEB = {"default": "drop", "rules": [{"action": "accept", "protocol": "tcp", "dst_ports": 80}]}


class FirewallCase:
    """A call gives the drop reasons of frames, None for those that pass.

    `REJECTED` stands for an answer, which is in `answers`.

    Args:
        config: the configuration of the firewall; its ports are those of `PORTS`.
    """

    def __init__(self, **config: object) -> None:
        checked = load(config)
        self.kernel = make_kernel(checked)
        bind_ports(self.kernel, PORTS, checked.settings.egress)
        self.runner = KernelRunner(self.kernel)
        self.model = FirewallModel(checked)
        self.answers: list[bytes] = []

    def __call__(
        self, *frames: bytes, t: float = 1, reverse: bool = False, flags: int = 0, port: int = 0
    ) -> list[str | None]:
        now_ns = int(t * NS)
        packets = [Packet(f, reverse=reverse, flags=flags, port=port) for f in frames]
        self.runner.run([], now_ns)
        self.model.expire(now_ns)
        done = self.runner.run(packets, now_ns)
        partial, merged = bool(flags & PARTIAL), bool(flags & MERGED)
        reasons = []
        for frame, packet in zip(frames, done, strict=True):
            expected = self.model.judge(
                frame, now_ns, reverse=reverse, partial=partial, merged=merged,
                port=PORTS.get(port, ""),
            )  # fmt: skip
            reason = REASONS[packet.destination] if packet.verdict == DROP else None
            if packet.verdict == OUT:
                reason = REJECTED
                assert packet.destination == port, "an answer leaves by the port of its packet"
                assert packet.data == self.model.answer, "the answers differ"
                self.answers.append(packet.data)
            else:
                assert packet.verdict in (NEXT, DROP)
                assert packet.data == frame, "a firewall changes nothing"
            assert reason == expected, "the kernel and the model differ"
            reasons.append(reason)
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
