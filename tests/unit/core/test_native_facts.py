"""Facts that Python repeats, because native code is not there, are those of C."""

from __future__ import annotations

import errno
import json
from importlib import import_module
from typing import Any

import pytest

from onvm_core._native import _dataplane
from onvm_core.dataplane import limits as plane_limits
from onvm_core.dataplane.values import DataplaneSettings, Fragments, IdlePolicy, TurnSums
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.startup.environment import buffer_bytes, packet_memory_bytes
from onvm_sdk import headers, limits, manifest
from onvm_sdk._native import _nf
from onvm_sdk._native.nf import unpack_ports
from onvm_sdk.verdict import Verdict

ffi: Any = _nf.ffi
lib: Any = _nf.lib


def _numbers(module: Any) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int)
    }


@pytest.mark.parametrize("name", _numbers(limits))
def test_limits_of_the_sdk_are_those_of_c(name: str) -> None:
    assert _numbers(limits)[name] == getattr(lib, f"ONVM_{name}")


@pytest.mark.parametrize("name", _numbers(plane_limits))
def test_limits_of_the_data_plane_are_those_of_c(name: str) -> None:
    assert _numbers(plane_limits)[name] == getattr(_dataplane.lib, f"ONVM_{name}")


def test_magic_and_version_are_those_of_c() -> None:
    assert codec.MAGIC == lib.ONVM_WIRE_MAGIC
    assert codec.VERSION == lib.ONVM_WIRE_VERSION


def test_messages_have_the_numbers_of_c() -> None:
    members = ffi.typeof("enum onvm_message_type").relements
    assert {name: getattr(codec, name.removeprefix("ONVM_MSG_")) for name in members} == members


def test_verdicts_have_the_numbers_of_c() -> None:
    members = ffi.typeof("enum onvm_verdict").relements
    assert {f"ONVM_{verdict.name}": int(verdict) for verdict in Verdict} == members


def test_idle_policies_have_the_numbers_of_c() -> None:
    members = _dataplane.ffi.typeof("enum onvm_idle_policy").relements
    assert {f"ONVM_IDLE_{policy.name}": int(policy) for policy in IdlePolicy} == members


def test_forms_of_fragments_have_the_numbers_of_c() -> None:
    members = ffi.typeof("enum onvm_fragments").relements
    assert {f"ONVM_FRAGMENTS_{form.name}": int(form) for form in Fragments} == members
    assert tuple(form.name.lower() for form in Fragments) == manifest.FRAGMENTS


def test_a_hello_of_c_is_read() -> None:
    hello = ffi.new("struct onvm_attach_hello *")
    hello.magic, hello.version = lib.ONVM_WIRE_MAGIC, lib.ONVM_WIRE_VERSION
    hello.nb_stages, hello.nb_loaned, hello.burst_size, hello.pid = 2, 3, 4, 5
    hello.wire_sized = 1
    hello.secret = b"secret"
    hello.stage[0].service, hello.stage[0].instance = b"nat", b"nat-1"
    hello.stage[1].service = b"firewall"
    hello.stage[1].fragments = 2
    hello.stage[1].reasons[0], hello.stage[1].counters[1] = b"rule", b"hits"
    assert codec.unpack_hello(bytes(ffi.buffer(hello))) == codec.Hello(
        stages=(
            codec.StageHello("nat", "nat-1", (), ()),
            codec.StageHello("firewall", "", ("rule",), ("", "hits"), Fragments.REASSEMBLE),
        ),
        n_loaned=3,
        burst_size=4,
        pid=5,
        wire_sized=True,
        secret="secret",
    )


def test_c_reads_a_reply() -> None:
    values = {
        "n_workers": 1,
        "ring_length": 2,
        "n_buffers": 3,
        "buffer_stride": 4,
        "first_large": 10,
        "large_bytes": 11,
        "instance_id": 5,
        "memory_bytes": 6,
        "area_bytes": 7,
        "idle_policy": 8,
        "n_loaned": 9,
    }
    raw = codec.pack_reply(**values, service_ids=(12, 13))
    assert len(raw) == ffi.sizeof("struct onvm_attach_reply")
    reply = ffi.from_buffer("struct onvm_attach_reply *", raw)
    assert (reply.magic, reply.version, reply.status) == (codec.MAGIC, codec.VERSION, 0)
    for name, value in values.items():
        native = f"nb_{name.removeprefix('n_')}" if name.startswith("n_") else name
        assert getattr(reply, native) == value, name
    assert list(reply.service_id)[:3] == [12, 13, 0]


def test_c_reads_the_reason_of_a_refusal() -> None:
    raw = codec.pack_refusal(errno.EPROTO, "x" * 2 * limits.ERROR_LENGTH)
    reply = ffi.from_buffer("struct onvm_attach_reply *", raw)
    assert reply.status == -errno.EPROTO
    assert ffi.string(reply.error) == b"x" * (limits.ERROR_LENGTH - 1)


def test_messages_have_the_header_of_c() -> None:
    raw = codec.pack_message(codec.USER, stage=3, peer="nat", payload=b"payload")
    header = ffi.from_buffer("struct onvm_message_header *", raw, require_writable=False)
    assert (header.type, header.length, header.stage) == (codec.USER, 7, 3)
    assert ffi.string(header.peer) == b"nat"
    assert raw[ffi.sizeof("struct onvm_message_header") :] == b"payload"


def test_ports_as_nfs_are_told_of_them() -> None:
    mac = bytes.fromhex("020000000001")
    entries = [codec.PortEntry("lan", 3, 1500, mac), codec.PortEntry("x" * 40, 9)]
    message = codec.unpack_message(codec.pack_ports(entries))
    assert message.kind == codec.PORTS
    assert unpack_ports(message.payload) == [
        ("lan", 3, 1500, mac),
        ("x" * (limits.NAME_LENGTH - 1), 9, 0, bytes(6)),
    ]


def test_links_go_before_ports() -> None:
    link = codec.PortLink(("10.0.0.1/24",), {"10": codec.VlanLink(("10.1.0.1/24",))}, "interface")
    entries = [codec.PortEntry("lan", 3, link=link), codec.PortEntry("wan", 4)]
    (message,) = map(codec.unpack_message, codec.pack_links(entries))
    assert (message.kind, message.peer) == (codec.LINK, "lan")
    assert json.loads(message.payload) == {
        "addresses": ["10.0.0.1/24"],
        "vlans": {"10": {"addresses": ["10.1.0.1/24"]}},
        "mac": "interface",
    }


def test_addresses_of_nfs_are_read_and_told() -> None:
    addresses = ["198.51.100.7", "2001:db8::7"]
    message = codec.unpack_message(codec.pack_addresses(addresses))
    assert message.kind == codec.ADDRESSES
    assert codec.unpack_addresses(message.payload) == addresses
    with pytest.raises(codec.WireError, match="own address"):
        codec.unpack_addresses(b"198.51.100")


def test_a_claim_of_c_is_read() -> None:
    claim = ffi.new("struct onvm_claim *")
    claim.ip_version, claim.protocol, claim.first_port, claim.end_port = 4, 6, 100, 200
    claim.address[0:4] = bytes([192, 0, 2, 1])
    assert codec.unpack_claim(bytes(ffi.buffer(claim))) == codec.Claim(
        bytes([192, 0, 2, 1]), 6, 100, 200
    )


def test_sums_over_turns_are_all_read() -> None:
    members = [name for name, _ in ffi.typeof("struct onvm_turn_sums").fields]
    assert list(TurnSums.__struct_fields__) == members


@pytest.mark.parametrize("data_bytes", [256, 1500, 1984, 2048, 2112, 9000, 60000])
def test_a_buffer_takes_what_c_says(data_bytes: int) -> None:
    assert buffer_bytes(data_bytes) == _dataplane.lib.onvm_dp_buffer_bytes(data_bytes)


def test_packet_memory_has_all_buffers() -> None:
    settings = DataplaneSettings(n_buffers=1000, data_bytes=2048, memory_nodes=(0, 1))
    small = buffer_bytes(2048)
    large = packet_memory_bytes(settings) - 2000 * small
    stride = small - 128
    span = -(-65535 // stride)
    assert large == settings.n_large_buffers * (span * stride + 128)


def test_the_parser_in_python_has_the_limits_of_c() -> None:
    assert headers._VLANS_MAX == lib.ONVM_VLANS_MAX
    assert headers._EXTENSIONS_MAX == lib.ONVM_IPV6_EXTENSIONS_MAX


def test_names_of_a_manifest_fit_messages() -> None:
    longest = "a" * (lib.ONVM_NAME_LENGTH - 1 - len("-9999"))  # as in the name of an instance
    assert manifest._NAME.fullmatch(longest)
    assert not manifest._NAME.fullmatch(longest + "a")


@pytest.mark.parametrize("name", ["firewall", "lb", "nat", "router"])
def test_a_manifest_names_reasons_and_counters_in_the_order_of_the_kernel(name: str) -> None:
    found = manifest.read_manifest(manifest.find_manifest(f"onvm_nf_{name}"))
    kernel: Any = import_module(f"onvm_nf_{name}._{name}").ffi
    for names, kind in ((found.drop_reasons, "reason"), (found.counters, "counter")):
        members = kernel.typeof(f"enum {name}_{kind}").relements
        # A manifest may say more: FIREWALL_BY_RULE is accepted_by_rule.
        suffixes = [
            member.removeprefix(f"{name.upper()}_").removeprefix("DROP_").lower()
            for member in sorted(members, key=members.__getitem__)
            if not member.endswith("_NO_DROP")
        ]
        assert len(names) == len(suffixes)
        assert all(map(str.endswith, names, suffixes)), (names, suffixes)


def test_nat_takes_as_many_networks_as_its_kernel() -> None:
    kernel: Any = import_module("onvm_nf_nat._nat").lib
    assert import_module("onvm_nf_nat.config").INSIDE_MAX == kernel.NAT_INSIDE_MAX
    assert import_module("onvm_nf_nat.config").EXTERNALS_MAX == kernel.NAT_EXTERNALS_MAX


@pytest.mark.parametrize("name", ["INTERFACES_MAX", "ADDRESSES_MAX", "HOPS_MAX", "GROUPS_MAX"])
def test_router_takes_as_much_as_its_kernel(name: str) -> None:
    kernel: Any = import_module("onvm_nf_router._router").lib
    config = import_module("onvm_nf_router.config")
    assert getattr(config, name) == getattr(kernel, f"ROUTER_{name}")
