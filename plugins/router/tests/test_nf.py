# SPDX-License-Identifier: Apache-2.0
"""The router as an NF: ports that come and go, configurations that change."""

from __future__ import annotations

import pytest
from onvm_nf_router import Router as Plugin
from onvm_nf_router.interfaces import mac_for
from router_case import (
    CONFIG,
    DMZ,
    LAN,
    PORTS,
    WAN,
    arp,
    ports_of,
    to_router,
)

from onvm_sdk.errors import ConfigError
from onvm_sdk.nf import Port
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ip, udp
from onvm_sdk.verdict import Verdict


def test_mac_address_is_made_once_for_each_host() -> None:
    first, same, other = (
        Port("lan", 1, mac=mac) for mac in ("02:00:00:00:00:05",) * 2 + ("02:06",)
    )
    assert mac_for(first) == mac_for(same)
    assert mac_for(first) != mac_for(other)
    assert mac_for(first)[0] & 3 == 2, "unicast, locally administered"
    first.link = {"mac": "02:00:00:00:00:09"}
    assert mac_for(first) == bytes([2, 0, 0, 0, 0, 9])
    first.link = {"mac": "interface"}
    assert mac_for(first) == bytes([2, 0, 0, 0, 0, 5])
    with pytest.raises(ConfigError, match=r"lan\.mac: 'interface': expected a port with"):
        mac_for(Port("lan", 1, link=first.link))


def test_ports_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    with Runner("router", config=CONFIG) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        frame = arp(LAN, 1, "10.0.0.5", "10.0.0.1")
        assert runner.run([frame], ports=LAN).reasons == ["no_interface"]
        nf.on_ports(ports_of(LAN, DMZ))
        said = capsys.readouterr().err
        assert "routes[0].via: '198.51.100.9': expected an address on the link of an" in said
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT]
        nf.on_ports(ports_of(WAN))
        assert runner.run([frame], ports=LAN).reasons == ["no_interface"]
        nf.on_ports([Port("wan", WAN)])
        assert "ports: none has addresses" in capsys.readouterr().err


def test_configuration_changes_while_the_router_runs() -> None:
    with Runner("router", config={"routes": []}) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        nf.on_ports(ports_of(*PORTS))
        runner.run([arp(WAN, 1, "198.51.100.9", "198.51.100.1")], ports=WAN)
        frame = to_router(LAN, udp("10.0.0.5", 5, "8.8.8.8", 53))
        assert runner.run([frame], ports=LAN).reasons == ["no_route"]
        route = {"prefix": "0.0.0.0/0", "via": "198.51.100.9"}
        runner.reconfigure({"routes": [route]})
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT], "the neighbour is known"
        with pytest.raises(ConfigError, match=r"routes\[0\]\.via: 'x'"):
            runner.reconfigure({"routes": [{**route, "via": "x"}]})
        assert runner.run([frame], ports=LAN).verdicts == [Verdict.OUT], "as before"
        runner.reconfigure({"routes": [route], "max_routes": 100})
        assert runner.run([frame], ports=LAN).reasons == ["resolving"], "other tables"
        runner.reconfigure({"routes": [], "max_routes": 100})
        assert runner.run([frame], ports=LAN).reasons == ["no_route"]


def test_router_in_one_process_with_others_does_not_pass_them_by() -> None:
    with Runner(["router", "firewall"], config={"router": CONFIG}) as runner:
        nf = runner.stages[0].nf
        assert isinstance(nf, Plugin)
        nf.on_ports(ports_of(*PORTS))
        frame = to_router(LAN, udp("10.0.0.5", 5, "198.51.100.9", 6))
        forwards = runner.run([frame], ports=LAN)
        assert forwards.verdicts == [Verdict.NEXT], "the firewall is the last one"
        backwards = runner.run([frame], ports=LAN, reverse=True)
        assert backwards.reasons == ["resolving"], "the router is"
        assert backwards.counters["firewall"]["accepted_by_default"] == 2


def test_new_routes_are_used_and_neighbours_stay_known() -> None:
    config = {"routes": [{"prefix": "192.0.2.0/24", "kind": "blackhole"}]}
    with Runner("router", config=config) as runner:
        runner.stages[0].nf.on_ports(ports_of(LAN, WAN))
        packet = to_router(LAN, ip("10.0.0.5", "192.0.2.7", 17, bytes(8)))
        assert runner.run([packet], ports=LAN).reasons == ["blackhole"]
        runner.reconfigure({"routes": [{"prefix": "192.0.2.0/24", "kind": "unreachable"}]})
        assert runner.run([packet], ports=LAN).reasons != ["blackhole"]
        with pytest.raises(ConfigError, match="max_routes: 7: expected"):
            runner.reconfigure({"max_routes": 7})
        with pytest.raises(ConfigError, match="routes"):
            runner.reconfigure({"routes": [{"prefix": "nonsense"}]})
