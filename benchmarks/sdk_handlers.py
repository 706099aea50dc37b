"""Cost per packet of the four ways to write an NF, without rings: work "w2" on packets in memory.

    python -P benchmarks/sdk_handlers.py [--burst 1024] [--seconds 0.5]

w2: IPv4 and UDP, destination port not in a set, TTL above 1; then TTL - 1 with its checksum; any
other packet is dropped. The handlers with tables ask an Acl of 100 rules, an Lpm and a FlowTable
about each packet instead. Packets lie in 16 384 slots that are visited in a scattered order, as
buffers of a mempool are. 1 in 16 has a blocked port.
"""

from __future__ import annotations

import argparse
import gc
import random
import struct
import time
from typing import Any

import numpy as np

from onvm_sdk import NetworkFunction, Verdict, kernel
from onvm_sdk._hosting.stage import build_stage
from onvm_sdk._native._nf import ffi
from onvm_sdk.burst import Burst
from onvm_sdk.nf import Context
from onvm_sdk.packet import PacketView
from onvm_sdk.tables import FLOW_KEY_BYTES, MISS, Acl, AclRule, FlowTable, Lpm

SLOTS = 16384
STRIDE = 2176 + 128
BLOCKED = 9999


def blocked_ports() -> Any:
    table = np.zeros(65536, dtype=np.bool_)
    table[BLOCKED] = True
    return table


class Columns(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.blocked = blocked_ports()

    def process(self, burst: Burst) -> None:
        ttl = burst.ipv4.ttl
        bad = self.blocked[burst.udp.dst_port]
        bad |= ttl <= 1
        bad |= ~burst.is_udp
        burst.drop(bad)
        ttl -= ~bad


class Packets(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.blocked = {BLOCKED}

    def process_packet(self, pkt: PacketView) -> int:
        if not pkt.is_udp or pkt.udp.dst_port in self.blocked:
            return Verdict.DROP
        ip = pkt.ipv4
        if ip.ttl <= 1:
            return Verdict.DROP
        ip.ttl -= 1
        return Verdict.NEXT


class Kernel(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.state = blocked_ports()

    @kernel
    def process_packet(pkt, blocked):  # type: ignore[no-untyped-def]
        if not pkt.is_udp or not pkt.is_ipv4 or blocked[pkt.udp.dst_port] or pkt.ipv4.ttl <= 1:
            return Verdict.DROP
        pkt.ipv4.ttl -= 1
        return Verdict.NEXT


def tables() -> tuple[Acl, Lpm, FlowTable]:
    ports = range(BLOCKED - 50, BLOCKED + 50)
    rules = Acl([AclRule("10.0.0.0/8", protocol=17, dst_ports=range(p, p + 1)) for p in ports])
    routes = Lpm(16)
    routes.add("10.0.0.0/8", 1)
    return rules, routes, FlowTable(65536, FLOW_KEY_BYTES)


class ColumnsTables(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.rules, self.routes, self.flows = tables()

    def process(self, burst: Burst) -> None:
        keys = burst.flow_key
        bad = self.rules.lookup(keys) != 0
        bad |= self.routes.lookup(burst.ipv4.dst) == MISS
        self.flows.add_bulk(keys)
        burst.drop(bad)


class KernelTables(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.state = tables()

    @kernel
    def process_packet(pkt, state):  # type: ignore[no-untyped-def]
        rules, routes, flows = state
        if rules.find(pkt.flow_key) >= 0 or routes.find(pkt.ipv4.dst) < 0:
            return Verdict.DROP
        flows.try_add(pkt.flow_key)
        return Verdict.NEXT


def frame(port: int) -> bytes:
    ip = bytearray(
        struct.pack("!BBHHHBBHII", 0x45, 0, 46, 7, 0, 255, 17, 0, 0x0A000001, 0x0A000002)
    )
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip[10:12] = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return b"\x02" * 12 + b"\x08\x00" + ip + struct.pack("!HHHH", 1000, port, 26, 0) + bytes(18)


def measure(kind: type[NetworkFunction], burst: int, seconds: float) -> float:
    """Million packets a second through one kernel."""
    nf = kind()
    nf.setup(Context(name=kind.__name__))

    def fail(error: BaseException) -> None:
        raise error

    stage = build_stage(nf, fail)
    memory = ffi.new("uint8_t[]", SLOTS * STRIDE)
    order = list(range(SLOTS))
    random.Random(1).shuffle(order)
    packets = ffi.new("struct onvm_pkt[]", SLOTS)
    base = memoryview(ffi.buffer(memory))
    for row, slot in enumerate(order):
        data = frame(BLOCKED if row % 16 == 0 else 5000 + row % 1000)
        base[slot * STRIDE + 128 : slot * STRIDE + 128 + len(data)] = data
        packets[row].data = memory + slot * STRIDE + 128
        packets[row].length = len(data)
    ctx = ffi.new("struct onvm_ctx *")
    ctx.state = ffi.cast("void *", stage.state)
    function = ffi.cast("onvm_kernel", stage.function)
    pointers = [packets + first for first in range(0, SLOTS - burst + 1, burst)]
    best, passes = 0.0, 0
    gc.disable()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and passes < 250:
        begin = time.perf_counter()
        for pointer in pointers:
            function(ctx, pointer, burst)
        best = max(best, len(pointers) * burst / (time.perf_counter() - begin) / 1e6)
        passes += 1
    gc.enable()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--burst", type=int, nargs="*", default=[256, 1024, 2048])
    parser.add_argument("--seconds", type=float, default=0.5)
    kinds = ["Columns", "Packets", "Kernel", "ColumnsTables", "KernelTables"]
    parser.add_argument("--only", nargs="*", default=kinds)
    arguments = parser.parse_args()
    for name in arguments.only:
        for burst in arguments.burst:
            rate = measure(globals()[name], burst, arguments.seconds)
            print(f"{name.lower():13} burst {burst:5}: {rate:7.2f} Mpps, {1000 / rate:6.1f} ns")


if __name__ == "__main__":
    main()
