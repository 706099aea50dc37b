# SPDX-License-Identifier: Apache-2.0
"""What the host gets by the slow path."""

from __future__ import annotations

import pytest
from onvm_nf_router.model import Arrived
from router_case import (
    DMZ,
    HOST_PORT,
    HOSTS,
    HOSTS_GATEWAYS,
    LAN,
    PORTS,
    VLAN,
    VLAN_HOSTS,
    Router,
    answer,
    tagged,
    to_router,
)

from onvm_sdk.testing.frames import SYN, echo, tcp, udp


@pytest.mark.parametrize(("near", "own"), list(zip(HOSTS[DMZ], HOSTS_GATEWAYS[DMZ], strict=True)))
def test_host_gets_what_is_for_its_addresses(near: str, own: str) -> None:
    router = Router()
    router.change(*PORTS, slow_port=HOST_PORT)
    router.meet()
    for frame in (
        to_router(DMZ, tcp(near, 5, own, 22, SYN)),
        to_router(DMZ, udp(near, 5, own, 179)),
        answer(DMZ, near, own),
    ):
        (done,) = router.run(Arrived(frame, DMZ))
        assert (done.out, done.data) == (HOST_PORT, frame)
        (back,) = router.run(Arrived(frame, HOST_PORT))
        assert (back.out, back.data) == (DMZ, frame), "as the host has made it"
    (done,) = router.run(Arrived(to_router(DMZ, echo(near, own, 20)), DMZ))
    assert done.out == DMZ, "an echo is answered here"
    (done,) = router.run(Arrived(to_router(LAN, tcp(HOSTS[LAN][0], 5, "10.0.0.1", 22, SYN)), LAN))
    assert done.reason == "local", "no slow path there"


def test_host_gets_packets_to_all_hosts_and_groups_of_the_link() -> None:
    router = Router()
    router.change(*PORTS, slow_port=HOST_PORT)
    router.meet()
    for source, group, is_given in (
        ("192.0.2.9", "224.0.0.5", True),
        ("0.0.0.0", "255.255.255.255", True),
        ("192.0.2.9", "239.1.1.1", False),
        ("fe80::5", "ff02::5", True),
        ("fe80::5", "ff05::5", False),
    ):
        frame = b"\x01\0\x5e\0\0\5" + to_router(DMZ, udp(source, 5, group, 6))[6:]
        (done,) = router.run(Arrived(frame, DMZ))
        assert (done.out == HOST_PORT) == is_given, group
        assert is_given or done.reason == "multicast"
    (tagged_one,) = router.run(
        Arrived(tagged(to_router(DMZ, tcp(VLAN_HOSTS[0], 5, "192.0.2.129", 22)), VLAN), DMZ)
    )
    assert tagged_one.out == HOST_PORT
    assert tagged_one.data[12:14] == b"\x81\x00"
