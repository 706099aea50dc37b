"""NFs die, chains change, flows end: no buffer is lost, every packet is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GAP_S = 0.1
WORKERS = [1, 2]


@pytest.fixture
def case(drive, hostile_nf: Path):
    """Run a case of the driver; what holds after each is checked here."""

    def run(name: str, n_workers: int) -> dict[str, Any]:
        (line,) = drive("faults", hostile_nf, name, n_workers, timeout_s=90)
        assert line["balance"]["missing"] == 0, line["balance"]
        assert line["buffers"]["free"] == line["buffers"]["total"], line["buffers"]
        assert line["buffers"]["with_nfs"] == 0
        assert set(line["reserved"].values()) <= {0}, "places are still taken"
        return line

    return run


@pytest.mark.parametrize("n_workers", WORKERS)
def test_200_kills_lose_no_buffer(case, n_workers: int) -> None:
    for _ in range(3):  # the machine, too, stops programs for 100 ms now and then
        line = case("kill_200", n_workers)
        if line["gap"] <= GAP_S:
            break
    assert line["gap"] <= GAP_S, "the other chain stood still"
    assert line["restart"] < 0.1, "seconds until a new instance serves"


@pytest.mark.parametrize("n_workers", WORKERS)
def test_only_instance_of_a_service_dies(case, n_workers: int) -> None:
    assert case("kill_only_instance", n_workers)["balance"]["tx"] > 0


@pytest.mark.parametrize("n_workers", WORKERS)
def test_entry_of_a_chain_waits_for_an_instance(case, n_workers: int) -> None:
    line = case("wait_for_instance", n_workers)
    assert line["read_meanwhile"] <= 64, "no more than what the worker held already"
    assert line["dropped"] == ["waiting"]
    assert line["lost"] == line["died_with"], "only what was with the NF is lost"
    read, sent = line["patient"]
    assert read == 2_000_000
    assert read - sent <= line["died_with"]


@pytest.mark.parametrize("n_workers", WORKERS)
def test_flows_of_a_paused_instance_wait_and_move(case, n_workers: int) -> None:
    line = case("pause", n_workers)
    assert line["stood"] == [0, 0]
    assert line["drops"] == {}


@pytest.mark.parametrize("n_workers", WORKERS)
def test_change_of_services_drops_nothing(case, n_workers: int) -> None:
    dropped = case("chain_changes", n_workers)["dropped_by_service_changes"]
    assert set(dropped) <= {"shed"}


def test_drained_host_keeps_its_flows_and_gets_no_new_ones(case) -> None:
    line = case("drain", 1)
    assert line["kept"] > 0
    assert not line["new_flows_at_drained"]


@pytest.mark.parametrize("n_workers", WORKERS)
def test_both_directions_meet_one_instance(case, n_workers: int) -> None:
    line = case("both_directions", n_workers)
    assert line["instances"] == 3
    assert line["both"] == 300
    assert line["split"] == 0


def test_flow_is_in_the_table_once_however_often_it_was_forgotten(case) -> None:
    line = case("forgotten_flows", 1)
    assert line["most"] == line["keys"] == 4000  # both directions of 2,000


def test_idle_flows_are_forgotten_and_a_full_table_loses_no_packet(case) -> None:
    line = case("expiry", 1)
    assert line["full"] > 0
    assert line["again"] > 0, "positions of forgotten flows are used again"
    assert not {k for k, v in line["missed"].items() if v} - {"no_chain", "no_instance", "shed"}


def test_originating_nf_dies_with_loans(case) -> None:
    assert case("originator_dies", 1)["balance"]["originated"] > 0


@pytest.mark.parametrize("n_workers", WORKERS)
def test_waiting_source_loses_nothing(case, n_workers: int) -> None:
    assert case("full_load", n_workers)["drops"] == {}


def test_100_000_paths_come_and_go(case) -> None:
    line = case("recycling", 1)
    assert line["paths"] < 60
