# SPDX-License-Identifier: Apache-2.0
"""Tables against plain Python: dict, linear search, longest prefix by ipaddress."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onvm_sdk.errors import NativeError, TableFullError
from onvm_sdk.tables import (
    MISS,
    Acl,
    AclRule,
    FlowTable,
    Lpm,
    pack_tuple,
)

ADDRESS = {4: st.integers(0, 2**32 - 1), 6: st.integers(0, 2**128 - 1)}


def text_of(version: int, number: int) -> str:
    return str(ip_address(number.to_bytes(4 if version == 4 else 16, "big")))


@st.composite
def networks(draw: st.DrawFn, version: int) -> str:
    bits = 32 if version == 4 else 128
    few = st.sampled_from([0x0A000000, 0x0A010203, 0xC0000201]).map(lambda n: n << (bits - 32))
    address = draw(st.one_of(few, ADDRESS[version]))
    return str(ip_network((text_of(version, address), draw(st.integers(0, bits))), strict=False))


def near(network: str, step: int) -> str:
    """An address at or just outside the network's borders."""
    net = ip_network(network)
    top = 2**net.max_prefixlen
    number = (int(net.network_address if step <= 0 else net.broadcast_address) + step) % top
    return text_of(net.version, number)


@pytest.mark.parametrize("version", [4, 6])
def test_lpm_agrees_with_linear_search(version: int) -> None:
    with Lpm(4096, version=version) as lpm:
        routes: dict[str, int] = {}

        @settings(max_examples=60)
        @given(
            st.lists(
                st.tuples(networks(version), st.integers(0, 2**31 - 2), st.booleans()), max_size=12
            ),
            st.sampled_from([-1, 0, 1]),
        )
        def check(changes: list, step: int) -> None:
            for network, value, adds in changes:
                if adds:
                    lpm.add(network, value)
                    routes[network] = value
                elif routes.pop(network, None) is not None:
                    lpm.remove(network)
            for network, _, _ in changes:
                address = near(network, step)
                matching = [r for r in routes if ip_address(address) in ip_network(r)]
                best = max(matching, key=lambda r: ip_network(r).prefixlen, default=None)
                assert lpm.find(address) == (-1 if best is None else routes[best])

        check()


def test_default_route_below_longer_prefixes() -> None:
    with Lpm(16) as lpm:
        lpm.add("0.0.0.0/25", 1)
        lpm.add("0.0.0.0/0", 2)
        assert [lpm.find(a) for a in ("0.0.0.1", "0.0.0.128", "255.255.255.255")] == [1, 2, 2]
        lpm.remove("0.0.0.0/0")
        assert lpm.find("255.255.255.255") == -1
        with pytest.raises(NativeError):
            lpm.remove("0.0.0.0/0")


def test_routes_with_their_parents_value_come_and_go() -> None:
    with Lpm(16) as lpm:
        lpm.add("10.0.0.0/24", 7)
        for _ in range(1000):
            lpm.add("10.0.0.0/31", 7)
            lpm.remove("10.0.0.0/31")
        lpm.add("10.0.0.0/31", 8)
        assert (lpm.find("10.0.0.1"), lpm.find("10.0.0.2")) == (8, 7)


def test_lpm_bulk_and_mistakes() -> None:
    with Lpm(16) as lpm:
        lpm.add("10.0.0.0/8", 5)
        found = lpm.lookup(np.array([[10, 1, 2, 3], [11, 0, 0, 1]] * 100, np.uint8))
        assert found.tolist() == [5, MISS] * 100
        with pytest.raises(ValueError, match="not IPv4"):
            lpm.add("::/0", 1)
        with pytest.raises(NativeError):
            lpm.add("10.0.0.0/8", 2**31 - 1)
        with pytest.raises(NativeError):
            lpm.remove("11.0.0.0/8")
        with pytest.raises(ValueError, match="multiple of 4"):
            lpm.lookup(b"12345")
    with pytest.raises(ValueError, match="closed"):
        lpm.find("10.0.0.1")


PORT_RANGES = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(
    lambda pair: range(min(pair), max(pair) + 1)
)


@pytest.mark.parametrize("version", [4, 6])
def test_acl_agrees_with_linear_search(version: int) -> None:
    rules = st.builds(
        AclRule,
        st.none() | networks(version),
        st.none() | networks(version),
        st.sampled_from([None, 6, 17]),
        PORT_RANGES,
        PORT_RANGES,
    )

    def matches(rule: AclRule, packet: tuple) -> bool:
        src, dst, protocol, sport, dport = packet
        return (
            (rule.src is None or ip_address(src) in ip_network(rule.src))
            and (rule.dst is None or ip_address(dst) in ip_network(rule.dst))
            and rule.protocol in (None, protocol)
            and sport in rule.src_ports
            and dport in rule.dst_ports
        )

    @settings(max_examples=60)
    @given(st.lists(rules, min_size=1, max_size=20), st.data())
    def check(given_rules: list[AclRule], data: st.DataObject) -> None:
        with Acl(given_rules, version=version) as acl:
            for _ in range(10):
                like = data.draw(st.sampled_from(given_rules))
                anywhere = text_of(version, data.draw(ADDRESS[version]))
                step = data.draw(st.sampled_from([-1, 0, 1]))
                packet = (
                    near(str(like.src), step) if like.src else anywhere,
                    near(str(like.dst), 0) if like.dst else anywhere,
                    data.draw(st.sampled_from([6, 17, 1])),
                    data.draw(st.sampled_from([0, like.src_ports.start, 65535])),
                    data.draw(st.sampled_from([0, like.dst_ports.stop - 1, 65535])),
                )
                first = next((i for i, r in enumerate(given_rules) if matches(r, packet)), None)
                assert acl.match(*packet) == (None if first is None else first + 1)

    check()


def test_acl_priority_and_value() -> None:
    with Acl([AclRule(priority=1, value=7), AclRule(protocol=6, priority=9, value=8)]) as acl:
        assert acl.match("10.0.0.1", "10.0.0.2", 6) == 8
        assert acl.match("10.0.0.1", "10.0.0.2", 17) == 7
    with pytest.raises(ValueError, match="rule 0: src"):
        Acl([AclRule(src="::/0")])
    with pytest.raises(NativeError):
        Acl([])
    with pytest.raises(NativeError):
        Acl([AclRule(value=0)])


def expire_all(flows: FlowTable, now: int, idle: int) -> tuple[int, list[bytes]]:
    seen: list[bytes] = []
    expired = flows.expire(now, idle, on_expired=lambda slot: seen.append(flows.key(slot)))
    return expired, seen


@settings(max_examples=60)
@given(
    st.sampled_from([1, 13, 16, 40, 48, 64]),
    st.lists(st.tuples(st.sampled_from("arte"), st.integers(0, 30), st.integers(0, 20))),
)
def test_flow_table_agrees_with_dict(key_bytes: int, steps: list) -> None:
    capacity, idle, now = 8, 30, 0
    model: dict[bytes, int] = {}
    with FlowTable(capacity, key_bytes, 4) as flows:
        for action, number, wait in steps:
            key, now = bytes([number]) * key_bytes, now + wait
            if action == "a" and (key in model or len(model) < capacity):
                slot = flows.add(key, now)
                if key not in model:
                    assert bytes(flows.value(slot)) == bytes(4), "zero when added"
                    flows.value(slot)[0] = number
                model[key] = now
            elif action == "a":
                with pytest.raises(TableFullError):
                    flows.add(key, now)
            elif action == "r":
                assert flows.remove(key) == (model.pop(key, None) is not None)
            elif action == "t" and key in model:
                flows.touch(flows.find(key), now)
                model[key] = now
            elif action == "e":
                gone = [k for k, used in model.items() if now - used >= idle]
                expired, seen = expire_all(flows, now, idle)
                assert expired == len(gone)
                assert sorted(seen) == sorted(gone)
                for k in gone:
                    del model[k]
            assert len(flows) == len(model)
            assert all(flows.value(flows.find(k))[0] == k[0] for k in model)


def test_flow_table_fills_to_capacity() -> None:
    with FlowTable(100_000, 16) as flows:
        keys = np.zeros((100_000, 2), np.uint64)
        keys[:, 0] = np.arange(100_000)
        slots = [flows.add(key.tobytes(), 0) for key in keys]
        assert sorted(slots) == list(range(100_000))
        assert flows.lookup(keys).tolist() == slots
        keys[:, 1] = 1
        assert (flows.lookup(keys) < 0).all()
        flows.set_idle(slots[5], 7)
        assert flows.expire(now_ns=7, idle_ns=100, budget=3) == 0
        assert flows.expire(now_ns=7, idle_ns=100) == 1
        with pytest.raises(KeyError):
            flows.value(slots[5])
        with pytest.raises(ValueError, match="16 bytes"):
            flows.find(b"short")


def test_ipv4_addresses_may_be_numbers() -> None:
    with Lpm(16) as routes:
        routes.add("10.1.0.0/16", 3)
        numbers = np.array([0x0A010203, 0xC0000201, 0x0A010000], np.uint32)
        expected = [3, MISS, 3]
        assert routes.lookup(numbers).tolist() == expected
        assert routes.lookup(numbers[::2].copy()).tolist() == expected[::2]
        assert routes.lookup(numbers.astype(">u4")).tolist() == expected
        assert routes.lookup(numbers.astype(">u4").tobytes()).tolist() == expected
        assert [routes.find(int(number)) for number in numbers] == [3, -1, 3]
        assert [routes.find(number) for number in numbers] == [3, -1, 3]
        with pytest.raises(ValueError, match="numbers of 32 bits, not an array of 'l'"):
            routes.lookup(numbers.astype(np.int64))
    with Lpm(16, version=6) as routes, pytest.raises(ValueError, match="expected bytes"):
        routes.lookup(np.zeros(2, np.uint64))


@pytest.mark.parametrize("key_bytes", [1, 15, 16, 64])
@pytest.mark.parametrize("capacity", [1, 2, 7, 8, 9, 100])
def test_slots_are_below_the_capacity(capacity: int, key_bytes: int) -> None:
    with FlowTable(capacity, key_bytes) as flows:
        seen = set()
        for number in range(capacity + 20):
            key = bytes([number]) + bytes([8]) * (key_bytes - 1)
            seen.add(flows.add(key))
            assert flows.remove(key)
        assert max(seen) < capacity
        keys = [bytes([number]) + bytes(key_bytes - 1) for number in range(capacity)]
        assert sorted(flows.add(key) for key in keys) == list(range(capacity))
        assert flows.try_add(b"\xff" * key_bytes) == -1
        assert flows.lookup(b"".join(keys)).tolist() == [flows.find(key) for key in keys]
        assert sorted(map(flows.key, flows.slots())) == keys


def test_adding_in_bulk_is_adding_one_by_one() -> None:
    rng = random.Random(3)
    with FlowTable(50, 40) as one, FlowTable(50, 40) as bulk:
        for now in range(1, 40):
            keys = [rng.randrange(60).to_bytes(40, "big") for _ in range(rng.randrange(150))]
            slots = bulk.add_bulk(b"".join(keys), now)
            assert [max(slot, -1) for slot in slots] == [one.try_add(key, now) for key in keys]
            for table in (one, bulk):
                table.expire(now, idle_ns=2)
            assert list(one.slots()) == list(bulk.slots())
            assert all(one.used_ns(slot) == bulk.used_ns(slot) for slot in one.slots())


def test_cpu_affinity_survives_the_start() -> None:
    code = (
        "import os; from onvm_sdk.tables import FlowTable; before = os.sched_getaffinity(0);"
        "FlowTable(8, 16); assert os.sched_getaffinity(0) == before"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_tables_need_no_privileges() -> None:
    code = (
        "from onvm_sdk.tables import FlowTable; import os;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.environ['HOME'] = '/nonexistent';"
        "os.environ['XDG_RUNTIME_DIR'] = '/nonexistent';"
        "f = FlowTable(8, 16); f.add(bytes(16)); assert len(f) == 1"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True)
    assert done.stderr == b""


def test_pack_tuple_is_the_c_structure() -> None:
    packed = pack_tuple("10.0.0.1", "10.0.0.2", 6, 1, 0x1234)
    assert len(packed) == 40
    assert packed[:2] == b"\6\4"
    assert packed[36:] == b"\0\x01\x12\x34"
    assert ctypes.sizeof(ctypes.c_void_p) == 8
