"""Addresses of ports and ``[gateway]`` in ``onvm.toml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from onvm_core.manager.config.onvm_toml import Config, parse_config
from onvm_core.manager.nf_hosts.codec import PortLink
from onvm_core.manager.ports import NULL, TAP
from onvm_core.manager.service.slow_path import mac_of
from onvm_core.plugins import discover
from onvm_sdk.errors import ConfigError

PORTS = """
[ports.lan]
uri = "null:"
addresses = ["10.0.0.1/24", "2001:db8:1::1/64"]
vlans = { 10 = { addresses = ["10.10.0.1/24"] } }
[ports.wan]
uri = "null:"
addresses = ["198.51.100.1/24"]
"""
GATEWAY = """
[gateway]
ports = ["lan", "wan"]
services = ["router", "firewall"]
"""


def read(text: str) -> Config:
    return parse_config(text.encode(), Path("f.toml"), {"null": NULL, "tap": TAP}, discover())


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gateway_is_chains_with_the_router_at_both_ends() -> None:
    routes = 'routes = [{ prefix = "0.0.0.0/0", via = "198.51.100.9" }]\nclamp_mss = true\n'
    config = read(PORTS + GATEWAY + routes)
    chain = config.chains["gateway"]
    assert (chain.near, chain.far) == ("lan", "wan")
    assert chain.services == ["router", "firewall", "router"]
    assert config.nfs["router"].config == {
        "routes": [{"prefix": "0.0.0.0/0", "via": "198.51.100.9"}],
        "clamp_mss": True,
    }
    assert "firewall" in config.nfs
    link = config.ports["lan"].link("lan")
    assert link is not None
    assert link.addresses == ("10.0.0.1/24", "2001:db8:1::1/64")
    assert link.vlans["10"].addresses == ("10.10.0.1/24",)


def test_further_ports_have_chains_of_their_own() -> None:
    dmz = '[ports.dmz]\nuri = "null:"\naddresses = ["192.0.2.1/28"]\n'
    config = read(PORTS + dmz + GATEWAY.replace('"wan"]', '"wan", "dmz"]'))
    chain = config.chains["dmz"]
    assert (chain.near, chain.far) == ("dmz", "dmz")
    assert chain.services == ["router", "firewall", "router"]


def test_slow_path_is_a_port_and_a_chain_of_the_router() -> None:
    slow = '\nslow_path = "tap:wan-host"\n'
    config = read(PORTS + slow + GATEWAY)
    assert config.ports["wan.host"].uri == "tap:wan-host"
    chain = config.chains["wan.host"]
    assert (chain.near, chain.far, chain.services) == ("wan.host", "wan.host", ["router"])
    link = config.ports["wan"].link("wan")
    assert link is not None
    assert link.slow_path == "wan.host"


@pytest.mark.parametrize(
    ("port", "gateway", "line"),
    [
        ("lan", GATEWAY, "expected a port with addresses among those of [gateway]"),
        ("wan", "", "expected a port with addresses among those of [gateway]"),
    ],
)
def test_slow_path_is_of_a_port_of_the_gateway(port: str, gateway: str, line: str) -> None:
    bare = '[ports.lan]\nuri = "null:"\n[ports.wan]\nuri = "null:"\naddresses = ["10.0.0.1/24"]\n'
    text = bare.replace(f"[ports.{port}]", f'[ports.{port}]\nslow_path = "tap:host"')
    assert mistake(text + gateway) == f"f.toml: ports.{port}.slow_path: 'tap:host': {line}"


def test_router_alone_is_visited_once() -> None:
    config = read(PORTS + GATEWAY.replace(', "firewall"', ""))
    assert config.chains["gateway"].services == ["router"]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            '"198.51.100.1/24"',
            '"198.51.100.1"',
            "ports.wan.addresses[0]: '198.51.100.1': expected an address with the length of its "
            "prefix, such as 10.0.0.1/24",
        ),
        (
            '"198.51.100.1/24"',
            '"198.51.100.0/24"',
            "ports.wan.addresses[0]: '198.51.100.0/24': expected the address of a host",
        ),
        (
            '"198.51.100.1/24"',
            '"fe80::1/64"',
            "ports.wan.addresses[0]: 'fe80::1/64': expected no link-local address; each interface "
            "has one by itself",
        ),
        (
            '"198.51.100.1/24"',
            '"10.0.0.1/24"',
            "ports.wan.addresses[0]: '10.0.0.1/24': expected an address that lan does not have",
        ),
        (
            '"198.51.100.1/24"',
            '"10.10.0.130/25"',
            "ports.wan.addresses[0]: '10.10.0.130/25': expected a prefix that does not overlap "
            "10.10.0.0/24 of lan.10",
        ),
        (
            "vlans = { 10",
            "vlans = { 4095",
            "ports.lan.vlans: '4095': expected a VLAN identifier from 1 to 4094",
        ),
        (
            "vlans =",
            'mac = "01:00:00:00:00:00"\nvlans =',
            "ports.lan.mac: '01:00:00:00:00:00': expected a unicast MAC address such as "
            "02:00:00:00:00:01, or interface",
        ),
        (
            "vlans =",
            'slow_path = "null:"\nvlans =',
            "ports.lan.slow_path: 'null:': expected tap:NAME",
        ),
        (
            '["lan", "wan"]',
            '["lan", "wam"]',
            "gateway.ports[1]: 'wam': expected one of lan, wan; did you mean 'wan'?",
        ),
        ('["lan", "wan"]', '["lan", "lan"]', "gateway.ports[1]: 'lan': expected each port once"),
        (
            '["lan", "wan"]',
            '["lan"]',
            "gateway.ports: ['lan']: expected `array` of length >= 2",
        ),
        (
            "[gateway]",
            "[gateway]\nclamp_mms = true",
            "gateway.clamp_mms: True: expected one of interfaces, routes, "
            "kernel_routes, clamp_mss, errors_per_s, max_routes, max_neighbours, reachable_s, "
            "forget_s; did you mean 'clamp_mss'?",
        ),
        (
            "[gateway]",
            '[gateway]\nroutes = [{ prefix = "0.0.0.0/0", via = "203.0.113.9" }]',
            "gateway.routes[0].via: '203.0.113.9': expected an address on the link of a port",
        ),
        (
            "[gateway]",
            '[gateway]\nroutes = [{ prefix = "0.0.0.0/0", via = ["198.51.100.1"] }]',
            "gateway.routes[0].via[0]: '198.51.100.1': expected the address of another host",
        ),
        (
            "[gateway]",
            '[gateway]\nroutes = [{ prefix = "::/0", via = "fe80::1", interface = "lam" }]',
            "gateway.routes[0].via: 'lam': expected an interface with addresses (lan, lan.10, wan)",
        ),
        (
            "[gateway]",
            "[nfs.router.config]\nclamp_mss = true\n[gateway]\nclamp_mss = true",
            "gateway.clamp_mss: expected none: [nfs.router] has the settings of the router",
        ),
        (
            "[gateway]",
            '[chains.gateway]\nin = "lan"\nout = "wan"\n[gateway]',
            "chains: 'gateway': expected another name; the chain gateway of [gateway] has it",
        ),
    ],
)
def test_mistakes_are_one_line(before: str, after: str, line: str) -> None:
    text = PORTS + GATEWAY
    assert before in text
    assert mistake(text.replace(before, after)) == f"f.toml: {line}"


def test_services_of_a_gateway_exist() -> None:
    line = mistake(PORTS + GATEWAY.replace('"firewall"', '"firewal"'))
    assert line.startswith("f.toml: gateway.services[1]: 'firewal': expected one of")
    assert line.endswith("did you mean 'firewall'?")


def test_mac_of_a_slow_path_is_made_once() -> None:
    link, interface = PortLink(("10.0.0.1/24",)), bytes.fromhex("020000000001")
    made = mac_of(link, "lan", interface)
    assert made == mac_of(link, "lan", interface) != mac_of(link, "wan", interface)
    assert int(made[:2], 16) & 3 == 2, "unicast, locally administered"
    assert mac_of(PortLink(mac="interface"), "lan", interface) == "02:00:00:00:00:01"
    assert mac_of(PortLink(mac="02:00:00:00:00:0A"), "lan", interface) == "02:00:00:00:00:0a"
