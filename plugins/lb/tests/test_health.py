# SPDX-License-Identifier: Apache-2.0
"""Backends that are down or fail clients: what becomes of connections, by cases."""

from __future__ import annotations

from typing import Any

import pytest
from lb_case import B1, B2, C, Lb, V, vip
from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import read_usages
from onvm_nf_lb.shares import SLOW_START_STEPS, Health, Share, share_out

from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import ACK, RST, SYN, tcp, udp


def shares(lb: Lb, *up: bool) -> None:
    config = lb.balancer.plan.config
    lb.balancer.set_health([share_out(one, up, [1] * len(up)) for one in config.vips])


def test_new_connections_avoid_a_backend_that_is_down() -> None:
    lb = Lb(vip(B1, B2))
    shares(lb, False, True)
    assert {lb(tcp(C, port, V, 80, SYN)).split(" > ")[1] for port in range(1, 60)} == {f"{B2}:80"}
    shares(lb, False, False)
    assert lb(tcp(C, 99, V, 80, SYN)) == "no_backend"
    shares(lb, True, True)
    assert len({lb(tcp(C, port, V, 80, SYN)).split(" > ")[1] for port in range(100, 160)}) == 2


def test_connections_to_a_backend_that_is_down_go_on() -> None:
    lb = Lb(vip(B1, B2))
    shares(lb, True, False)
    lb.shake(C, 5000)
    shares(lb, False, True)
    assert lb(tcp(C, 5000, V, 80, ACK, b"x")) == f"{C}:5000 > {B1}:80"
    assert lb(tcp(B1, 80, C, 5000, ACK, b"x")) == f"{V}:80 > {C}:5000"
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {B2}:80", "a new one from the same port"


def test_connections_to_a_backend_that_is_down_are_reset_if_that_is_wished() -> None:
    lb = Lb(vip(B1, B2, down="reset"))
    shares(lb, True, False)
    lb.shake(C, 5000)
    shares(lb, False, True)
    assert lb(tcp(C, 5000, V, 80, ACK, b"x")) == f"out {V}:80 > {C}:5000"
    assert read_headers(lb.frame).tcp_flags == RST
    assert lb(tcp(C, 5000, V, 80, SYN)) == f"{C}:5000 > {B2}:80"


def test_udp_leaves_a_backend_that_is_down_at_once() -> None:
    lb = Lb(vip(B1, B2, protocol="udp", port=53))
    shares(lb, True, False)
    assert lb(udp(C, 5000, V, 53)) == f"{C}:5000 > {B1}:53"
    shares(lb, False, True)
    assert lb(udp(C, 5000, V, 53)) == f"{C}:5000 > {B2}:53"


PASSIVE = {"failures": 3, "window_s": 10}


def failing(lb: Lb) -> list[str]:
    vips = lb.balancer.plan.config.vips
    return [str(vips[i].backends[j]) for i, j in lb.balancer.take_failing()]


def test_resets_in_a_row_fail_a_backend() -> None:
    lb = Lb(vip(B1, passive=PASSIVE))
    for port in (1, 2, 3):
        assert failing(lb) == []
        lb(tcp(C, port, V, 80, SYN))
        lb(tcp(B1, 80, C, port, RST | ACK))
    assert failing(lb) == [B1]
    assert failing(lb) == [], "it is told once"


@pytest.mark.parametrize("interruption", ["answer", "time"])
def test_a_row_of_failures_ends(interruption: str) -> None:
    lb = Lb(vip(B1, passive=PASSIVE))
    for port in (1, 2, 3):
        if port == 3 and interruption == "time":
            lb.wait(10)
        if port == 3 and interruption == "answer":
            lb.shake(C, 77)
        lb(tcp(C, port, V, 80, SYN))
        lb(tcp(B1, 80, C, port, RST | ACK))
    assert failing(lb) == []


def test_repeated_syns_fail_a_backend_but_not_those_of_a_forger() -> None:
    lb = Lb(vip(B1, passive=PASSIVE))
    for _ in range(10):
        lb(tcp(C, 5000, V, 80, SYN))
    assert failing(lb) == []
    for seconds in (1, 2, 4):
        lb.wait(seconds)
        lb(tcp(C, 5000, V, 80, SYN))
    assert failing(lb) == [B1]


def test_a_reset_of_a_running_connection_is_no_failure() -> None:
    lb = Lb(vip(B1, passive={"failures": 1}))
    lb.shake(C, 5000)
    lb(tcp(B1, 80, C, 5000, RST | ACK))
    assert failing(lb) == []


def test_use_of_backends_is_counted() -> None:
    lb = Lb(vip(B1))
    lb.shake(C, 5000)
    lb.shake(C, 5001)
    syn, other = len(tcp(C, 1, V, 80, SYN)), len(tcp(C, 1, V, 80, ACK))
    (usage,) = read_usages(lb.balancer.usage_bytes())
    assert usage == (2, 2, (4, 2), (2 * (syn + other), 2 * syn))
    lb.set(vip(B2))
    assert [u.current for u in read_usages(lb.balancer.usage_bytes())] == [0], (
        "that of another backend"
    )


def test_counts_survive_changes_of_other_backends() -> None:
    lb = Lb(vip(B1))
    lb.shake(C, 5000)
    before = read_usages(lb.balancer.usage_bytes())
    lb.set(vip(B1, B2))
    found = dict(
        zip(lb.balancer.plan.backends, read_usages(lb.balancer.usage_bytes()), strict=True)
    )
    assert found[0, 0] == before[0]
    assert found[0, 1] == (0, 0, (0, 0), (0, 0))


# ---- shares ----


def one(**more: Any) -> Any:
    backends = [{"address": B1, "weight": 2}, {"address": B2, "backup": True}]
    return load({"vips": [{"address": V, "backends": backends, **more}]}).vips[0]


@pytest.mark.parametrize(
    ("up", "weights"),
    [((1, 1), (2, 0)), ((0, 1), (0, 1)), ((1, 0), (2, 0)), ((0, 0), (0, 0))],
)
def test_backups_serve_when_nothing_else_does(
    up: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    found = share_out(one(), [bool(is_up) for is_up in up], [SLOW_START_STEPS] * 2)
    assert tuple(share.weight for share in found) == weights


def test_slow_start_scales_weights() -> None:
    made = one(slow_start_s=5)
    assert [share_out(made, [True, True], [step, 10])[0].weight for step in (1, 10)] == [2, 20]


def test_health_says_whether_connections_are_reset() -> None:
    up = [False, True]
    assert share_out(one(), up, [1, 1])[0] == Share(0, Health.DOWN_KEEP)
    assert share_out(one(down="reset"), up, [1, 1])[0] == Share(0, Health.DOWN_RESET)


def test_weights_change_without_moving_connections() -> None:
    def weighted(first: int, second: int) -> dict[str, Any]:
        made = vip(B1, B2)
        for backend, weight in zip(made["backends"], (first, second), strict=True):
            backend["weight"] = weight
        return made

    lb = Lb(weighted(1, 1))
    ports = range(1000, 1040)
    for port in ports:
        lb(tcp(C, port, V, 80, SYN))
    before = [lb(tcp(C, port, V, 80, ACK)) for port in ports]
    assert len({text.split(" > ")[1] for text in before}) == 2
    lb.set(weighted(1, 1000))
    assert [lb(tcp(C, port, V, 80, ACK)) for port in ports] == before
