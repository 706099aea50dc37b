# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the load balancer: no packet is lost, and a full table takes new connections."""

from __future__ import annotations

from onvm_nf_lb.bench import new_bed, open_bed


def test_packets_of_connections_pass_both_ways() -> None:
    assert open_bed(1 << 12).run(0.001) > 0


def test_new_connections_take_the_place_of_old_ones() -> None:
    assert new_bed(1 << 11).run(0.001) > 0
