# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the nat: no packet is lost, and a full table takes new sessions."""

from __future__ import annotations

from onvm_nf_nat.bench import new_bed, open_bed


def test_packets_of_sessions_pass_both_ways() -> None:
    assert open_bed(1 << 12).run(0.001) > 0


def test_new_sessions_take_the_place_of_old_ones() -> None:
    assert new_bed(1 << 11).run(0.001) > 0
