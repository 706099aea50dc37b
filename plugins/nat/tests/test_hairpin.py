# SPDX-License-Identifier: Apache-2.0
"""Inside hosts reach each other by their external endpoints."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    I2,
    MAKERS,
    O1,
    O2,
    E,
    Nat,
    src,
    turned,
)
from onvm_nf_nat.kernel import set_routed

from onvm_sdk.testing.frames import icmp_error, udp
from onvm_sdk.testing.kernel import OUT


@pytest.mark.parametrize("make", MAKERS)
def test_hairpin_has_external_source(make) -> None:  # RFC 4787 REQ-9, RFC 5382 REQ-8
    nat = Nat()
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    done = nat._run(make(I1, 5000, E, target), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(make(E, own, I2, 6000)), "to the router that it came from"
    back = nat._run(make(I2, 6000, E, own), False)
    assert back.data == turned(make(E, target, I1, 5000))


@pytest.mark.parametrize("make", MAKERS)
def test_hairpin_goes_on_to_the_router_of_the_chain(make) -> None:
    nat = Nat(inside=["10.0.0.0/24"])
    set_routed(nat.kernel, True)
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    assert nat.out(make(I1, 5000, E, target)) == make(E, own, I2, 6000)
    # The router lets it leave by the port it came by, so that the answer comes on the way back.
    assert nat.back(make(I2, 6000, E, own)) == make(E, target, I1, 5000)
    assert nat.back(make(O1, 80, E, own)) == make(O1, 80, I1, 5000), "others come from outside"


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-and-port-dependent"])
def test_dropped_hairpins_leave_nothing(filtering: str) -> None:
    nat = Nat(max_sessions=1000, filtering=filtering)
    port = src(nat.out(udp(I2, 1000, O1, 53)))[1]
    reason = "filtered" if "dependent" in filtering[8:] and filtering[0] == "a" else "no_mapping"
    for i in range(1000):
        target = port if reason == "filtered" else 1 + i + (i + 1 >= port)
        assert nat.dropped(udp(I1, 4000, E, target), reverse=False) == reason
    assert nat.count("sessions_opened") == nat.count("mappings_opened") == 1
    nat.out(udp(I1, 1, O2, 2))


def test_filtered_hairpin() -> None:  # RFC 4787 REQ-8, REQ-9
    nat = Nat(filtering="address-and-port-dependent")
    first, second = (src(nat.out(udp(inside, 6000, O1, 80)))[1] for inside in (I1, I2))
    assert nat.dropped(udp(I1, 6000, E, second), reverse=False) == "filtered"
    assert nat.dropped(udp(I2, 6000, E, first), reverse=False) == "filtered"


@pytest.mark.parametrize("make", MAKERS)
def test_hairpinned_error_arrives(make) -> None:  # RFC 5508 REQ-7
    nat = Nat()
    target = src(nat.out(make(I2, 6000, O1, 80)))[1]
    own = src(nat.out(make(I1, 5000, O1, 80)))[1]
    nat._run(make(I1, 5000, E, target), False)
    # I2 got a packet from E, and tells E that it is unreachable.
    done = nat._run(icmp_error(I2, E, make(E, own, I2, 6000)), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == turned(icmp_error(E, I1, make(I1, 5000, E, target)))
