"""Chains that share a port: what their `match` means, and what is wrong with it."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from onvm_core.manager.chains.classifier import ChainMatch, ChainRule, MatchClassifier, MatchConfig
from onvm_core.manager.config.chains import ChainConfig, check_chains
from onvm_sdk.errors import ConfigError


def test_rules_come_in_the_order_of_the_file() -> None:
    web = MatchConfig(protocol="tcp", dst="192.0.2.0/24", dst_port=80)
    dns = MatchConfig(protocol="udp", src_port="1024-65535", dst_port=53)
    six = MatchConfig(src="2001:db8::/32")
    chains = [
        ChainMatch("rest", ()),
        ChainMatch("web", ("cache",), (web,)),
        ChainMatch("other", (), (dns, six)),
    ]
    assert MatchClassifier({}).rules("lan", chains) == [
        ChainRule("web", 6, None, ip_network("192.0.2.0/24"), dst_ports=(80, 80)),
        ChainRule("other", 17, src_ports=(1024, 65535), dst_ports=(53, 53)),
        ChainRule("other", None, ip_network("2001:db8::/32")),
    ]


@pytest.mark.parametrize(
    ("match", "field", "expected"),
    [
        ({"protocol": "tpc"}, "protocol", "expected one of tcp, udp"),
        ({"src": "10.0.0.1/8"}, "src", "host bits set"),
        ({"dst": "nowhere"}, "dst", "expected an address or a prefix"),
        ({"src": "10.0.0.0/8", "dst": "::/0"}, "dst", "expected an IPv4 prefix, as src is"),
        ({"dst_port": 80}, "dst_port", "expected none, unless protocol is tcp, udp or sctp"),
        ({"protocol": "tcp", "dst_port": "9-5"}, "dst_port", "expected a port or a range"),
        ({"protocol": "tcp", "src_port": "1-"}, "src_port", "expected a port or a range"),
    ],
    ids=str,
)
def test_mistakes_name_the_field(match: dict[str, Any], field: str, expected: str) -> None:
    chains = {
        "rest": ChainConfig(near="lan", far="wan"),
        "some": ChainConfig(near="lan", far="wan", match=[MatchConfig(), MatchConfig(**match)]),
    }
    with pytest.raises(ConfigError) as caught:
        check_chains(chains, Path("f.toml"), ["lan", "wan"], [], [])
    assert caught.value.field == f"chains.some.match[1].{field}"
    assert expected in str(caught.value)


def test_port_belongs_to_one_chain_without_match() -> None:
    twice = {name: ChainConfig(near="lan", far="wan") for name in "ab"}
    with pytest.raises(ConfigError, match="not chain a's, or a `match`"):
        check_chains(twice, Path("f.toml"), ["lan", "wan"], [], [])
    alone = {"a": ChainConfig(near="lan", far="wan", match=[MatchConfig()])}
    with pytest.raises(ConfigError, match="at which a chain without `match` begins"):
        check_chains(alone, Path("f.toml"), ["lan", "wan"], [], [])
