# SPDX-License-Identifier: Apache-2.0
"""The configuration, and the memory that follows."""

from __future__ import annotations

import pytest
from onvm_nf_nat.config import load

from onvm_sdk.errors import ConfigError
from onvm_sdk.manifest import find_manifest, read_config, read_manifest
from onvm_sdk.memory import needed_mib


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"external": "1.2.3"}, "nat.toml: external: '1.2.3': expected an IPv4 address"),
        *(
            (
                {"external": address},
                f"nat.toml: external: '{address}': expected the address of one host",
            )
            for address in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1")
        ),
        (
            {"external": ["192.0.2.1", "::1"]},
            "nat.toml: external[1]: '::1': expected an IPv4 address",
        ),
        (
            {"external": ["192.0.2.1"] * 2},
            "nat.toml: external[1]: '192.0.2.1': expected addresses that differ",
        ),
        (
            {"external": "10.1.2.3", "inside": ["10.0.0.0/8"]},
            "nat.toml: external: '10.1.2.3': expected an address outside of the networks in `inside`",
        ),
        ({"max_sessions": 1 << 25}, "nat.toml: max_sessions: 33554432: expected `int` <= 16777216"),
        ({"tcp_established_s": 7439}, "nat.toml: tcp_established_s: 7439: expected `int` >= 7440"),
        ({"tcp_opening_s": 239}, "nat.toml: tcp_opening_s: 239: expected `int` >= 240"),
        ({"icmp_s": 59}, "nat.toml: icmp_s: 59: expected `int` >= 60"),
        ({"ports": "0-70000"}, "nat.toml: ports: '0-70000': expected ports within"),
        ({"inside": ["10.0.0.1/8"]}, "nat.toml: inside[0]: '10.0.0.1/8': expected an IPv4 network"),
        ({"udp_s": 60}, "nat.toml: udp_s: 60: expected `int` >= 120"),
        ({"filtering": "no"}, "nat.toml: filtering: 'no': expected one of address-and-port-"),
        ({"colour": 1}, "nat.toml: colour: 1: expected one of external, "),
    ],
)
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="nat.toml")
    assert str(caught.value).startswith(message)


def test_instance_has_a_block_of_its_own() -> None:
    config = load({"ports": "1000-1999", "blocks": 4})
    assert config.of_instance("nat-2").ports == range(1250, 1500)
    assert config.of_instance("").ports == range(1000, 2000)
    assert load({}).of_instance("nat-1").ports == load({}).ports
    assert load({"blocks": 0}).of_instance("nat-7").ports == load({}).ports
    with pytest.raises(ConfigError, match="blocks: 4: expected at least 5"):
        config.of_instance("nat-5")
    with pytest.raises(ConfigError, match="blocks: 1: expected at least 2"):
        load({}).of_instance("nat-2")
    with pytest.raises(ConfigError, match="expected at most 3"):
        load({"ports": "1-3", "blocks": 4}).of_instance("nat-1")


def test_memory_follows_from_the_configuration() -> None:
    manifest = read_manifest(find_manifest("onvm_nf_nat"))

    def needed(**config: object) -> int:
        return needed_mib(manifest, read_config(manifest, config))

    assert 150 < needed() < 300
    # four million sessions take 160 bytes each, and as much again during a change
    assert 2 * (160 * 4) < needed(max_sessions=1 << 22) < 3 * (160 * 4)
    outside = [f"192.0.2.{number}" for number in range(1, 17)]
    more = needed(max_sessions=1 << 22, external=outside, filtering="address-dependent")
    assert more > needed(max_sessions=1 << 22) + 2 * (110 * 4 + 15 * 4)
