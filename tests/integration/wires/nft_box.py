# SPDX-License-Identifier: Apache-2.0
"""nft in a namespace that forwards between two interfaces, near and far.

Behind each packet goes a marker that passes untracked: when it has arrived, the packet has, too, or
never will. A rule set lets UDP to `MARKER_PORT` pass.
"""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from namespaces import Net

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import udp

__all__ = ["A6", "B6", "MARKER_PORT", "OUTSIDE", "A", "B", "Nft", "V"]

MARKER_PORT = 9999
SETTINGS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.netfilter.nf_conntrack_tcp_loose": 0,
    "net.netfilter.nf_conntrack_checksum": 1,
}
A, B, V, OUTSIDE = "10.0.1.1", "10.0.2.2", "10.0.1.99", "8.8.8.8"
A6, B6 = "2001:db8:1::1", "2001:db8:2::2"
MACS = {"near": "02:00:00:00:00:aa", "far": "02:00:00:00:00:bb"}
PEER = "02:00:00:00:00:01"
PACKET_IGNORE_OUTGOING, SOL_PACKET, ETH_P_ALL = 23, 263, 3


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Nft:
    """A call says whether nft passes a frame from the near side, or `reverse` from the far one."""

    def __init__(self, net: Net, ruleset: str) -> None:
        self.count = 0
        self.net = net
        self.sockets: dict[str, socket.socket] = {}
        try:
            for name, value in SETTINGS.items():
                net.run("box", "sysctl", "-qw", f"{name}={value}")
            for number, side in enumerate(MACS, 1):
                self._connect(net, side, number)
            net.ip("box", "route", "add", "default", "via", "10.0.2.99", "dev", "far")
            self.load(ruleset)
        except (AssertionError, subprocess.CalledProcessError) as error:
            self.close()
            pytest.skip(f"this kernel has no conntrack for nft: {error}")

    def _connect(self, net: Net, side: str, number: int) -> None:
        outer = f"fw{os.getpid()}{side}"
        net.ip("box", "link", "add", side, "address", MACS[side], "type", "veth",
               "peer", "name", outer, "netns", str(os.getpid()))  # fmt: skip
        subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{outer}.disable_ipv6=1"], check=True)
        subprocess.run(["ip", "link", "set", outer, "up", "promisc", "on"], check=True)
        net.ip("box", "link", "set", side, "up")
        for address in (f"10.0.{number}.254/24", f"2001:db8:{number}::fe/64"):
            net.ip("box", "addr", "add", address, "dev", side)
        for host in ("1", "2", "99"):
            for neighbour in (f"10.0.{number}.{host}", f"2001:db8:{number}::{host}"):
                net.ip("box", "neigh", "replace", neighbour, "lladdr", PEER, "dev", side)
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sockets[side] = made
        made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        made.bind((outer, 0))
        made.settimeout(10)

    def load(self, ruleset: str) -> None:
        """Put a rule set in place of the one that is there."""
        command = ["ip", "netns", "exec", self.net.space("box"), "nft", "-f", "-"]
        text = f"flush ruleset\n{ruleset}"
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()

    def __call__(self, frame: bytes, reverse: bool) -> bool:
        here, there = ("far", "near") if reverse else ("near", "far")
        self.count += 1
        tag = self.count.to_bytes(8, "big")
        ends = (B, A) if reverse else (A, B)
        for one in (frame, udp(ends[0], 1, ends[1], MARKER_PORT, tag)):
            self.sockets[here].send(mac(MACS[here]) + one[6:])
        passed, sent = False, read_headers(frame)
        while True:
            got = self.sockets[there].recv(65536)
            h = read_headers(got)
            if h.dst_port == MARKER_PORT:
                if got.endswith(tag):
                    return passed
            elif got[:12] == mac(PEER) + mac(MACS[there]) and h.protocol in (1, 6, 17, 47, 58):
                # Its own neighbour discovery and its answers have other ends.
                passed |= (h.src, h.dst) == (sent.src, sent.dst)
