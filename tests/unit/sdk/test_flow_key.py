"""flow_key: what tshark says of every packet of every capture, the same in columns and views."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

pytest.importorskip("numpy")

from onvm_sdk import Burst, FiveTuple, NetworkFunction
from onvm_sdk.packet import PacketView
from onvm_sdk.tables import FLOW_KEY_BYTES, Acl, AclRule, FlowTable, pack_tuple
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import echo, ip, udp

LONGEST = 65535 - 256
WITH_PORTS = {6, 17, 33, 132, 136}
ECHOES = {1: {0, 8}, 58: {128, 129}}


class Columns(NetworkFunction):
    """Keeps the flow keys of bursts."""

    def setup(self, ctx: Any) -> None:
        self.keys: list[bytes] = []

    def process(self, burst: Burst) -> None:
        assert burst.flow_key.shape == (len(burst), FLOW_KEY_BYTES)
        self.keys += [bytes(key) for key in burst.flow_key]


class Views(NetworkFunction):
    """Keeps the flow keys of packets."""

    def setup(self, ctx: Any) -> None:
        self.keys: list[bytes] = []

    def process_packet(self, pkt: PacketView) -> None:
        self.keys.append(pkt.flow_key)


def keys_of(frames: list[bytes]) -> Iterator[list[bytes]]:
    for nf in (Columns(), Views()):
        with Runner(nf) as runner:
            runner.run(frames)
            yield nf.keys


def expected(row: dict[str, str]) -> FiveTuple | None:
    if row["l3_replay"] not in ("ok", "badsum"):
        return None
    protocol = int(row["proto"])
    ports = (0, 0)
    if row["l4_replay"] != "short" and row["frag_off"] == "0" and row["dport"]:
        src_port, dst_port = int(row["sport"]), int(row["dport"])
        if protocol in WITH_PORTS:
            ports = (src_port, dst_port)
        elif src_port >> 8 in ECHOES.get(protocol, ()):  # the type of the message
            ports = (dst_port, dst_port)
    return FiveTuple(ip_address(row["src"]), ip_address(row["dst"]), *ports, protocol)


@pytest.mark.once
def test_agrees_on_every_packet(packets: list[tuple[dict[str, str], bytes]]) -> None:
    pairs = [(row, frame) for row, frame in packets if 0 < len(frame) <= LONGEST]
    wanted = [expected(row) for row, _ in pairs]
    for keys in keys_of([frame for _, frame in pairs]):
        got = [FiveTuple.unpack(key) for key in keys]
        wrong = [
            (row["n"], str(a), str(b))
            for (row, _), a, b in zip(pairs, got, wanted, strict=True)
            if a != b
        ]
        assert not wrong, f"{len(wrong)} of {len(pairs)}: {wrong[:5]}"


def test_requests_and_replies_of_an_echo_are_each_others_reverse() -> None:
    ping = [echo("10.0.0.1", "10.0.0.2", 7), echo("10.0.0.2", "10.0.0.1", 7, kind=0)]
    for keys in keys_of(ping):
        there, back = (FiveTuple.unpack(key) for key in keys)
        assert there is not None
        assert there == FiveTuple.make("10.0.0.1", 7, "10.0.0.2", 7, 1)
        assert there.reversed() == back


def test_packed_is_what_packets_have() -> None:
    frames = [udp("10.0.0.1", 5, "10.0.0.2", 53), udp("2001:db8::1", 5, "2001:db8::2", 53)]
    for keys in keys_of([*frames, bytes(64)]):
        assert keys[0] == FiveTuple.make("10.0.0.1", 5, "10.0.0.2", 53, 17).pack()
        assert keys[0] == pack_tuple("10.0.0.1", "10.0.0.2", 17, 5, 53)
        assert keys[1] == pack_tuple("2001:db8::1", "2001:db8::2", 17, 5, 53)
        assert keys[2] == bytes(FLOW_KEY_BYTES)


class Firewall(NetworkFunction):
    """Columns and tables: drops what no rule allows, and gives each flow a slot."""

    def setup(self, ctx: Any) -> None:
        self.rules = Acl([AclRule(protocol=17)])
        self.flows = FlowTable(64, FLOW_KEY_BYTES)

    def process(self, burst: Burst) -> None:
        burst.drop(self.rules.lookup(burst.flow_key) == 0, reason=1)
        assert (self.flows.add_bulk(burst.flow_key) >= 0).all()


def test_columns_of_keys_go_into_tables() -> None:
    frames = [
        udp("10.0.0.1", 5, "10.0.0.2", 53),
        udp("2001:db8::1", 5, "2001:db8::2", 53),  # the rules are of the other version
        ip("10.0.0.1", "10.0.0.2", 47, b"abcd"),
        bytes(64),
    ]
    with Runner(Firewall()) as runner:
        result = runner.run(frames)
        assert result.destinations == [0, 1, 1, 1]
        flows = runner.stages[0].nf.flows
        assert len(flows) == 4
        assert flows.lookup(FiveTuple.make("10.0.0.1", 5, "10.0.0.2", 53, 17).pack()) >= 0
