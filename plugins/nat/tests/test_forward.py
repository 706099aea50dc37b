# SPDX-License-Identifier: Apache-2.0
"""External ports that lead to inside endpoints."""

from __future__ import annotations

import pytest
from nat_bed import I1, I2, MAKERS, O1, O2, E, Nat, src, turned
from onvm_nf_nat.config import load

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import SYN, icmp_error, tcp, udp
from onvm_sdk.testing.kernel import OUT

WEB = {"protocol": "tcp", "port": 80, "inside": I1, "inside_port": 8080}
DNS = {"protocol": "udp", "port": 53, "inside": I2, "external": "192.0.2.2"}
FILTERINGS = ["endpoint-independent", "address-dependent", "address-and-port-dependent"]


def forwarding(**config: object) -> Nat:
    return Nat(**({"forward": [WEB, DNS], "external": [E, "192.0.2.2"]} | config))


@pytest.mark.parametrize("filtering", FILTERINGS)
def test_strangers_reach_the_inside_endpoint(filtering: str) -> None:
    nat = forwarding(filtering=filtering)
    assert nat.back(tcp(O1, 999, E, 80, SYN)) == tcp(O1, 999, I1, 8080, SYN)
    assert nat.out(tcp(I1, 8080, O1, 999)) == tcp(E, 80, O1, 999)
    assert nat.back(udp(O2, 999, "192.0.2.2", 53)) == udp(O2, 999, I2, 53)
    assert nat.out(udp(I2, 53, O2, 999)) == udp("192.0.2.2", 53, O2, 999)
    assert nat.dropped(udp(O1, 999, E, 80)) == "no_mapping", "the other protocol"
    nat.wait(8000)
    assert nat.count("sessions_expired") == 2
    assert nat.back(tcp(O2, 1, E, 80, SYN)) == tcp(O2, 1, I1, 8080, SYN), "it stays"
    sent = nat.out(tcp(I1, 8080, O2, 1))
    assert nat.back(icmp_error(O1, E, sent)) == icmp_error(O1, I1, tcp(I1, 8080, O2, 1))


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_else_gets_the_port(make) -> None:
    nat = Nat(ports="80-82", forward=[{**WEB, "protocol": make.__name__}], max_per_subscriber=9)
    ports = {src(nat.out(make(I2, port, O1, 1)))[1] for port in (80, 81)}
    assert ports == {81, 82}
    assert nat.dropped(make(I2, 82, O1, 1), reverse=False) == "exhausted"


def test_inside_hosts_reach_it_too() -> None:  # RFC 4787 REQ-9
    nat = forwarding()
    own = src(nat.out(tcp(I2, 5, O1, 1)))[1]
    done = nat._run(tcp(I2, 5, E, 80, SYN), False)
    address = str(read_headers(nat.out(tcp(I2, 5, O1, 1))).src[-1])
    assert (done.verdict, done.data) == (OUT, turned(tcp(f"192.0.2.{address}", own, I1, 8080, SYN)))


def test_each_instance_has_those_of_its_block() -> None:
    config = load({"ports": "1-2000", "blocks": 2, "forward": [WEB]})
    first, second = Nat(), Nat()
    first.use(config.of_instance("nat-1"))
    second.use(config.of_instance("nat-2"))
    first.back(tcp(O1, 999, E, 80, SYN))
    assert second.dropped(tcp(O1, 999, E, 80, SYN)) == "no_mapping"


def test_port_that_is_forwarded_now_ends_the_session_that_had_it() -> None:
    config = {"external": E, "preserve_port": True}
    with Runner("nat", config=config) as runner:
        runner.run([tcp(I2, 80, O1, 999, SYN), tcp(I2, 81, O1, 999, SYN)], now_ns=1 << 62)
        runner.reconfigure({**config, "forward": [WEB]})
        (mapping,) = runner.show("mappings", {"inside": I1})
        assert mapping["forwarded"]
        assert (mapping["external_port"], mapping["sessions"]) == (80, 0)
        assert [one["external_port"] for one in runner.show("mappings", {"inside": I2})] == [81]
        assert runner.run([tcp(O2, 5, E, 80, SYN)], reverse=True).packets == [
            tcp(O2, 5, I1, 8080, SYN)
        ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"port": 3000}, "forward[0].port: 3000: expected a port within 1-2000, as in `ports`"),
        ({"inside": O1}, f"forward[0].inside: '{O1}': expected the address of a host in `inside`"),
        ({"external": O1}, f"forward[0].external: '{O1}': expected one of the addresses in"),
        ({"inside": "x"}, "forward[0].inside: 'x': expected an IPv4 address"),
    ],
)
def test_mistakes_in_forwards(wrong: dict, message: str) -> None:
    config = {"external": E, "inside": ["10.0.0.0/8"], "ports": "1-2000"}
    with pytest.raises(ConfigError) as caught:
        load(config | {"forward": [WEB | wrong]})
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match="not forwarded already"):
        load(config | {"forward": [WEB, WEB | {"inside": I2}]})
    with pytest.raises(ConfigError, match="has no other port"):
        load(config | {"forward": [WEB, WEB | {"port": 81}]})
