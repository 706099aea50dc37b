"""NF hosts that must not sleep."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a worker and NFs need two CPUs")
def test_busy_hosts_sleep_while_they_share_a_cpu(drive) -> None:
    (line,) = drive("idling")
    assert line["alone"] == 0
    assert line["again"] <= 1, "one sleep may have begun before it was told"
    assert line["balance"]["missing"] == 0
