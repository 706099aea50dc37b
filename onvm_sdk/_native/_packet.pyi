from collections.abc import Callable
from typing import Any

from onvm_sdk.verdict import Verdict

class _Header: ...

class EthHeader(_Header):
    dst: int
    src: int
    type: int

class VlanHeader(_Header):
    tci: int
    id: int
    priority: int

class Ipv4Header(_Header):
    @property
    def header_length(self) -> int: ...
    tos: int
    dscp: int
    ecn: int
    total_length: int
    id: int
    flags: int
    fragment_offset: int
    ttl: int
    protocol: int
    checksum: int
    src: int
    dst: int

class Ipv6Header(_Header):
    traffic_class: int
    flow_label: int
    payload_length: int
    next_header: int
    hop_limit: int
    src: int
    dst: int
    src_high: int
    src_low: int
    dst_high: int
    dst_low: int

class TcpHeader(_Header):
    src_port: int
    dst_port: int
    seq: int
    ack: int
    @property
    def data_offset(self) -> int: ...
    flags: int
    window: int
    checksum: int
    urgent: int

class UdpHeader(_Header):
    src_port: int
    dst_port: int
    length: int
    checksum: int

class IcmpHeader(_Header):
    type: int
    code: int
    checksum: int
    id: int
    sequence: int

class PacketView:
    @property
    def eth(self) -> EthHeader: ...
    @property
    def vlan(self) -> VlanHeader: ...
    @property
    def ipv4(self) -> Ipv4Header: ...
    @property
    def ipv6(self) -> Ipv6Header: ...
    @property
    def tcp(self) -> TcpHeader: ...
    @property
    def udp(self) -> UdpHeader: ...
    @property
    def icmp(self) -> IcmpHeader: ...
    @property
    def is_vlan(self) -> bool: ...
    @property
    def is_ipv4(self) -> bool: ...
    @property
    def is_ipv6(self) -> bool: ...
    @property
    def is_tcp(self) -> bool: ...
    @property
    def is_udp(self) -> bool: ...
    @property
    def is_icmp(self) -> bool: ...
    @property
    def is_fragment(self) -> bool: ...
    @property
    def is_reverse(self) -> bool: ...
    @property
    def length(self) -> int: ...
    @property
    def port(self) -> int: ...
    @property
    def flow_hash(self) -> int: ...
    @property
    def protocol(self) -> int: ...
    @property
    def vlan_count(self) -> int: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def destination(self) -> int: ...
    @property
    def headroom(self) -> int: ...
    @property
    def tailroom(self) -> int: ...
    @property
    def flow_key(self) -> bytes: ...
    @property
    def data(self) -> memoryview: ...
    def push(self, length: int, /) -> bool: ...
    def pull(self, length: int, /) -> bool: ...
    def tobytes(self) -> bytes: ...
    def drop(self, reason: int = 0, /) -> Verdict: ...
    def out(self, port: int, /) -> Verdict: ...
    def to_service(self, service_id: int, /) -> Verdict: ...
    def hold(self) -> int: ...
    def originate(self, packet: bytes, verdict: int = 0, destination: int = 0, /) -> bool: ...

class Loop:
    @property
    def kernel(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def error(self) -> BaseException: ...

def loop(
    function: Callable[..., Any], on_error: Callable[[], None], state: object = ..., /
) -> Loop: ...
def view(packet: int, context: int, /) -> PacketView: ...
def held_view(held: int, token: int, context: int, /) -> PacketView | None: ...
def end_view(view: PacketView, /) -> None: ...
