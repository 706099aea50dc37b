# SPDX-License-Identifier: Apache-2.0
"""Backends and connections as operators see them, and connections as they end them."""

from __future__ import annotations

from onvm_nf_lb import Lb

from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import SYN, tcp

C, V, B1, B2 = "192.0.2.77", "198.51.100.10", "203.0.113.1", "203.0.113.2"
NOW = 1 << 62
"""Connections are listed by the clock of the machine, so they begin in its future."""
VIP = {
    "address": V,
    "port": 80,
    "backends": [{"address": B1, "port": 8080}, {"address": B2, "port": 8080, "weight": 0}],
}


def opened() -> Runner:
    runner = Runner(Lb, config={"vips": [VIP]})
    runner.run([tcp(C, 5000, V, 80, SYN), tcp(C, 5001, V, 80, SYN)], now_ns=NOW)
    return runner


def test_backends_are_listed_with_what_they_carry() -> None:
    with opened() as runner:
        first, second = runner.show("backends")
        assert (first["backend"], first["state"], first["connections"]) == (f"{B1}:8080", "up", 2)
        assert (first["packets_in"], first["packets_out"]) == (2, 0)
        assert (second["backend"], second["state"]) == (f"{B2}:8080", "draining")


def test_connections_are_listed_and_killed() -> None:
    with opened() as runner:
        (one,) = runner.show("connections", {"client_port": "5000"})
        assert one == {
            "protocol": "tcp",
            "client": C,
            "client_port": 5000,
            "vip": V,
            "vip_port": 80,
            "backend": B1,
            "backend_port": 8080,
            "idle_s": 0,
            "vlan": "",
        }
        assert runner.kill("connections", {"client_port": "5000"}) == 1
        assert runner.kill("connections", {"client_port": "5000"}) == 0
        assert [row["connections"] for row in runner.show("backends")] == [1, 0]
        again = runner.run([tcp(C, 5000, V, 80, SYN)], now_ns=NOW).packets[0]
        assert read_headers(again).dst_port == 8080
