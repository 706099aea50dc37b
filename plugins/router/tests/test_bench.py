# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the router: no packet is lost, with and without changes of routes."""

from __future__ import annotations

import pytest
from onvm_nf_router.bench import Bed


@pytest.mark.parametrize("version", [4, 6])
def test_every_packet_leaves_while_routes_change(version: int) -> None:
    bed = Bed(version, 1000, seed=1)
    assert bed.run(0.001)["lost"] == 0
    changing = bed.run(0.02, changes=True)
    assert changing["lost"] == 0
    assert changing["changes"] > 0
