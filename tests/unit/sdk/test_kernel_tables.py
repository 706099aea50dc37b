"""Tables in the state of a kernel: the same methods and results, compiled and interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("numba")

from onvm_sdk import FiveTuple, NetworkFunction, Verdict, kernel  # noqa: E402
from onvm_sdk.errors import PluginError  # noqa: E402
from onvm_sdk.tables import FLOW_KEY_BYTES, Acl, AclRule, FlowTable, Lpm  # noqa: E402
from onvm_sdk.testing import Runner  # noqa: E402
from onvm_sdk.testing.frames import udp  # noqa: E402

WAYS = pytest.mark.parametrize("compiled", [True, False])


class State(NamedTuple):
    """What the router's kernel gets."""

    routes: Any
    routes6: Any
    rules: Any
    flows: Any
    nb_bytes: Any


class Router(NetworkFunction):
    """Refuses by rules, routes both IP versions, counts the bytes of each flow, at most four."""

    def setup(self, ctx: Any) -> None:
        routes, routes6 = Lpm(16), Lpm(16, version=6)
        routes.add("10.1.0.0/16", 3)
        routes.add("10.1.2.0/24", 7)
        routes6.add("2001:db8::/32", 4)
        routes6.add("2001:db8:0:1::/64", 5)
        rules = Acl([AclRule(dst="10.1.0.0/16", protocol=17, dst_ports=range(53, 54))])
        flows = FlowTable(4, FLOW_KEY_BYTES, value_bytes=2)
        self.state = State(routes, routes6, rules, flows, np.zeros(4, np.uint64))

    @kernel
    def process_packet(pkt: Any, state: Any) -> Any:
        if state.rules.find(pkt.flow_key) >= 0:
            return pkt.drop(1)
        if pkt.is_ipv6:
            port = state.routes6.find(pkt.ipv6.dst_high, pkt.ipv6.dst_low)
        else:
            port = state.routes.find(pkt.ipv4.dst)
        if port < 0:
            return pkt.drop(2)
        slot = state.flows.try_add(pkt.flow_key)
        if slot < 0:
            return pkt.drop(3)
        state.nb_bytes[slot] += pkt.length
        state.flows.value(slot)[0] = port
        return pkt.out(port)

    def teardown(self) -> None:
        for table in self.state[:4]:
            table.close()


PACKETS = [
    udp("10.0.0.1", 1, "10.1.9.9", 2),
    udp("10.0.0.1", 1, "10.1.2.3", 2),
    udp("10.0.0.1", 1, "172.16.0.1", 2),
    udp("10.0.0.1", 1, "10.1.2.3", 2),
    udp("10.0.0.1", 1, "10.1.2.3", 53),
    udp("2001:db8::1", 1, "2001:db8:0:1::2", 53),
    udp("2001:db8::1", 1, "2001:db8:0:2::2", 53),
    udp("2001:db8::1", 2, "2001:db8:0:2::2", 53),
    bytes(64),
]


@WAYS
def test_a_kernel_routes_and_counts_with_tables(compiled: bool) -> None:
    with Runner(Router(), compiled=compiled) as runner:
        result = runner.run(PACKETS)
        state = runner.stages[0].nf.state
        assert result.destinations == [3, 7, 2, 7, 1, 5, 4, 3, 2]
        assert [verdict == Verdict.OUT for verdict in result.verdicts] == [
            True,
            True,
            False,
            True,
            False,
            True,
            True,
            False,
            False,
        ]
        assert len(state.flows) == 4
        flow = FiveTuple.make("10.0.0.1", 1, "10.1.2.3", 2, 17)
        slot = state.flows.find(flow.pack())
        assert state.flows.value(slot)[0] == 7
        assert state.nb_bytes[slot] == 2 * len(PACKETS[1])
        assert FiveTuple.unpack(state.flows.key(slot)) == flow


def run(function: Any, table: Any, compiled: bool, packets: int = 3) -> Any:
    """Run a kernel whose state is a table and an array of what it found; give the array."""
    state = (table, np.full(8, -9, np.int64))
    nf_class = type("Nf", (NetworkFunction,), {"process_packet": kernel(function)})
    nf = nf_class()
    nf.state = state
    with Runner(nf, compiled=compiled) as runner:
        runner.run([udp("10.0.0.1", i + 1, "10.1.2.3", 2) for i in range(packets)])
    return state[1]


@pytest.fixture
def flows() -> Iterator[FlowTable]:
    with FlowTable(8, 4) as table:
        yield table


@WAYS
def test_keys_may_be_arrays(flows: FlowTable, compiled: bool) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        flows, found = state
        key = np.zeros(4, np.uint8)
        key[3] = pkt.udp.src_port
        slot = flows.try_add(key, 5)
        if slot >= 0:
            found[0] = len(flows)
            flows.touch(slot, 50 + pkt.udp.src_port)
        key[3] = 1
        if pkt.udp.src_port == 2:
            found[1] = flows.remove(key)
        if pkt.udp.src_port == 3:
            found[2] = flows.remove(key)
            found[3] = flows.find(key) == -1

    found = run(process_packet, flows, compiled)
    assert found[:4].tolist() == [2, 1, 0, 1]
    assert sorted(flows.used_ns(slot) for slot in flows.slots()) == [52, 53]


@WAYS
def test_the_clock_is_the_one_of_expire(flows: FlowTable, compiled: bool) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        key = np.zeros(4, np.uint8)
        slot = state[0].try_add(key)
        if slot >= 0:
            state[0].touch(slot)

    run(process_packet, flows, compiled)
    assert flows.expire(idle_ns=60_000_000_000) == 0
    assert flows.expire(idle_ns=0) == 1


@WAYS
def test_a_key_of_another_size_is_refused(flows: FlowTable, compiled: bool) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        state[0].find(np.zeros(5, np.uint8))

    with pytest.raises(Exception, match=r"key"):
        run(process_packet, flows, compiled)


@WAYS
@pytest.mark.parametrize("slot", [-1, 0, 7, 1 << 20])
def test_a_slot_without_a_flow_is_refused(flows: FlowTable, slot: int, compiled: bool) -> None:
    def touch(pkt: Any, state: Any) -> Any:
        state[0].touch(slot)

    def value(pkt: Any, state: Any) -> Any:
        state[1][0] = len(state[0].value(slot))

    for function in (touch, value):
        with pytest.raises(KeyError, match=f"no flow has slot {slot}"):
            run(function, flows, compiled)


@WAYS
def test_addresses_may_come_from_arrays(compiled: bool) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        found = state[1]
        targets = np.array([0x0A010203, 0xC0000201], np.uint32)
        for i in range(2):
            found[i] = state[0].find(targets[i])

    with Lpm(16) as routes:
        routes.add("10.1.0.0/16", 3)
        assert run(process_packet, routes, compiled)[:2].tolist() == [3, -1]


@WAYS
def test_numbers_that_cannot_be_are_refused(flows: FlowTable, compiled: bool) -> None:
    def address(pkt: Any, state: Any) -> Any:
        state[0].find(pkt.ipv4.dst + (1 << 32))

    def negative(pkt: Any, state: Any) -> Any:
        state[0].find(pkt.udp.src_port - 10)

    def time(pkt: Any, state: Any) -> Any:
        state[0].try_add(np.zeros(4, np.uint8), pkt.udp.src_port - 10)

    with Lpm(16) as routes:
        for function in (address, negative):
            with pytest.raises(ValueError, match=r"not permitted|IPv4 address"):
                run(function, routes, compiled)
    with pytest.raises(OverflowError):
        run(time, flows, compiled)


def test_times_are_integers(flows: FlowTable) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        state[0].try_add(np.zeros(4, np.uint8), 5.0)

    with pytest.raises(PluginError, match="now_ns is an integer, or left out"):
        run(process_packet, flows, compiled=True)
    with pytest.raises(TypeError):
        run(process_packet, flows, compiled=False)


def test_a_table_with_other_methods_is_refused() -> None:
    class Counting(Lpm):
        def find(self, address: str | int, low: int | None = None) -> int:
            return 5

    def process_packet(pkt: Any, state: Any) -> Any:
        state[1][0] = state[0].find(pkt.ipv4.dst)

    with Counting(16) as routes:
        with pytest.raises(PluginError, match="a table, or a tuple of those"):
            run(process_packet, routes, compiled=True)
        assert run(process_packet, routes, compiled=False)[0] == 5


def test_a_flow_key_is_refused_by_a_table_of_other_keys(flows: FlowTable) -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        state[0].find(pkt.flow_key)

    with pytest.raises(PluginError, match=r"pkt\.flow_key has 40 bytes, keys of the table 4"):
        run(process_packet, flows, compiled=True)
    with pytest.raises(Exception, match="key must be 4 bytes, not 40"):
        run(process_packet, flows, compiled=False)


def test_an_address_of_the_other_version_is_refused() -> None:
    def process_packet(pkt: Any, state: Any) -> Any:
        state[0].find(pkt.ipv4.dst)

    with Lpm(16, version=6) as routes, pytest.raises(PluginError, match="an IPv6 address two"):
        run(process_packet, routes, compiled=True)


PROGRAM = """
import sys, time
from onvm_sdk import NetworkFunction, kernel
from onvm_sdk.tables import FLOW_KEY_BYTES, Acl, AclRule, FlowTable
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import udp

class Nf(NetworkFunction):
    def setup(self, ctx):
        self.state = (Acl([AclRule(protocol=17)]), FlowTable(8, FLOW_KEY_BYTES))

    @kernel
    def process_packet(pkt, state):
        if state[0].find(pkt.flow_key) >= 0:
            state[1].try_add(pkt.flow_key)

nf = Nf()
with Runner(nf) as runner:
    runner.run([udp("10.0.0.1", 1, "10.0.0.2", port) for port in (1, 2, 1)])
    print(len(nf.state[1]), "numba" in sys.modules)
"""


def test_later_starts_take_the_code_from_the_cache(tmp_path: Path) -> None:
    def start() -> str:
        return subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout.strip()

    assert start() == "2 True"
    assert start() == "2 False"
