# SPDX-License-Identifier: Apache-2.0
"""Interfaces on VLANs of a port."""

from __future__ import annotations

import pytest
from onvm_nf_router.model import Arrived
from router_case import (
    DMZ,
    HOSTS,
    LAN,
    VLAN,
    VLAN_HOSTS,
    Router,
    ask,
    tagged,
    to_router,
)

from onvm_sdk.testing.frames import echo, udp


@pytest.mark.parametrize(
    ("near", "far", "own"),
    list(zip(VLAN_HOSTS, HOSTS[LAN], ("192.0.2.129", "2001:db8:30::1"), strict=True)),
)
def test_tag_goes_and_comes(near: str, far: str, own: str) -> None:
    router = Router()
    router.meet()
    (done,) = router.run(Arrived(tagged(ask(DMZ, near, own), VLAN), DMZ))
    assert done.out == DMZ
    assert done.data[12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big"), "the answer has the tag"
    frame = to_router(DMZ, udp(near, 5, far, 6))
    (done,) = router.run(Arrived(tagged(frame, VLAN), DMZ))
    assert (done.out, done.data[12:14]) == (LAN, frame[12:14])
    (back,) = router.run(Arrived(to_router(LAN, udp(far, 6, near, 5)), LAN))
    assert back.out == DMZ
    assert back.data[12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big")
    (echoed,) = router.run(Arrived(tagged(to_router(DMZ, echo(near, own, 20)), VLAN), DMZ))
    assert echoed.data[12:14] == b"\x81\x00"
    (ended,) = router.run(Arrived(tagged(to_router(DMZ, udp(near, 5, far, 6), 1), VLAN), DMZ))
    assert ended.reason == "ttl"
    assert router.made[0][1][12:16] == b"\x81\x00" + VLAN.to_bytes(2, "big"), "so has the error"


def test_vlans_of_one_port_are_routed_between() -> None:
    router = Router()
    router.meet()
    router.run(Arrived(tagged(ask(DMZ, VLAN_HOSTS[0], "192.0.2.129"), VLAN), DMZ))
    (done,) = router.run(Arrived(to_router(DMZ, udp("192.0.2.9", 5, VLAN_HOSTS[0], 6)), DMZ))
    assert (done.out, done.data[12:16]) == (DMZ, b"\x81\x00" + VLAN.to_bytes(2, "big"))


def test_frame_of_another_vlan_has_no_interface() -> None:
    router = Router()
    frame = to_router(DMZ, echo(VLAN_HOSTS[0], "192.0.2.129", 20))
    assert router.run(Arrived(tagged(frame, 11), DMZ))[0].reason == "no_interface"
    assert router.run(Arrived(tagged(frame, VLAN), LAN))[0].reason == "no_interface"
    # A mere priority is no VLAN.
    frame = tagged(to_router(LAN, echo(HOSTS[LAN][0], "10.0.0.1", 20)), 5 << 13)
    assert router.run(Arrived(frame, LAN))[0].out == LAN
