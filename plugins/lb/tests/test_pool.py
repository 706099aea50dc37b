# SPDX-License-Identifier: Apache-2.0
"""Checks with a clock and results of the test's own: what they make of backends and shares."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_lb.config import LbConfig, load
from onvm_nf_lb.pool import Pool

V, A, B, C = "198.51.100.10", "203.0.113.1", "203.0.113.2", "203.0.113.3"
CHECK = {"type": "tcp", "rise": 2, "fall": 3}


def config(*addresses: str, **more: Any) -> LbConfig:
    backends = [{"address": address} for address in addresses]
    vip = {"address": V, "port": 80, "backends": backends, "check": CHECK, **more}
    return load({"vips": [vip], "table_size": 251})


def results(pool: Pool, address: str, text: str, now_s: float = 0) -> list[str]:
    """Feed results, + and -, of the checks of a backend; return the lines of the log."""
    (target,) = [target for target in pool.members if target.address == address]
    return [
        line
        for sign in text
        for line in pool.note(target, None if sign == "+" else "connection refused", now_s)
    ]


def weights(pool: Pool, now_s: float = 0) -> list[int]:
    return [share.weight for share in pool.shares(now_s)[0]]


def test_first_check_decides() -> None:
    pool = Pool(config(A, B), 0)
    assert results(pool, A, "-") == [f"{V}:80/tcp: {A} is down: connection refused"]
    assert results(pool, B, "+") == []
    assert weights(pool) == [0, 1]


@pytest.mark.parametrize(
    ("text", "is_up"),
    [
        ("+--", True),
        ("+---", False),
        ("+--+--", True),
        ("+---+", False),
        ("+---++", True),
        ("+---+-+", False),
        ("+---+-++", True),
    ],
)
def test_rise_and_fall_are_results_in_a_row(text: str, is_up: bool) -> None:
    pool = Pool(config(A), 0)
    results(pool, A, text)
    assert (weights(pool) == [1]) is is_up


@settings(max_examples=200)
@given(st.text("+-", max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_states_are_those_of_a_plain_count(text: str, rise: int, fall: int) -> None:
    pool = Pool(config(A, check={**CHECK, "rise": rise, "fall": fall}), 0)
    results(pool, A, text)
    is_up, history = True, ""
    for i, sign in enumerate(text):
        history += sign
        if i == 0:
            is_up = sign == "+"
        elif is_up and history.endswith("-" * fall):
            is_up = False
        elif not is_up and history.endswith("+" * rise):
            is_up = True
    assert (weights(pool) == [1]) is is_up


def test_same_target_of_two_vips_is_checked_once() -> None:
    vips = [
        {
            "address": V,
            "port": port,
            "backends": [{"address": A, "port": 8080}],
            "check": CHECK,
        }
        for port in (80, 443)
    ]
    pool = Pool(load({"vips": vips}), 0)
    assert len(pool.members) == 1
    assert len(results(pool, A, "-")) == 2
    assert [[share.weight for share in listed] for listed in pool.shares(0)] == [[0], [0]]


def test_backups_take_over_and_step_back() -> None:
    made = config(A)
    text = {
        "vips": [
            {
                "address": V,
                "port": 80,
                "backends": [{"address": A}, {"address": B, "backup": True}],
                "check": CHECK,
            }
        ]
    }
    pool = Pool(load(text), 0, Pool(made, 0))
    assert weights(pool) == [1, 0]
    results(pool, A, "-")
    assert list(pool.served(pool.shares(0))) == [f"{V}:80/tcp: backup backends serve"]
    assert weights(pool) == [0, 1]
    results(pool, B, "-")
    assert list(pool.served(pool.shares(0))) == [f"{V}:80/tcp: no backend serves"]
    assert weights(pool) == [0, 0]
    results(pool, A, "++")
    assert list(pool.served(pool.shares(0))) == [f"{V}:80/tcp: its usual backends serve"]


def test_slow_start_rises_in_steps() -> None:
    pool = Pool(config(A, B, slow_start_s=10), 0)
    assert weights(pool) == [10, 10], "not at the start of the load balancer"
    results(pool, A, "-", 5)
    results(pool, A, "++", 20)
    found = []
    for now_s in (20, 20.9, 21, 25, 29, 30, 40):
        pool.turn(now_s)
        found.append(weights(pool, now_s)[0])
    assert found == [1, 1, 2, 6, 10, 10, 10]


def test_new_backends_of_a_running_vip_start_slowly() -> None:
    pool = Pool(config(A, slow_start_s=10), 0)
    pool = Pool(config(A, B, slow_start_s=10), 100, pool)
    assert weights(pool, 100) == [10, 1]


def test_failing_backend_is_out_for_a_while() -> None:
    pool = Pool(config(A, B, passive={"failures": 3, "out_s": 10}), 0)
    assert pool.take_out((0, 0), 5) == [
        f"{V}:80/tcp: {A} is out for 10 s: it failed 3 clients",
    ]
    assert pool.take_out((0, 0), 6) == [], "it is out already"
    assert weights(pool) == [0, 1]
    assert pool.turn(14.9) == []
    assert pool.turn(15) == [f"{V}:80/tcp: {A} is no longer out"]
    assert weights(pool) == [1, 1]


def test_states_stay_when_other_backends_change() -> None:
    pool = Pool(config(A, B), 0)
    results(pool, A, "-")
    pool = Pool(config(C, A), 1, pool)
    assert weights(pool) == [1, 0]
    assert results(pool, A, "++", 2) == [f"{V}:80/tcp: {A} is up: 2 checks in a row"]


def test_rows_tell_state_reason_and_time() -> None:
    pool = Pool(config(A, B), 0)
    results(pool, A, "-", 7)
    first, second = pool.rows(10)[0]
    assert (first["state"], first["why"], first["for_s"]) == ("down", "connection refused", 3)
    assert (second["state"], second["why"]) == ("up", "not checked yet")


def test_any_history_leaves_shares_that_follow_from_it() -> None:
    """Backends in any state: exactly those that are up get connections."""
    chance = random.Random(1)
    addresses = [f"203.0.113.{i}" for i in range(1, 9)]
    pool = Pool(config(*addresses, passive={"out_s": 5}), 0)
    for now_s in range(1, 400):
        target = chance.choice(list(pool.members))
        pool.note(target, chance.choice([None, "no"]), now_s)
        if chance.random() < 0.2:
            pool.take_out((0, chance.randrange(8)), now_s)
        pool.turn(now_s)
        states = [row["state"] for row in pool.rows(now_s)[0]]
        assert weights(pool, now_s) == [int(state == "up") for state in states]
