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

class ArpHeader(_Header):
    operation: int
    sender_mac: int
    sender_ip: int
    target_mac: int
    target_ip: int

class MplsHeader(_Header):
    label: int
    traffic_class: int
    bottom: int
    ttl: int

class PppoeHeader(_Header):
    code: int
    session: int
    length: int

class SctpHeader(_Header):
    src_port: int
    dst_port: int
    tag: int
    checksum: int

class GreHeader(_Header):
    flags: int
    protocol: int

class VxlanHeader(_Header):
    flags: int
    vni: int

class GeneveHeader(_Header):
    @property
    def options(self) -> int: ...
    flags: int
    protocol: int
    vni: int

class GtpuHeader(_Header):
    flags: int
    type: int
    length: int
    teid: int

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
    def arp(self) -> ArpHeader: ...
    @property
    def mpls(self) -> MplsHeader: ...
    @property
    def pppoe(self) -> PppoeHeader: ...
    @property
    def sctp(self) -> SctpHeader: ...
    @property
    def gre(self) -> GreHeader: ...
    @property
    def vxlan(self) -> VxlanHeader: ...
    @property
    def geneve(self) -> GeneveHeader: ...
    @property
    def gtpu(self) -> GtpuHeader: ...
    @property
    def is_arp(self) -> bool: ...
    @property
    def is_mpls(self) -> bool: ...
    @property
    def is_pppoe(self) -> bool: ...
    @property
    def is_sctp(self) -> bool: ...
    @property
    def is_gre(self) -> bool: ...
    @property
    def is_vxlan(self) -> bool: ...
    @property
    def is_geneve(self) -> bool: ...
    @property
    def is_gtpu(self) -> bool: ...
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
    def l3_offset(self) -> int: ...
    @property
    def l4_offset(self) -> int: ...
    @property
    def flow_key(self) -> bytes: ...
    @property
    def data(self) -> memoryview: ...
    @property
    def payload(self) -> memoryview: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def counters(self) -> memoryview: ...
    def append(self, content: bytes | bytearray | memoryview, /) -> bool: ...
    def trim(self, length: int, /) -> bool: ...
    def update_checksums(self) -> None: ...
    def push(self, length: int, /) -> bool: ...
    def pull(self, length: int, /) -> bool: ...
    def tobytes(self) -> bytes: ...
    def drop(self, reason: int = 0, /) -> Verdict: ...
    def out(self, port: int, /) -> Verdict: ...
    def to_service(self, service_id: int, /) -> Verdict: ...
    def hold(self) -> int: ...
    def release(self, token: int, verdict: int = 0, destination: int = 0, /) -> bool: ...
    def originate(
        self,
        packet: bytes | bytearray | memoryview,
        verdict: int = 0,
        destination: int = 0,
        /,
    ) -> bool: ...

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
