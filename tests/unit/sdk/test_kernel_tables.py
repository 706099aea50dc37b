"""A kernel that looks packets up in DPDK's tables, compiled and interpreted."""

from __future__ import annotations

from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("numba")

from onvm_sdk import NetworkFunction, Verdict, kernel, tables  # noqa: E402
from onvm_sdk.testing import Runner  # noqa: E402
from onvm_sdk.testing.frames import udp  # noqa: E402

lpm_lookup = tables.native_function("onvm_lpm_lookup")
flow_add = tables.native_function("onvm_flow_table_add")


class Router(NetworkFunction):
    """Sends packets out of the port of their route and counts the flows it has seen."""

    def setup(self, ctx: Any) -> None:
        self.routes = tables.Lpm(16)
        self.routes.add("10.1.0.0/16", 3)
        self.routes.add("10.1.2.0/24", 7)
        self.flows = tables.FlowTable(64, key_bytes=16)
        addresses = np.array([self.routes.address, self.flows.address], dtype=np.uint64)
        self.state = (addresses, np.zeros(16, np.uint8), np.zeros(1, np.uint32))

    @kernel
    def process_packet(pkt: Any, state: Any) -> Any:
        addresses, key, port = state
        if not pkt.is_ipv4:
            return pkt.drop()
        for number in range(4):
            key[number] = (pkt.ipv4.dst >> (24 - 8 * number)) & 255
        lpm_lookup(int(addresses[0]), key.ctypes, port.ctypes, 1)
        if port[0] == 0xFFFFFFFF:
            return pkt.drop()
        flow_add(int(addresses[1]), key.ctypes, 1)
        return pkt.out(int(port[0]))

    def teardown(self) -> None:
        self.routes.close()
        self.flows.close()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_kernel_routes_with_an_lpm_table(compiled: bool) -> None:
    targets = ["10.1.9.9", "10.1.2.3", "172.16.0.1", "10.1.2.3"]
    with Runner(Router(), compiled=compiled) as runner:
        result = runner.run([udp("10.0.0.1", 1, target, 2) for target in targets])
        assert result.verdicts == [Verdict.OUT, Verdict.OUT, Verdict.DROP, Verdict.OUT]
        assert result.destinations[:2] == [3, 7]
        assert len(runner.stages[0].nf.flows) == 2
