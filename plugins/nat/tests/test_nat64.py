# SPDX-License-Identifier: Apache-2.0
"""NAT64: IPv6 hosts reach IPv4 ones. What becomes what is that of RFC 7915."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_bed import I1, KEY, NS, O1, O2, REASONS, E, Nat, passed, src, tagged
from onvm_nf_nat.config import load
from onvm_nf_nat.kernel import make_kernel, set_mtu, set_routed
from onvm_nf_nat.model import Drop, NatModel
from onvm_nf_nat.model.siit import embed, extract

from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, icmp_error, ip, is_sound, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, KernelRunner, Packet

PREFIX = "2001:db8:64::/96"
C1, C2 = "2001:db8:1::1", "2001:db8:1::2"


def six(address: str, prefix: str = PREFIX) -> str:
    """The IPv6 address that stands for an IPv4 one."""
    return str(IPv6Address(embed(IPv6Network(prefix), IPv4Address(address).packed)))


def nat64(**config: object) -> Nat:
    return Nat(**({"nat64": PREFIX} | config))


def ends(frame: bytes) -> tuple[str, str]:
    h = read_headers(frame)
    return str(ip_address(h.src)), str(ip_address(h.dst))


def payload(frame: bytes) -> bytes:
    h = read_headers(frame)
    return frame[h.l4_offset + 8 :]


# RFC 6052 2.4
@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_ipv4_lies_where_the_prefix_says(prefix: str, address: str) -> None:
    server = "192.0.2.33"
    assert six(server, prefix) == str(IPv6Address(address))
    assert extract(IPv6Network(prefix), IPv6Address(address).packed) == IPv4Address(server).packed
    nat = Nat(nat64=prefix, external="198.51.100.7")
    out = nat.out(udp("fd00::1", 5000, address, 53, b"hello"))
    assert ends(out) == ("198.51.100.7", server)
    back = nat.back(udp(server, 53, "198.51.100.7", src(out)[1], b"world"))
    assert ends(back) == (str(IPv6Address(address)), "fd00::1")


@pytest.mark.parametrize("make", [udp, tcp])
@pytest.mark.parametrize("vlans", [(), (7,), (1, 2, 3)])
def test_packets_pass_both_ways(make, vlans: tuple[int, ...]) -> None:  # RFC 6146 3.5
    nat = nat64()
    out = nat.out(tagged(make(C1, 5000, six(O1), 80), *vlans))
    h = read_headers(out)
    assert ends(out) == (E, O1)
    assert len(h.vlans) == len(vlans)
    assert src(nat.out(tagged(make(C1, 5000, six(O2), 99), *vlans))) == src(out), "REQ-1"
    assert src(nat.out(tagged(make(C2, 5000, six(O1), 80), *vlans))) != src(out)
    back = nat.back(tagged(make(O1, 80, E, h.src_port), *vlans))
    wanted = bytearray(tagged(make(six(O1), 80, C1, 5000), *vlans))
    wanted[14 + 4 * len(vlans) + 7] -= 1  # the hop limit
    assert back == bytes(wanted)
    assert nat.dropped(tagged(make(O1, 80, E, h.src_port ^ 1), *vlans)) == "no_mapping"


def test_echo_passes_both_ways() -> None:  # RFC 6146 3.5.3
    nat = nat64()
    out = nat.out(echo(C1, six(O1), 7))
    assert out[read_headers(out).l4_offset] == 8
    back = nat.back(echo(O1, E, src(out)[1], 0))
    h = read_headers(back)
    assert (back[h.l4_offset], h.icmp_id) == (129, 7)
    assert ends(back) == (six(O1), C1)
    assert nat.dropped(echo(C1, six(O1), 7, 129), reverse=False) == "no_mapping"
    assert nat.dropped(echo(C1, six(O1), 7, 135), reverse=False) == "protocol"


def test_ipv4_and_ipv6_hosts_share_the_ports() -> None:
    nat = nat64(ports="2000-2003", preserve_parity=False)
    used = {
        src(nat.out(frame))[1]
        for frame in (udp(C1, 1, six(O1), 2), udp(C2, 1, six(O1), 2), udp(I1, 1, O1, 2))
    }
    assert len(used) == 3


def test_ipv6_hosts_reach_each_other_by_their_external_endpoints() -> None:  # RFC 6146 3.8
    nat = nat64()
    target = src(nat.out(udp(C2, 6000, six(O1), 80)))[1]
    own = src(nat.out(udp(C1, 5000, six(O1), 80)))[1]
    done = nat._run(udp(C1, 5000, six(E), target, b"x"), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    h = read_headers(done.data)
    assert (ends(done.data), h.src_port, h.dst_port) == ((six(E), C2), own, 6000)
    assert is_sound(done.data)


@pytest.mark.parametrize(
    ("kind", "code", "kind6", "code6"),
    [
        (3, 0, 1, 0), (3, 1, 1, 0), (3, 2, 4, 1), (3, 3, 1, 4), (3, 5, 1, 0), (3, 8, 1, 0),
        (3, 9, 1, 1), (3, 10, 1, 1), (3, 13, 1, 1), (3, 15, 1, 1), (11, 0, 3, 0), (11, 1, 3, 1),
        (12, 0, 4, 0), (12, 2, 4, 0), (3, 4, 2, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [udp, tcp, echo])
def test_errors_come_back_about_the_original(  # RFC 7915 4.2, 4.3
    make, kind: int, code: int, kind6: int, code6: int
) -> None:
    nat = nat64()
    sent = (
        echo(C1, six(O1), 7) if make is echo else make(C1, 5000, six(O1), 80, *[SYN][: make is tcp])
    )
    about = nat.out(sent)
    error = bytearray(icmp_error("203.0.113.9", E, about, kind))
    error[35], error[38:42] = code, b"\0\0\x05\xb4" if (kind, code) == (3, 4) else b"\x09\0\0\0"
    error[36:38] = bytes(2)
    error[36:38] = checksum(bytes(error[34:])).to_bytes(2, "big")
    back = nat.back(bytes(error))
    h = read_headers(back)
    assert ends(back) == (six("203.0.113.9"), C1)
    assert tuple(back[h.l4_offset : h.l4_offset + 2]) == (kind6, code6)
    rest = int.from_bytes(back[h.l4_offset + 4 : h.l4_offset + 8], "big")
    assert rest == {(3, 4): 1480, (3, 2): 6}.get((kind, code), 6 if kind == 12 else 0)
    quoted = payload(back)
    assert quoted[8:40] == sent[22:54]
    assert quoted[40:48] == sent[54:62]
    assert quoted[6] == sent[20]


@pytest.mark.parametrize(("kind", "code"), [(3, 14), (3, 16), (12, 1), (4, 0)])
def test_errors_without_counterpart_are_dropped(kind: int, code: int) -> None:
    nat = nat64()
    error = bytearray(icmp_error(O2, E, nat.out(udp(C1, 5000, six(O1), 80)), kind))
    error[35] = code
    error[36:38] = bytes(2)
    error[36:38] = checksum(bytes(error[34:])).to_bytes(2, "big")
    assert nat.dropped(bytes(error)) == "protocol"


def with_rest(frame: bytes, code: int, rest: int) -> bytes:
    """An ICMPv6 error with another code and other four bytes."""
    h = read_headers(frame)
    l4 = frame[h.l4_offset :]
    return ip(*ends(frame), 58, l4[:1] + bytes((code, 0, 0)) + rest.to_bytes(4, "big") + l4[8:])


@pytest.mark.parametrize(
    ("kind", "code", "rest", "said"),
    [
        (1, 0, 0, (3, 1, 0)), (1, 1, 0, (3, 10, 0)), (1, 2, 0, (3, 1, 0)), (1, 3, 0, (3, 1, 0)),
        (1, 4, 0, (3, 3, 0)), (2, 0, 1400, (3, 4, 1380)), (3, 0, 0, (11, 0, 0)),
        (3, 1, 0, (11, 1, 0)), (4, 0, 7, (12, 0, 8 << 24)), (4, 0, 30, (12, 0, 16 << 24)),
        (4, 1, 6, (3, 2, 0)),
    ],
)  # fmt: skip
def test_errors_go_out(kind: int, code: int, rest: int, said: tuple[int, int, int]) -> None:
    """RFC 7915 5.2, 5.3."""
    nat = nat64()
    port = src(nat.out(udp(C1, 5000, six(O1), 80)))[1]
    received = nat.back(udp(O1, 80, E, port, b"data"))
    for router in (C1, "2001:db8:9::9"):
        out = nat.out(with_rest(icmp_error(router, six(O1), received, kind), code, rest))
        at = read_headers(out).l4_offset
        assert ends(out) == (E, O1)
        assert (*out[at : at + 2], int.from_bytes(out[at + 4 : at + 8], "big")) == said
        quoted = payload(out)
        assert quoted[12:20] == IPv4Address(O1).packed + IPv4Address(E).packed
        assert quoted[20:24] == struct.pack("!HH", 80, port)
        assert checksum(quoted[:20]) == 0
    damaged = bytearray(icmp_error(C1, six(O1), received))
    damaged[-1] ^= 1
    assert nat.dropped(bytes(damaged), reverse=False) == "malformed"
    other = udp(six(O1), 80, C2, 5000)
    assert nat.dropped(icmp_error(C2, six(O1), other), reverse=False) == "no_mapping"


def test_quote_leaves_extensions_behind() -> None:  # RFC 4884
    nat = nat64()
    about = nat.out(udp(C1, 5000, six(O1), 80, bytes(100)))[14:]
    extension = bytes.fromhex("2000000000080101deadbeef")
    body = bytes((11, 0, 0, 0, 0, 32, 0, 0)) + about[:128] + extension
    back = nat.back(ip(O2, E, 1, body))
    assert len(payload(back)) == 128 + 20
    assert back[read_headers(back).l4_offset + 4] == 0


def fragment6(source: str, target: str, data: bytes, offset: int, more: bool, protocol: int = 17):
    head = struct.pack("!BBHI", protocol, 0, offset | more, 0xABCD1234)
    return ip(source, target, 44, head + data)


def test_fragments_pass_both_ways() -> None:  # RFC 6146 3.4, RFC 7915 4, 5.1.1
    nat = nat64()
    whole = udp(C1, 5000, six(O1), 53, bytes(range(40)))[54:]
    first = passed(nat, fragment6(C1, six(O1), whole[:24], 0, True))
    second = passed(nat, fragment6(C1, six(O1), whole[24:], 24, False))
    assert (ends(first), ends(second)) == ((E, O1),) * 2
    assert first[18:22] == b"\x12\x34\x20\0"
    assert second[18:22] == b"\x12\x34\0\x03"
    assert is_sound(ip(E, O1, 17, first[34:] + second[34:])[:34] + first[34:] + second[34:])
    answer = udp(O1, 53, E, src(first)[1], bytes(range(40)))[34:]
    parts = [ip(O1, E, 17, answer[:24], 0x2000), ip(O1, E, 255, answer[24:], 3)]
    parts[1] = parts[1][:23] + b"\x11" + bytes(2) + parts[1][26:]
    parts[1] = parts[1][:24] + checksum(parts[1][14:34]).to_bytes(2, "big") + parts[1][26:]
    parts[0] = parts[0][:40] + answer[6:8] + parts[0][42:]
    back = [passed(nat, part, True) for part in parts]
    assert [ends(one) for one in back] == [(six(O1), C1)] * 2
    assert [one[54:62].hex() for one in back] == ["1100000100000001", "1100001800000001"]
    l4 = b"".join(one[62:] for one in back)
    assert udp(six(O1), 53, C1, 5000, bytes(range(40)))[54:] == l4
    echoed = fragment6(C1, six(O1), echo(C1, six(O1), 7)[54:], 0, True, 58)
    assert nat.dropped(echoed, reverse=False) == "fragment"
    assert nat.dropped(fragment6(C2, six(O1), whole[24:], 24, False), reverse=False) == "fragment"


def test_missing_udp_checksum_is_made() -> None:  # RFC 7915 4.5
    nat = nat64()
    port = src(nat.out(udp(C1, 5000, six(O1), 53)))[1]
    frame = udp(O1, 53, E, port, b"answer")
    back = nat.back(frame[:40] + b"\0\0" + frame[42:])
    assert payload(back) == b"answer"
    frame = udp(C1, 5000, six(O1), 53, b"hello")
    assert nat.dropped(frame[:60] + b"\0\0" + frame[62:], reverse=False) == "malformed"


def test_extension_headers() -> None:  # RFC 7915 5.1
    nat = nat64()
    l4 = udp(C1, 5000, six(O1), 53, b"hello")[54:]

    def behind(kind: int, header: bytes) -> bytes:
        return ip(C1, six(O1), kind, header + l4)

    for kind in (0, 60):
        assert payload(nat.out(behind(kind, b"\x11\0\1\4\0\0\0\0"))) == b"hello"
    assert payload(nat.out(behind(43, b"\x11\0\0\0" + bytes(4)))) == b"hello"
    assert nat.dropped(behind(43, b"\x11\0\0\1" + bytes(4)), reverse=False) == "protocol"
    assert nat.dropped(behind(51, b"\x11\1\0\0" + bytes(8)), reverse=False) == "protocol"
    assert nat.dropped(ip(C1, six(O1), 50, bytes(20)), reverse=False) == "protocol"
    assert nat.dropped(ip(C1, six(O1), 1, bytes(20)), reverse=False) == "protocol"
    port = src(nat.out(udp(C1, 5000, six(O1), 53)))[1]
    body = udp(O1, 53, E, port)[34:]
    nat.back(ip(O1, E, 17, body, options=b"\x83\x07\x08\1\2\3\4\0"))
    route = ip(O1, E, 17, body, options=b"\x83\x07\x04\1\2\3\4\0")
    assert nat.dropped(route) == "protocol", "a source route that is not over"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (six(O2), six(O1)), ("fe80::1", six(O1)), ("ff02::1", six(O1)), ("::", six(O1)),
        ("::1", six(O1)), (C1, six("224.0.0.1")), (C1, six("127.0.0.1")), (C1, six("0.0.0.1")),
        (C1, six("255.255.255.255")),
    ],
)  # fmt: skip
def test_nothing_goes_between_what_are_no_hosts(source: str, target: str) -> None:
    assert nat64().dropped(udp(source, 1, target, 2), reverse=False) == "unroutable"


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "203.0.113.1"])
def test_well_known_prefix_is_for_global_addresses(address: str) -> None:  # RFC 6052 3.1
    nat = Nat(nat64="64:ff9b::/96")
    assert nat.dropped(udp(C1, 1, six(address, "64:ff9b::/96"), 2), reverse=False) == "unroutable"
    assert ends(nat.out(udp(C1, 1, six("8.8.8.8", "64:ff9b::/96"), 2))) == (E, "8.8.8.8")
    nat64().out(udp(C1, 1, six(address), 2))


def test_other_ipv6_passes() -> None:
    nat = nat64()
    for frame in (udp(C1, 1, C2, 2), echo(C1, C2, 1)):
        assert nat._run(frame, False) == Packet(frame, port=3)
    frame = udp(C1, 1, six(O1), 2)
    assert nat._run(frame, True) == Packet(frame, True, port=3)
    assert Nat()._run(frame, False) == Packet(frame, port=3)


def hops(frame: bytes, count: int) -> bytes:
    return frame[:21] + bytes([count]) + frame[22:]


def test_hop_limit_falls_without_a_router() -> None:  # RFC 7915 4.1, 5.1
    nat = nat64(icmp_errors_per_s=100)
    assert nat.out(hops(udp(C1, 1, six(O1), 2), 9))[22] == 8
    assert nat.dropped(hops(udp(C1, 1, six(O1), 2), 1), reverse=False) == "ttl"
    (told,) = nat.runner.originated
    assert told.data[54:56] == b"\3\0"
    assert ends(told.data) == (six(E), C1)
    assert is_sound(told.data)
    port = src(nat.out(udp(C1, 1, six(O1), 2)))[1]
    frame = udp(O1, 2, E, port)
    last = frame[:22] + b"\1" + bytes(1) + frame[24:]
    last = last[:24] + bytes(2) + last[26:]
    last = (
        last[:23]
        + b"\x11"
        + checksum(last[14:23] + b"\x11" + last[24:34]).to_bytes(2, "big")
        + last[26:]
    )
    assert nat.dropped(last) == "ttl"
    (told,) = nat.runner.originated
    assert told.data[34:36] == b"\x0b\0"
    assert ends(told.data) == (E, O1)
    assert payload(told.data)[20:24] == struct.pack("!HH", 2, port)
    assert is_sound(told.data)
    set_routed(nat.kernel, True)
    assert nat.out(hops(udp(C1, 1, six(O1), 2), 9))[22] == 9, "the router has counted itself"


def test_what_becomes_too_big_is_answered() -> None:  # RFC 7915 4, RFC 4787 REQ-13
    nat = nat64(icmp_errors_per_s=100)
    set_mtu(nat.kernel, 0, 1400)
    nat.out(udp(C1, 1, six(O1), 2, bytes(1400 - 28)))
    assert nat.dropped(udp(C1, 1, six(O1), 2, bytes(1400 - 27)), reverse=False) == "too_big"
    (told,) = nat.runner.originated
    assert told.data[54:62] == b"\2\0" + told.data[56:58] + (1420).to_bytes(4, "big")
    assert ends(told.data) == (six(E), C1)
    assert is_sound(told.data)
    port = src(nat.out(udp(C1, 1, six(O1), 2)))[1]
    big = udp(O1, 2, E, port, bytes(1400 - 47))
    assert nat.dropped(big) == "too_big", "another host should have cut it"
    assert nat.runner.originated == []
    uncut = ip(O1, E, 17, big[34:], 0x4000)
    assert nat.dropped(uncut) == "too_big"
    (told,) = nat.runner.originated
    assert told.data[34:36] + told.data[40:42] == b"\3\4" + (1380).to_bytes(2, "big")
    assert ends(told.data) == (E, O1)
    assert is_sound(told.data)


def test_refused_ipv6_host_is_told() -> None:  # RFC 5508 REQ-8
    nat = nat64(icmp_errors_per_s=100, max_per_subscriber=1)
    nat.out(udp(C1, 1, six(O1), 2))
    done = nat._run(udp(C1, 2, six(O1), 2), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data[54:56] == b"\1\1"
    assert ends(done.data) == (six(E), C1)
    assert is_sound(done.data)


def test_host_is_forgotten_with_its_last_mapping() -> None:
    nat = nat64(max_sessions=4)
    for number in range(1000):
        nat.out(udp(f"2001:db8:1::{number:x}", 1, six(O1), 2))
    nat.wait(400)
    frames = [udp(f"2001:db8:2::{number:x}", 1, six(O1), 2) for number in range(4)]
    assert {ends(nat.out(frame))[0] for frame in frames} == {E}


PORTS = st.sampled_from([1, 2, 2000, 2001])


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    reverse = draw(st.booleans())
    a, b = draw(st.sampled_from([C1, C2, "fe80::1"])), draw(st.sampled_from([O1, O2, E]))
    b = six(b)
    if reverse:
        a, b = draw(st.sampled_from([O1, O2])), E
    p, q, kind = draw(PORTS), draw(PORTS), draw(st.integers(0, 9))
    if kind < 3:
        made = tcp(a, p, b, q, draw(st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST])))
    elif kind < 5:
        made = udp(a, p, b, q, bytes(draw(st.sampled_from([0, 3, 1300]))))
    elif kind == 5:
        made = echo(a, b, p, draw(st.sampled_from([8, 0] if reverse else [128, 129, 135])))
    elif kind < 8:
        about = draw(st.sampled_from([tcp(b, p, a, q), udp(b, p, a, q), echo(b, a, p)]))
        made = icmp_error(
            a, b, about, draw(st.sampled_from([1, 2, 3, 4, 11, 12])), draw(st.integers(40, 70))
        )
        h = read_headers(made)
        l4 = made[h.l4_offset :]
        l4 = (
            l4[:1]
            + bytes((draw(st.integers(0, 5)),))
            + l4[2:4]
            + draw(st.sampled_from([bytes(4), b"\0\0\5\0", b"\0\0\0\7", b"\7\0\0\0"]))
            + l4[8:]
        )
        made = ip(a, b, 1 if reverse else 58, l4)
    elif reverse:
        made = ip(
            a,
            b,
            draw(st.sampled_from([17, 6, 1])),
            draw(st.binary(min_size=8, max_size=30)),
            draw(st.sampled_from([4, 0x2000, 0x2001, 0x4000])),
        )
    else:
        data = draw(st.binary(min_size=8, max_size=40))
        made = fragment6(
            a,
            b,
            data,
            draw(st.sampled_from([0, 0, 32])),
            draw(st.booleans()),
            draw(st.sampled_from([17, 6, 58, 47])),
        )
    if draw(st.integers(0, 4)) == 0:
        at = 22 if reverse else 21
        made = made[:at] + b"\1" + made[at + 1 :]
    if draw(st.integers(0, 9)) == 0:
        made = tagged(made, 5)
    if draw(st.integers(0, 19)) == 0:
        made = made[: draw(st.integers(0, len(made)))]
    return Packet(made, reverse, port=1)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "nat64": st.just(PREFIX),
            "ports": st.sampled_from(["2000-2002", "1-65535"]),
            "max_per_subscriber": st.sampled_from([0, 2]),
            "filtering": st.sampled_from(["endpoint-independent", "address-and-port-dependent"]),
            "max_sessions": st.sampled_from([3, 64]),
            "icmp_errors_per_s": st.sampled_from([0, 100_000]),
        }
    ),
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 6, 130, 400]), packets()), max_size=30),
    st.booleans(),
    st.sampled_from([0, 1280]),
)
def test_kernel_agrees_with_model(values: dict, steps: list, is_routed: bool, mtu: int) -> None:
    config = load(values)
    kernel, model, now_s = make_kernel(config, KEY), NatModel(config, KEY), 1
    set_routed(kernel, is_routed)
    set_mtu(kernel, 0, mtu)
    model.is_routed, model.link_mtu = is_routed, mtu
    runner = KernelRunner(kernel, nb_loaned=64)
    for step, packet in steps:
        now_s += step
        (result,) = runner.run([packet], now_s * NS)
        model.sent.clear()
        model.answer_unsolicited(now_s * NS)
        try:
            expected = model.translate(packet.data, packet.reverse, now_s * NS)
        except Drop as drop:
            assert result.verdict == DROP
            assert REASONS[result.destination] == drop.args[0]
        else:
            verdict, port = (OUT, 1) if expected.is_hairpin else (NEXT, 0)
            assert (result.verdict, result.destination) == (verdict, port)
            assert result.data == expected.data
        assert [one.data for one in runner.originated] == model.sent
