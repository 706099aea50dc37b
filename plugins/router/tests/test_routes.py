# SPDX-License-Identifier: Apache-2.0
"""Routes: where they lead, how they share flows out, whose counts."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from onvm_nf_router.model import Arrived
from onvm_nf_router.routes import Hop
from onvm_nf_router.table import FILE, HOST, RouteTable
from router_case import (
    DMZ,
    LAN,
    WAN,
    Router,
    to_router,
)

from onvm_sdk.testing.frames import udp


@pytest.mark.parametrize(
    ("far", "reason", "code"),
    [("203.0.113.5", "blackhole", None), ("203.0.113.200", "no_route", 1)],
)
def test_routes_that_lead_nowhere(far: str, reason: str, code: int | None) -> None:
    router = Router()
    router.meet()
    assert router.run(Arrived(to_router(LAN, udp("10.0.0.5", 5, far, 6)), LAN))[0].reason == reason
    errors = [error[35] for _, error in router.made]
    assert errors == ([] if code is None else [code])


def test_flows_are_spread_over_gateways_both_ways_alike() -> None:
    router = Router()
    router.meet()
    outs = set()
    for sport in range(40):
        frame = to_router(LAN, udp("10.0.0.5", 1000 + sport, "8.8.8.8", 53))
        one, other = router.run(Arrived(frame, LAN), Arrived(frame, LAN))
        assert one.out == other.out
        outs.add(one.out)
    assert outs == {WAN, DMZ}


def test_weights_share_flows_out() -> None:
    route = {"prefix": "0.0.0.0/0", "via": ["198.51.100.9", "192.0.2.9"], "weights": [3, 1]}
    router = Router(routes=[route])
    router.meet()
    count = {WAN: 0, DMZ: 0}
    for sport in range(200):
        flow = udp("10.0.0.5", 1000 + sport, "8.8.8.8", 53)
        (done,) = router.run(Arrived(to_router(LAN, flow), LAN))
        assert done.out is not None
        count[done.out] += 1
    assert 120 < count[WAN] < 180


def test_earlier_source_of_a_route_counts() -> None:
    said: list[str] = []
    routes: dict[object, int] = {}

    class Plane:
        def set_group(self, index: int, kind: str, hops: object) -> None:
            said.append(f"{index} {kind}")

        def add_route(self, prefix: object, group: int) -> None:
            routes[prefix] = group

        def delete_route(self, prefix: object) -> None:
            del routes[prefix]

    table = RouteTable(Plane())
    net = ip_network("10.0.0.0/8")
    table.change(HOST, net, ("blackhole", ()))
    table.change(FILE, net, ("unreachable", ()))
    assert routes == {net: 1}
    table.replace(FILE, [])
    assert len(routes) == 1
    assert routes[net] == 0
    table.replace(HOST, [])
    assert routes == {}
    assert len(table) == 0
    # Sets of next hops that nothing uses are used again.
    for number in range(100):
        table.change(FILE, net, ("unicast", (Hop(ip_address(number), 0),)))
    assert max(int(line.split()[0]) for line in said) <= 2
