# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a configuration."""

from __future__ import annotations

import pytest
from onvm_nf_router.config import load
from onvm_nf_router.interfaces import interfaces_of
from onvm_nf_router.routes import static_routes
from router_case import (
    PORTS,
    ports_of,
)

from onvm_sdk.errors import ConfigError


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"interfaces": {"a": {"mtu": 20}}},
            "interfaces.a.mtu: 20: expected 0 or an MTU from 68 to 9600",
        ),
        (
            {"routes": [{"prefix": "10.0.0.1/24"}]},
            "routes[0].prefix: '10.0.0.1/24': expected a network such as 10.0.0.0/8, host bits zero",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24"}]},
            "routes[0].via: '': expected a gateway or an interface",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "via": "::1"}]},
            "routes[0].via: '::1': expected an IPv4 address, as the prefix has",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "kind": "blackhole", "via": "10.9.0.1"}]},
            "routes[0].via: '10.9.0.1': expected no next hop for a route that is blackhole",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "via": ["10.9.0.1"], "weights": [1, 2]}]},
            "routes[0].weights: 2: expected 1 weights, one for each gateway",
        ),
        (
            {"routes": [{"prefix": "10.0.0.0/24", "interface": "x"}] * 2},
            "routes[1].prefix: '10.0.0.0/24': expected a prefix that no other route has",
        ),
    ],
)
def test_mistakes_are_one_line(config: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="router.toml")
    assert str(caught.value) == f"router.toml: {line}"


@pytest.mark.parametrize(
    ("route", "line"),
    [
        (
            {"via": "10.9.0.1"},
            "routes[0].via: '10.9.0.1': expected an address on the link of an interface",
        ),
        (
            {"via": "10.0.0.1"},
            "routes[0].via: '10.0.0.1': expected the address of another host",
        ),
        (
            {"interface": "x"},
            "routes[0].interface: 'x': expected one of lan, wan, dmz, dmz.10",
        ),
        (
            {"via": "198.51.100.9", "interface": "lan"},
            "routes[0].via: '198.51.100.9': expected an address on the link of lan",
        ),
    ],
)
def test_route_that_leads_to_no_link_is_left_out(route: dict[str, object], line: str) -> None:
    config = load({"routes": [{"prefix": "10.7.0.0/24", **route}]})
    interfaces = interfaces_of(ports_of(*PORTS), config.settings)
    found, complaints = static_routes(config.routes, interfaces)
    assert not found
    assert [str(one) for one in complaints] == [line]
