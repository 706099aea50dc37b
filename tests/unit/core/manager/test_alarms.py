"""Alarms of the data network: a line in the log now and then, and one in the status for a while."""

from __future__ import annotations

import logging

import pytest

from onvm_core.manager.cluster_tables.alarms import TEXTS, Alarms


@pytest.fixture
def drops() -> dict[str, int]:
    return dict.fromkeys(TEXTS, 0)


def test_nothing_happens_without_such_packets(
    drops: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    alarms = Alarms(lambda: drops, list)
    for second in range(100):
        alarms.turn(second)
    assert alarms.warnings(100) == []
    assert not caplog.messages


def test_flood_is_logged_every_ten_seconds_with_all_packets(
    drops: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    alarms = Alarms(lambda: drops, lambda: ["rack1-host7"])
    with caplog.at_level(logging.WARNING, "onvm.cluster"):
        for tenth in range(250):
            drops["forged"] += 100
            alarms.turn(tenth / 10)
    numbers = [int(line.split()[2]) for line in caplog.messages]
    assert len(numbers) == 3
    assert sum(numbers) == 20_100
    assert all("rack1-host7" in line for line in caplog.messages)


def test_status_shows_it_for_a_minute(drops: dict[str, int]) -> None:
    alarms = Alarms(lambda: drops, list)
    drops["wrong_hop"] = 2
    alarms.turn(5)
    (line,) = alarms.warnings(60)
    assert line.startswith("data network: 2 packets came from a host that is not before their hop")
    assert alarms.warnings(66) == []
