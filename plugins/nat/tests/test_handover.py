# SPDX-License-Identifier: Apache-2.0
"""Sessions go to another instance, or to another configuration."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_bed import (
    I1,
    I2,
    NS,
    O1,
    O2,
    E,
    Nat,
    src,
)
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import inherited, make_kernel, restore, save

from onvm_sdk import Verdict
from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, SYN, echo, tcp, udp


def test_sessions_go_to_another_instance_with_their_ports() -> None:
    config = load({"ports": "1024-5023", "blocks": 4, "filtering": "address-and-port-dependent"})
    first, second = Nat(), Nat()
    for number, nat in ((1, first), (2, second)):
        nat.use(config.of_instance(f"nat-{number}"))
    opened = src(first.out(tcp(I1, 1500, O1, 80, SYN)))[1]
    own = src(second.out(tcp(I1, 1500, O2, 80, SYN)))[1]
    first.back(tcp(O1, 80, E, opened, SYN | ACK))
    echoed = src(first.out(echo(I2, O1, 1700)))[1]
    restore(second.kernel, save(first.kernel, NS), NS)
    # Both directions are as before, also beside a mapping that the endpoint has here.
    assert src(second.out(tcp(I1, 1500, O1, 80, ACK)))[1] == opened
    assert second.back(tcp(O1, 80, E, opened, ACK)) == tcp(O1, 80, I1, 1500, ACK)
    assert src(second.out(tcp(I1, 1500, O2, 80, ACK)))[1] == own
    assert src(second.out(echo(I2, O1, 1700)))[1] == echoed
    # New sessions get ports of the instance's own block, even where another's are free.
    assert src(second.out(tcp(I1, 1500, O2, 81, SYN)))[1] == own
    assert 2024 <= src(second.out(udp(I2, 1600, O1, 53)))[1] < 3024
    assert inherited(second.kernel) == 2
    second.wait(8000)
    assert inherited(second.kernel) == 0, "all have ended"


def test_state_that_does_not_fit_changes_nothing() -> None:
    first, small, busy = Nat(), make_kernel(load({"max_sessions": 1})), Nat()
    for port in (1500, 1502):
        first.out(udp(I1, port, O1, 53))
    state = save(first.kernel, NS)
    with pytest.raises(NativeError, match="take over 2 NAT sessions"):
        restore(small, state, NS)
    assert save(small, NS) == b""
    taken = src(first.out(udp(I1, 1502, O1, 53)))[1]
    while src(busy.out(udp(I2, 1502, O1, 53)))[1] != taken:
        busy.use(load({"ports": f"{taken}"}))
    before = save(busy.kernel, NS)
    with pytest.raises(NativeError, match="File exists"):
        restore(busy.kernel, state, NS)
    assert save(busy.kernel, NS) == before
    for damaged in (state[:-1], b"\xff" * len(state)):
        with pytest.raises(NativeError, match="Invalid argument"):
            restore(busy.kernel, damaged, NS)


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_or_refused(state: bytes) -> None:
    nat = Nat(max_sessions=100)
    try:
        restore(nat.kernel, state, NS)
    except NativeError:
        assert save(nat.kernel, NS) == b""
    nat.out(udp(I1, 5000, O1, 53))
    nat.wait(8000)


def test_new_configuration_keeps_the_sessions_that_it_allows() -> None:
    config = {"external": ["192.0.2.1"], "ports": "1024-2047", "preserve_port": True}
    server = "198.51.100.1"
    out = [udp("10.0.0.1", 1500, server, 53), udp("10.9.0.1", 1600, server, 53)]
    with Runner("nat", config=config) as runner:
        claims: list[tuple[object, ...]] = []
        runner.contexts[0].claim = lambda *claim: claims.append(("claim", *claim))
        runner.contexts[0].unclaim = lambda *claim: claims.append(("unclaim", *claim))
        first, gone = (read_headers(frame) for frame in runner.run(out).packets)
        with pytest.raises(ConfigError, match="max_sessions"):
            runner.reconfigure({**config, "max_sessions": 1})
        wanted = {**config, "external": ["192.0.2.2", "192.0.2.1"], "inside": ["10.0.0.0/16"]}
        runner.reconfigure(wanted)
        assert claims == [("claim", "192.0.2.2", 1024, 2048, 0)]
        back = [udp(server, 53, str(IPv4Address(one.src)), one.src_port) for one in (first, gone)]
        result = runner.run(back, reverse=True)
        assert str(IPv4Address(read_headers(result.packets[0]).dst)) == "10.0.0.1"
        assert result.reasons == [None, "no_mapping"]
        again = read_headers(runner.run(out[:1]).packets[0])
        assert (again.src, again.src_port) == (first.src, first.src_port)
        runner.reconfigure({**config, "external": ["192.0.2.2"]})
        assert runner.run(back[:1], reverse=True).verdicts != [Verdict.NEXT]
        assert claims[1:] == [("unclaim", "192.0.2.1", 1024, 2048, 0)]


def test_ipv6_hosts_go_along() -> None:
    config = {"nat64": "2001:db8:64::/96", "ports": "1024-5023", "blocks": 4}
    first, second = Nat(), Nat()
    for number, nat in ((1, first), (2, second)):
        nat.use(load(config).of_instance(f"nat-{number}"))
    server = "2001:db8:64::c633:6401"
    second.out(udp("2001:db8::9", 1500, server, 53))  # so that stand-ins differ
    ports = [src(first.out(udp(f"2001:db8::{i}", 1500, server, 53)))[1] for i in (1, 2)]
    restore(second.kernel, save(first.kernel, NS), NS)
    for i, port in enumerate(ports, 1):
        assert src(second.out(udp(f"2001:db8::{i}", 1500, server, 53)))[1] == port
        assert read_headers(second.back(udp(O1, 53, E, port))).dst[-1] == i
    state = save(first.kernel, NS)
    for damaged in (state[64:], state[:32] + b"\xff" * 4 + state[36:]):
        with pytest.raises(NativeError, match="Invalid argument"):
            restore(first.kernel, damaged, NS)
    with pytest.raises(NativeError, match="Invalid argument"):
        restore(make_kernel(load({})), state, NS)


def test_sessions_of_ipv6_hosts_stay_with_their_prefix() -> None:
    config = {"nat64": "2001:db8:64::/96"}
    frame = udp("2001:db8::1", 1500, "2001:db8:64::c633:6401", 53)
    with Runner("nat", config=config) as runner:
        port = read_headers(runner.run([frame]).packets[0]).src_port
        assert [one["inside"] for one in runner.show("mappings")] == ["2001:db8::1"]
        runner.reconfigure(config | {"udp_s": 400})
        reply = udp(O1, 53, E, port)
        assert read_headers(runner.run([reply], reverse=True).packets[0]).version == 6
        runner.reconfigure({"nat64": "2001:db8:65::/96"})
        assert runner.run([reply], reverse=True).reasons == ["no_mapping"]
        runner.reconfigure({})
        assert runner.run([frame]).packets == [frame]
