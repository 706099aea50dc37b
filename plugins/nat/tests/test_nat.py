# SPDX-License-Identifier: Apache-2.0
"""The NAT: requirements of the RFCs as cases, and the C kernel against the model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_nat.config import NatConfig, load
from onvm_nf_nat.kernel import inherited, make_kernel, restore, save
from onvm_nf_nat.model import Drop, NatModel

from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing.frames import (
    ACK,
    FIN,
    RST,
    SYN,
    echo,
    icmp_error,
    ip,
    is_sound,
    tcp,
    udp,
)
from onvm_sdk.testing.kernel import DROP, NEXT, OUT, KernelRunner, Packet

REASONS = ["malformed", "fragment", "protocol", "no_mapping", "filtered", "exhausted", "table_full"]
NS = 1_000_000_000
I1, I2, O1, O2, E = "10.0.0.1", "10.0.0.2", "198.51.100.1", "198.51.100.2", "192.0.2.1"


class Nat:
    """One NAT with a clock."""

    def __init__(self, **config: object) -> None:
        self.use(load(config))
        self.now_s = 1

    def use(self, config: NatConfig) -> None:
        self.kernel = make_kernel(config)
        self.runner = KernelRunner(self.kernel)

    def wait(self, seconds: int) -> None:
        """Let time pass, with enough bursts for a sweep of all slots."""
        self.now_s += seconds
        for _ in range(40):
            self.now_s += 1
            self.runner.run([], self.now_s * NS)

    def _run(self, frame: bytes, reverse: bool) -> Packet:
        packet = Packet(frame, reverse, port=3)
        return self.runner.run([packet], self.now_s * NS)[0]

    def out(self, frame: bytes) -> bytes:
        """Send one packet outwards; it must pass, with right checksums."""
        done = self._run(frame, False)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def back(self, frame: bytes) -> bytes:
        done = self._run(frame, True)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def dropped(self, frame: bytes, *, reverse: bool = True) -> str:
        done = self._run(frame, reverse)
        assert done.verdict == DROP
        return REASONS[done.destination]


def src(frame: bytes) -> tuple[bytes, int]:
    h = read_headers(frame)
    return h.src, h.icmp_id if h.protocol == 1 else h.src_port


MAKERS = [udp, tcp]


@pytest.mark.parametrize("make", MAKERS)
def test_mapping_is_endpoint_independent(make) -> None:  # RFC 4787 REQ-1, RFC 5382 REQ-1
    nat = Nat()
    assert src(nat.out(make(I1, 5000, O1, 80))) == src(nat.out(make(I1, 5000, O2, 99)))


@pytest.mark.parametrize("make", MAKERS)
def test_ports_are_not_overloaded(make) -> None:  # RFC 4787 REQ-3
    nat = Nat()
    assert src(nat.out(make(I1, 5000, O1, 80)))[1] == 5000
    assert src(nat.out(make(I2, 5000, O1, 80)))[1] == 5002, "next free one of equal parity"


@pytest.mark.parametrize("make", MAKERS)
def test_reply_comes_back(make) -> None:
    nat = Nat()
    nat.out(make(I1, 5000, O1, 80))
    assert nat.back(make(O1, 80, E, 5000)) == make(O1, 80, I1, 5000)
    assert nat.dropped(make(O1, 80, E, 5001)) == "no_mapping"
    assert nat.dropped(make(O1, 80, I1, 5000)) == "no_mapping"


@pytest.mark.parametrize(
    ("filtering", "other_port", "other_host"),
    [
        ("endpoint-independent", True, True),
        ("address-dependent", True, False),
        ("address-and-port-dependent", False, False),
    ],
)
def test_filtering(filtering: str, other_port: bool, other_host: bool) -> None:  # RFC 4787 REQ-8
    nat = Nat(filtering=filtering)
    nat.out(udp(I1, 5000, O1, 80))
    nat.back(udp(O1, 80, E, 5000))
    for frame, allowed in ((udp(O1, 81, E, 5000), other_port), (udp(O2, 80, E, 5000), other_host)):
        if allowed:
            nat.back(frame)
        else:
            assert nat.dropped(frame) == "filtered"


def test_udp_idle_time_and_refresh() -> None:  # RFC 4787 REQ-5, REQ-6
    nat = Nat(max_sessions=1024)
    nat.out(udp(I1, 5000, O1, 80))
    nat.wait(200)
    nat.out(udp(I1, 5000, O1, 80))
    nat.wait(200)
    nat.back(udp(O1, 80, E, 5000))
    nat.wait(60)
    assert nat.dropped(udp(O1, 80, E, 5000)) == "no_mapping", "inbound did not refresh"


def test_tcp_idle_times() -> None:  # RFC 5382 REQ-5
    nat = Nat(max_sessions=1024)
    nat.out(tcp(I1, 1, O1, 80, SYN))
    nat.out(tcp(I2, 2, O1, 80, SYN))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80, SYN)))[1], SYN | ACK))
    nat.wait(240)
    assert nat.runner.counters[8] == 1, "only the half-open one is gone"
    nat.out(tcp(I2, 2, O1, 80, FIN | ACK))
    nat.back(tcp(O1, 80, E, src(nat.out(tcp(I2, 2, O1, 80)))[1], FIN | ACK))
    nat.wait(240)
    assert nat.runner.counters[8] == 2


@pytest.mark.parametrize("make", MAKERS)
def test_hairpin_has_external_source(make) -> None:  # RFC 4787 REQ-9, RFC 5382 REQ-8
    nat = Nat()
    nat.out(make(I2, 6000, O1, 80))
    done = nat._run(make(I1, 5000, E, 6000), False)
    assert (done.verdict, done.destination) == (OUT, 3)
    assert done.data == make(E, 5000, I2, 6000)


def test_simultaneous_open() -> None:  # RFC 5382 REQ-2
    nat = Nat(filtering="address-and-port-dependent")
    nat.out(tcp(I1, 5000, O1, 80, SYN))
    nat.back(tcp(O1, 80, E, 5000, SYN))
    nat.out(tcp(I1, 5000, O1, 80, SYN | ACK))
    nat.back(tcp(O1, 80, E, 5000, SYN | ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, 5000, ACK))


def test_reset_shortens_the_idle_time_and_ends_nothing() -> None:  # RFC 7857 2.2
    nat = Nat(max_sessions=1024)
    nat.out(tcp(I1, 5000, O1, 80, SYN))
    nat.back(tcp(O1, 80, E, 5000, SYN | ACK))
    nat.back(tcp(O1, 80, E, 5000, RST))
    nat.out(tcp(I1, 5000, O1, 80, ACK))
    nat.wait(300)
    nat.back(tcp(O1, 80, E, 5000, ACK))
    nat.back(tcp(O1, 80, E, 5000, RST))
    nat.wait(240)
    assert nat.dropped(tcp(O1, 80, E, 5000, ACK)) == "no_mapping"


def test_error_ends_no_mapping() -> None:  # RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6
    nat = Nat()
    sent = nat.out(tcp(I1, 5000, O1, 80))
    nat.back(icmp_error(O1, E, sent))
    nat.back(tcp(O1, 80, E, 5000))


def test_echo_identifiers_are_mapped() -> None:  # RFC 5508 REQ-1
    nat = Nat()
    first, second = src(nat.out(echo(I1, O1, 2000))), src(nat.out(echo(I2, O1, 2000)))
    assert (first[1], second[1]) == (2000, 2001)
    assert nat.back(echo(O1, E, 2001, 0)) == echo(O1, I2, 2000, 0)


@pytest.mark.parametrize("size", [28, 40, 48])
@pytest.mark.parametrize("make", [udp, tcp])
def test_error_comes_back(make, size: int) -> None:  # RFC 5508 REQ-3..5
    nat = Nat()
    nat.out(make(I2, 5000, O1, 80))
    sent = nat.out(make(I1, 5000, O1, 80))
    assert nat.back(icmp_error("203.0.113.9", E, sent, size=size)) == icmp_error(
        "203.0.113.9", I1, make(I1, 5000, O1, 80), size=size
    )
    assert nat.dropped(icmp_error(O1, E, make(E, 4000, O1, 80))) == "no_mapping"
    assert nat.dropped(icmp_error(O1, E, make(E, 5002, O1, 81))) == "no_mapping"
    broken = bytearray(icmp_error(O1, E, sent))
    broken[-1] ^= 1
    assert nat.dropped(bytes(broken)) == "malformed"


def test_error_goes_out() -> None:  # RFC 5508 REQ-5
    nat = Nat()
    nat.out(udp(I2, 5000, O1, 80))
    nat.out(udp(I1, 5000, O1, 80))
    received = nat.back(udp(O1, 80, E, 5002))
    assert nat.out(icmp_error(I1, O1, received)) == icmp_error(E, O1, udp(O1, 80, E, 5002))
    assert nat.out(icmp_error("10.9.9.9", O1, received)) == icmp_error(E, O1, udp(O1, 80, E, 5002))


def test_exhaustion_is_counted_and_spares_others() -> None:  # RFC 6888 REQ-4 in spirit
    nat = Nat(ports="2000-2003")
    for port in range(4):
        nat.out(udp(I1, port, O1, 80))
    assert nat.dropped(udp(I1, 4, O1, 80), reverse=False) == "exhausted"
    nat.out(udp(I1, 3, O2, 80))
    nat.out(tcp(I1, 4, O1, 80))


def test_what_is_not_translated() -> None:
    nat = Nat(inside=["10.0.0.0/8"])
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    for frame in (arp, udp("2001:db8::1", 1, "2001:db8::2", 2), udp("172.16.0.1", 1, O1, 2)):
        assert nat._run(frame, False) == Packet(frame, port=3)
    back = udp(O1, 2, "172.16.0.1", 1)
    assert nat._run(back, True) == Packet(back, True, port=3)
    assert nat.dropped(ip(I1, O1, 47, bytes(8)), reverse=False) == "protocol"
    assert nat.dropped(ip(I1, O1, 17, bytes(8), 0x2000), reverse=False) == "fragment"
    assert nat.dropped(ip(I1, O1, 17, bytes(8), 5), reverse=False) == "fragment"
    assert nat.dropped(echo(I1, O1, 1, 5), reverse=False) == "protocol"
    assert nat.dropped(udp(I1, 1, O1, 2)[:-1], reverse=False) == "malformed"


def test_udp_without_checksum_stays_without() -> None:  # RFC 3022 4.1
    frame = udp(I1, 5000, O1, 80, b"data")
    frame = frame[:40] + b"\0\0" + frame[42:]
    done = Nat().out(frame)
    assert done[40:42] == b"\0\0"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"external": "1.2.3"}, "nat.toml: external: '1.2.3': expected an IPv4 address"),
        ({"ports": "0-70000"}, "nat.toml: ports: '0-70000': expected ports within"),
        ({"inside": ["10.0.0.1/8"]}, "nat.toml: inside[0]: '10.0.0.1/8': expected an IPv4 network"),
        ({"udp_s": 60}, "nat.toml: udp_s: 60: expected `int` >= 120"),
        ({"filtering": "no"}, "nat.toml: filtering: 'no': expected one of address-and-port-"),
        ({"colour": 1}, "nat.toml: colour: 1: expected one of external, "),
    ],
)
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="nat.toml")
    assert str(caught.value).startswith(message)


PORTS = st.sampled_from([1, 2, 3, 2000, 2001, 2002])
INSIDE, OUTSIDE = st.sampled_from([I1, I2, "172.16.0.1"]), st.sampled_from([O1, O2, E])


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    reverse = draw(st.booleans())
    a, b = draw(INSIDE), draw(OUTSIDE)
    if reverse:
        a, b = draw(OUTSIDE), draw(st.sampled_from([E, E, E, I1, "172.16.0.1"]))
    p, q = draw(PORTS), draw(PORTS)
    kind = draw(st.integers(0, 9))
    if kind < 4:
        made = tcp(a, p, b, q, draw(st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST])))
    elif kind < 6:
        made = udp(a, p, b, q, draw(st.binary(max_size=3)))
    elif kind == 6:
        made = echo(a, b, p, draw(st.sampled_from([8, 0, 13])))
    elif kind < 9:
        inner = draw(st.sampled_from([tcp(b, p, a, q), udp(b, p, a, q), echo(b, a, p)]))
        error = draw(st.sampled_from([3, 11, 12, 5]))
        made = icmp_error(a, b, inner, error, draw(st.integers(18, 48)))
    else:
        made = ip(
            a,
            b,
            draw(st.sampled_from([6, 17, 1, 47])),
            draw(st.binary(max_size=30)),
            draw(st.sampled_from([0, 0, 1, 0x2000])),
        )
    if draw(st.integers(0, 19)) == 0:
        made = made[: draw(st.integers(0, len(made)))]
    return Packet(made, reverse, port=1)


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {
            "ports": st.sampled_from(["2000-2002", "2000-2009", "1024-65535"]),
            "inside": st.sampled_from([[], ["10.0.0.0/8"]]),
            "filtering": st.sampled_from(
                ["endpoint-independent", "address-dependent", "address-and-port-dependent"]
            ),
            "preserve_parity": st.booleans(),
            "inbound_refresh": st.booleans(),
            "max_sessions": st.sampled_from([8, 64]),
            "tcp_established_s": st.just(500),
        }
    ),
    st.lists(
        st.tuples(st.sampled_from([0, 1, 70, 250, 400]), st.lists(packets(), max_size=40)),
        max_size=4,
    ),
)
def test_kernel_agrees_with_model(values: dict, bursts: list) -> None:
    config = load(values)
    runner, model, now_s = KernelRunner(make_kernel(config)), NatModel(config), 1
    runner.run([], now_s * NS)
    for step, burst in bursts:
        now_s += step
        model.expire(now_s * NS)
        done = runner.run(burst, now_s * NS)
        for packet, result in zip(burst, done, strict=True):
            try:
                expected = model.translate(packet.data, packet.reverse, now_s * NS)
            except Drop as drop:
                assert result.verdict == DROP
                assert REASONS[result.destination] == drop.args[0]
                continue
            verdict, port = (OUT, 1) if expected.is_hairpin else (NEXT, 0)
            assert (result.verdict, result.destination) == (verdict, port)
            assert result.data == expected.data


@settings(max_examples=300)
@given(st.lists(st.tuples(st.binary(max_size=120), st.booleans()), max_size=8))
def test_garbage_is_survived(tails: list) -> None:
    for result in GARBAGE.runner.run(
        [Packet(bytes(12) + b"\x08\x00E" + tail, reverse) for tail, reverse in tails]
    ):
        assert result.verdict in (NEXT, DROP, OUT)


GARBAGE = Nat()


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
    busy.out(udp(I2, 1502, O1, 53))
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


def test_instance_has_a_block_of_its_own() -> None:
    config = load({"ports": "1000-1999", "blocks": 4})
    assert config.of_instance("nat-2").ports == range(1250, 1500)
    assert config.of_instance("").ports == range(1000, 2000)
    assert load({}).of_instance("nat-1").ports == load({}).ports
    assert load({"blocks": 0}).of_instance("nat-7").ports == load({}).ports
    with pytest.raises(ConfigError, match="blocks: 4: expected at least 5"):
        config.of_instance("nat-5")
    with pytest.raises(ConfigError, match="blocks: 1: expected at least 2"):
        load({}).of_instance("nat-2")
    with pytest.raises(ConfigError, match="expected at most 3"):
        load({"ports": "1-3", "blocks": 4}).of_instance("nat-1")
