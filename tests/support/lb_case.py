# SPDX-License-Identifier: Apache-2.0
"""One load balancer with a clock, for tests of cases."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Balancer

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import ACK, SYN, is_sound, tcp
from onvm_sdk.testing.kernel import DROP, OUT, KernelRunner, Packet

NS = 1_000_000_000
V, V2, C, C2 = "198.51.100.10", "198.51.100.11", "192.0.2.77", "192.0.2.78"
B1, B2, ROUTER = "203.0.113.1", "203.0.113.2", "203.0.113.254"
V6, C6, B6 = "2001:db8::f", "2001:db8:c::1", "2001:db8:b::1"
REASONS = [
    "malformed",
    "fragment",
    "no_backend",
    "table_full",
    "conflict",
    "no_service",
    "no_connection",
    "too_big",
]
COUNTERS = [
    "to_backend",
    "from_backend",
    "passed",
    "connections_opened",
    "connections_expired",
    "connections_evicted",
    "icmp_errors",
    "echoes_answered",
    "rejected",
    "too_big_answered",
]


def vip(
    *backends: str,
    address: str = V,
    port: int = 80,
    protocol: str = "tcp",
    to: int = 0,
    **more: Any,
) -> dict[str, Any]:
    listed = [{"address": backend, "port": to} for backend in backends]
    return {"address": address, "protocol": protocol, "port": port, "backends": listed, **more}


class Lb:
    """One load balancer with a clock."""

    def __init__(self, *vips: dict[str, Any], **config: Any) -> None:
        self.config = config
        self.balancer = Balancer(load({"vips": list(vips), "table_size": 251, **config}))
        self.runner = KernelRunner(self.balancer.kernel)
        self.now_ns = 1000 * NS
        self.frame = b""

    def set(self, *vips: dict[str, Any]) -> None:
        self.balancer.update(load({"vips": list(vips), "table_size": 251, **self.config}))

    def wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * NS)

    def count(self, name: str) -> int:
        return self.runner.counters[COUNTERS.index(name)]

    def send(self, frame: bytes) -> Packet:
        done = self.runner.run([Packet(frame, port=3)], self.now_ns)[0]
        self.frame = done.data
        return done

    def __call__(self, frame: bytes) -> str:
        """Send one packet; its ends as it leaves, or why it was dropped."""
        done = self.send(frame)
        if done.verdict == DROP:
            return REASONS[done.destination]
        h = read_headers(done.data)
        if h.has_ports and not h.is_fragment:
            assert is_sound(done.data)
        text = f"{ip_address(h.src)}:{h.src_port} > {ip_address(h.dst)}:{h.dst_port}"
        return f"out {text}" if done.verdict == OUT else text

    def shake(
        self, client: str, port: int, service: int = 80, server: str = B1, to: int = 80
    ) -> None:
        """A whole handshake of TCP."""
        self(tcp(client, port, V, service, SYN))
        h = read_headers(self.frame)
        self(tcp(server, to, client, h.src_port, SYN | ACK))
        self(tcp(client, port, V, service, ACK))
