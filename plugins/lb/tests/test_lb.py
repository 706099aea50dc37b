# SPDX-License-Identifier: Apache-2.0
"""The load balancer: Maglev's properties, cases by hand, and the C kernel against the model."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onvm_nf_lb.config import LbConfig, load
from onvm_nf_lb.kernel import Balancer, Plan, Usage, fill_table, read_usages
from onvm_nf_lb.model import Drop, LbModel
from onvm_nf_lb.model_maglev import maglev_fill, maglev_table, permutation
from onvm_nf_lb.shares import share_out
from shared_data import need_data

from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
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

REASONS = [
    "malformed",
    "fragment",
    "no_backend",
    "table_full",
    "conflict",
    "no_service",
    "no_connection",
    "too_big",
]
NS = 1_000_000_000
VIP, CLIENT = "198.51.100.10", "192.0.2.77"
NAMES = st.lists(st.text("abcdef", min_size=1), min_size=1, max_size=20, unique=True)


@settings(max_examples=50)
@given(NAMES, st.sampled_from([23, 101, 251]))
def test_equal_backends_differ_by_one_slot_at_most(names: list[str], size: int) -> None:
    shares = Counter(maglev_table(names, size))
    assert len(shares) == len(names)
    assert max(shares.values()) - min(shares.values()) <= 1


@settings(max_examples=50)
@given(NAMES, st.randoms())
def test_order_of_backends_does_not_matter(names: list[str], random) -> None:
    mixed = random.sample(names, len(names))
    owners = [names[i] for i in maglev_table(names, 101)]
    assert owners == [mixed[i] for i in maglev_table(mixed, 101)]


def test_few_slots_move_when_a_backend_goes() -> None:
    names = [f"backend{i}" for i in range(10)]
    before = [names[i] for i in maglev_table(names, 5003)]
    after = [names[i] for i in maglev_table(names[:-1], 5003)]
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != names[-1])
    assert moved < 0.05 * len(before)


def test_weights_share_in_proportion() -> None:
    shares = Counter(maglev_table(["a", "b", "c"], 5003, [1, 2, 5]))
    assert [round(8 * shares[i] / 5003) for i in range(3)] == [1, 2, 5]


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0, 1, 2, 9, 1000]), min_size=1, max_size=12).filter(any),
    st.sampled_from([13, 101, 251]),
)
def test_native_table_is_the_models(weights: list[int], size: int) -> None:
    permutations = [permutation(str(i), size) for i in range(len(weights))]
    native = list(fill_table(permutations, size, weights))
    assert native == list(maglev_fill(permutations, size, weights))


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0, 1, 3, 1000]), min_size=1, max_size=60).filter(any))
def test_every_positive_weight_has_a_slot(weights: list[int]) -> None:
    shares = Counter(maglev_table([f"b{i:03}" for i in range(len(weights))], 251, weights))
    assert set(shares) == {i for i, weight in enumerate(weights) if weight}


def test_published_tables() -> None:
    checked = 0
    for vector in json.loads(need_data("lb", "maglev_vectors.json").read_text())["vectors"]:
        size, backends = vector["table_size"], vector.get("backends")
        if backends is None:
            steps = [(p[0], (p[1] - p[0]) % size) for p in vector["permutations"]]
        else:
            steps = [(b["offset"], b["skip"]) for b in backends]
        names = [b["num"] for b in backends] if backends else range(len(steps))
        expected = vector.get("table_all") or vector["table"]
        equal = [1] * len(steps)
        for table in (fill_table(steps, size, equal), maglev_fill(steps, size, equal)):
            assert [names[i] for i in table] == expected
        checked += 1
    assert checked >= 7


def config_of(backends: int = 4, **more: object) -> dict:
    listed = [{"address": f"203.0.113.{i + 1}"} for i in range(backends)]
    vips = [{"address": VIP, "protocol": p, "backends": listed} for p in ("tcp", "udp")]
    return {"vips": vips, "table_size": 251, **more}


def one(runner: KernelRunner, frame: bytes, now_s: int = 1) -> Packet:
    return runner.run([Packet(frame)], now_s * NS)[0]


def test_connection_goes_to_one_backend_and_back() -> None:
    runner = KernelRunner(Balancer(load(config_of())).kernel)
    for make in (tcp, udp):
        there = one(runner, make(CLIENT, 5000, VIP, 80))
        h = read_headers(there.data)
        assert h.dst[:3] == bytes((203, 0, 113))
        assert is_sound(there.data)
        assert one(runner, make(CLIENT, 5000, VIP, 80)) == there
        backend = ".".join(map(str, h.dst))
        back = one(runner, make(backend, 80, CLIENT, 5000))
        assert back.data == make(VIP, 80, CLIENT, 5000)


def test_running_connections_stay_when_backends_change() -> None:
    balancer = Balancer(load(config_of(4)))
    runner = KernelRunner(balancer.kernel)
    frames = [tcp(CLIENT, port, VIP, 80) for port in range(64)]
    before = [one(runner, frame) for frame in frames]
    balancer.update(load(config_of(1)))
    assert [one(runner, frame) for frame in frames] == before
    assert read_headers(one(runner, tcp(CLIENT, 999, VIP, 80)).data).dst[3] == 1


def test_ports_and_versions() -> None:
    backends = [{"address": "2001:db8::1", "port": 8080}]
    config = {"vips": [{"address": "2001:db8::f", "port": 80, "backends": backends}]}
    runner = KernelRunner(Balancer(load(config)).kernel)
    there = one(runner, tcp("2001:db8::c", 5, "2001:db8::f", 80))
    assert there.data == tcp("2001:db8::c", 5, "2001:db8::1", 8080)
    other = one(runner, tcp("2001:db8::c", 5, "2001:db8::f", 81))
    assert (other.verdict, REASONS[other.destination]) == (DROP, "no_service")


def test_client_affinity() -> None:
    config = config_of()
    config["vips"][0]["affinity"] = "client"
    runner = KernelRunner(Balancer(load(config)).kernel)
    chosen = {read_headers(one(runner, tcp(CLIENT, p, VIP, 80)).data).dst for p in range(30)}
    assert len(chosen) == 1


def test_drops_and_passes() -> None:
    runner = KernelRunner(Balancer(load(config_of(0))).kernel)
    later = ip(CLIENT, VIP, 17, bytes(8), 5)
    reasons = [
        (tcp(CLIENT, 1, VIP, 80), "no_backend"),
        (later, "fragment"),
        (tcp(CLIENT, 1, VIP, 80)[:-1], "malformed"),
        (ip(CLIENT, VIP, 47, bytes(8)), "no_service"),
        (echo(CLIENT, VIP, 1, 13), "no_service"),
        (icmp_error(CLIENT, VIP, tcp(VIP, 80, CLIENT, 1)), "no_connection"),
        (icmp_error(CLIENT, VIP, ip(VIP, CLIENT, 47, bytes(8))), "malformed"),
    ]
    for frame, reason in reasons:
        done = one(runner, frame)
        assert (done.verdict, REASONS[done.destination]) == (DROP, reason)
    for frame in (
        echo(CLIENT, "192.0.2.1", 1),
        ip(CLIENT, "192.0.2.1", 17, bytes(8), 5),
        bytes(60),
    ):
        assert one(runner, frame) == Packet(frame)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"table_size": 100}, "lb.toml: table_size: 100: expected a prime"),
        (
            {"vips": [{"address": "x", "backends": []}]},
            "lb.toml: vips[0].address: 'x': expected an IP",
        ),
        (
            {"vips": [{"address": VIP, "backends": [{"address": "::1"}]}]},
            "lb.toml: vips[0].backends[0].address: '::1': expected an IPv4",
        ),
        (
            {"vips": [{"address": VIP, "backends": [{"address": "192.0.2.1", "weight": -1}]}]},
            "lb.toml: vips[0].backends[0].weight: -1: expected `int` >= 0",
        ),
        (
            {"vips": [{"address": VIP, "backends": [{"address": VIP}]}]},
            f"lb.toml: vips[0].backends[0].address: '{VIP}': expected the address of a server",
        ),
        (
            {"vips": [{"address": VIP, "backends": [{"address": "192.0.2.1"}] * 2}]},
            "lb.toml: vips[0].backends[1].address: '192.0.2.1': expected backends that differ",
        ),
        (
            {"vips": [{"address": VIP, "backends": [{"address": "224.0.0.1"}]}]},
            "lb.toml: vips[0].backends[0].address: '224.0.0.1': expected the address of one host",
        ),
        *(
            (
                {"vips": [{"address": address, "backends": []}]},
                f"lb.toml: vips[0].address: '{address}': expected the address of one host",
            )
            for address in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1")
        ),
        *(
            (
                {"vips": [{"address": VIP, "port": 80, **more}]},
                f"lb.toml: vips[0].{message}",
            )
            for more, message in (
                ({"check": {"type": "ping"}}, "check.type: 'ping': expected one of"),
                ({"check": {"type": "tcp", "rise": 0}}, "check.rise: 0: expected `int` >= 1"),
                ({"check": {"every": 1}}, "check.every: 1: expected one of type, interval_s,"),
                ({"check": {"type": "tcp", "path": "/"}}, "check.path: '/': expected it with"),
                ({"check": {"type": "http", "path": "x"}}, "check.path: 'x': expected a path"),
                ({"check": {"type": "http", "status": "2xx"}}, "check.status: '2xx': expected st"),
                ({"check": {"type": "http", "host": "a b"}}, "check.host: 'a b': expected the"),
                ({"check": {"type": "icmp", "port": 8}}, "check.port: 8: expected none with"),
                ({"check": {"type": "tcp", "command": ["x"]}}, "check.command: 'x': expected it"),
                ({"check": {"type": "script"}}, "check.command: '': expected a program"),
                ({"down": "drop"}, "down: 'drop': expected one of keep, reset"),
                ({"protocol": "udp", "passive": {}}, "passive: 'udp': expected it with the"),
                ({"passive": {"failures": 0}}, "passive.failures: 0: expected `int` >= 1"),
                ({"slow_start_s": -1}, "slow_start_s: -1: expected `float` >= 0"),
                ({"backends_file": "pool"}, "backends_file: 'pool': expected an absolute path"),
                (
                    {"port": 0, "check": {"type": "tcp"}, "backends": [{"address": "192.0.2.1"}]},
                    "backends[0].address: '192.0.2.1': expected a backend with a port, or check.",
                ),
            )
        ),
        ({"report": "lb.json"}, "lb.toml: report: 'lb.json': expected an absolute path"),
        (
            {"max_connections": 1 << 25},
            "lb.toml: max_connections: 33554432: expected `int` <= 16777216",
        ),
        (
            {"vips": [{"address": VIP, "backends": []}] * 2},
            "lb.toml: vips[1].address: '198.51.100.10': expected VIPs that differ",
        ),
    ],
)
def test_mistakes_name_file_field_value_and_expectation(config: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config, file="lb.toml")
    assert str(caught.value).startswith(message)


V6, C6, B6 = "2001:db8::f", "2001:db8:c::1", "2001:db8:b::1"
CLIENTS = {4: ["192.0.2.1", "192.0.2.2", "203.0.113.1", "203.0.113.2", VIP], 6: [C6, B6, V6]}
SERVERS = {4: [VIP, VIP, "198.51.100.11", "203.0.113.1", "203.0.113.2"], 6: [V6, V6, B6]}
PORTS = st.sampled_from([80, 443, 8080])
FLAGS = st.sampled_from([SYN, SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([4, 4, 6]))
    a, b = draw(st.sampled_from(CLIENTS[version])), draw(st.sampled_from(SERVERS[version]))
    p, q = draw(PORTS), draw(PORTS)
    if draw(st.booleans()):
        a, b = b, a
    kind = draw(st.integers(0, 11))
    if kind < 5:
        content = draw(st.sampled_from([b"", b"x", b"data", b"x" * 1290]))
        may_cut = version == 6 or draw(st.booleans())
        made = tcp(a, p, b, q, draw(FLAGS), content, fragment=0 if may_cut else 0x4000)
    elif kind < 7:
        made = udp(a, p, b, q, draw(st.sampled_from([b"", b"odd"])))
    elif kind == 7:
        made = echo(a, b, 1)
    elif kind < 10:
        about = draw(st.sampled_from([tcp, udp]))(b, q, a, p)
        made = icmp_error(
            draw(st.sampled_from([a, a, CLIENTS[version][0]])),
            draw(st.sampled_from([b, b, SERVERS[version][0]])),
            about,
            size=draw(st.sampled_from([48, 28, 41, 10, 60, 68])),
        )
    elif kind == 10 and version == 4:
        fragment = draw(st.sampled_from([0, 1, 0x2000]))
        made = ip(
            a, b, draw(st.sampled_from([6, 17, 47, 1])), draw(st.binary(max_size=30)), fragment
        )
    else:
        made = ip(a, b, draw(st.sampled_from([47, 58, 1, 132])), draw(st.binary(max_size=30)))
    if draw(st.integers(0, 9)) == 0:
        made = made[:12] + b"\x81\0\x20\x05" + made[12:]
    return made[: draw(st.integers(0, len(made)))] if draw(st.integers(0, 19)) == 0 else made


BURSTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 20, 40, 250, 400]),
        st.integers(0, 3),
        st.sampled_from([3, 3, 3, 0, 1, 2]),
        st.lists(frames(), max_size=40),
    ),
    max_size=5,
)


def agreement_config(
    capacity: int, port: int, backends: int, rejects: bool, affinity: str, forward: str
) -> dict[str, Any]:
    made = config_of(
        backends,
        max_connections=capacity,
        tcp_established_s=300,
        udp_s=240,
        reject=rejects,
        tunnel_sources=["192.0.2.254", "2001:db8:a::1"],
        tunnel_mtu=1328,
    )
    for vip in made["vips"]:
        vip["backends"] = [
            {**b, "port": port, "weight": i, "backup": i > 1}
            for i, b in enumerate(vip["backends"], 0)
        ]
        vip["affinity"] = affinity
        vip["down"] = "reset" if rejects else "keep"
    made["vips"][0]["passive"] = {"failures": 2, "window_s": 30}
    made["vips"].append({**made["vips"][0], "address": "198.51.100.11", "port": 80})
    made["vips"].append({**made["vips"][1], "port": 443, "backends": made["vips"][1]["backends"]})
    sixes = [{"address": B6, "port": port}][: min(backends, 1)]
    for protocol in ("tcp", "udp"):
        for listens in (80, 443):
            made["vips"].append(
                {"address": V6, "protocol": protocol, "port": listens, "backends": sixes}
            )
    if forward != "nat":
        del made["vips"][0]["passive"]
        for vip in made["vips"][:2] + made["vips"][-4:]:
            vip["forward"] = forward
            vip["backends"] = [{**b, "port": 0} for b in vip["backends"]]
        listed = (b for vip in made["vips"] if "forward" in vip for b in vip["backends"])
        for number, backend in enumerate(listed):
            if forward == "dsr":
                backend["mac"] = f"02:00:00:00:00:{number:02x}"
    return made


def model_usages(model: LbModel, plan: Plan) -> list[Usage]:
    usages = list(model.usages.values())
    places = [(vip, i) for vip, of in enumerate(plan.config.vips) for i in range(len(of.backends))]
    found = (usages[places.index(place)] for place in plan.backends)
    return [Usage(u.opened, model.current(u), tuple(u.packets), tuple(u.size)) for u in found]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([2, 5, 64]),
    st.sampled_from([0, 8080]),
    st.booleans(),
    st.sampled_from(["connection", "client"]),
    st.sampled_from(["nat", "nat", "dsr", "ipip", "gue"]),
    BURSTS,
)
def test_kernel_agrees_with_model(
    capacity: int, port: int, rejects: bool, affinity: str, forward: str, bursts: list
) -> None:
    def config(backends: int) -> LbConfig:
        return load(agreement_config(capacity, port, backends, rejects, affinity, forward))

    balancer, model, now_s = Balancer(config(2)), LbModel(config(2)), 1
    runner = KernelRunner(balancer.kernel)
    for step, backends, up, burst in bursts:
        changed = config(backends)
        shares = [
            share_out(
                vip, [bool(up >> i & 1) for i in range(len(vip.backends))], [1] * len(vip.backends)
            )
            for vip in changed.vips
        ]
        balancer.apply(Plan(changed, shares, balancer.plan))
        model.update(changed, shares)
        now_s += step
        for frame, done in zip(
            burst, runner.run([Packet(f, port=3) for f in burst], now_s * NS), strict=True
        ):
            try:
                expected = model.balance(frame, now_s * NS)
            except Drop as drop:
                assert (done.verdict, REASONS[done.destination]) == (DROP, drop.args[0])
                continue
            assert done.verdict == (OUT if expected.is_out else NEXT)
            assert done.destination == (3 if expected.is_out else 0)
            assert done.data == expected.data
        model.expire(now_s * NS)
        assert len(balancer.save(now_s * NS)) == 128 * len(model.there)
        assert read_usages(balancer.usage_bytes()) == model_usages(model, balancer.plan)
        assert len(balancer.take_failing()) == len(model.take_failing())


@settings(max_examples=120)
@given(st.lists(st.binary(max_size=120), max_size=8))
def test_garbage_is_survived(tails: list[bytes]) -> None:
    for head in (b"\x08\x00E", b"\x86\xdd`"):
        for done in GARBAGE.run([Packet(bytes(12) + head + tail) for tail in tails]):
            assert done.verdict in (NEXT, DROP)


GARBAGE = KernelRunner(Balancer(load(config_of())).kernel)


def test_connections_go_to_another_instance() -> None:
    first, second = (Balancer(load(config_of(4))) for _ in range(2))
    runner, successor = KernelRunner(first.kernel), KernelRunner(second.kernel)
    frames = [tcp(CLIENT, port, VIP, 80, SYN) for port in range(32)]
    before = [one(runner, frame) for frame in frames]
    second.update(load(config_of(1)))  # so that it would choose otherwise by itself
    second.restore(first.save(NS), NS)
    second.restore(first.save(NS), NS)  # what is known already is left alone
    running = [tcp(CLIENT, port, VIP, 80, ACK) for port in range(32)]
    assert [read_headers(one(successor, frame).data).dst for frame in running] == [
        read_headers(done.data).dst for done in before
    ]
    backend = ".".join(map(str, read_headers(before[0].data).dst))
    back = one(successor, tcp(backend, 80, CLIENT, 0, SYN | ACK))
    assert back.data == tcp(VIP, 80, CLIENT, 0, SYN | ACK)
    assert len(second.save(NS)) == len(first.save(NS)) == 32 * 128


def test_connections_that_do_not_fit_change_nothing() -> None:
    first = Balancer(load(config_of(4)))
    small = Balancer(load(config_of(4, max_connections=1)))
    runner = KernelRunner(first.kernel)
    for port in range(2):
        one(runner, tcp(CLIENT, port, VIP, 80, SYN))
    with pytest.raises(NativeError, match="take over 2 connections"):
        small.restore(first.save(NS), NS)
    with pytest.raises(NativeError, match="Invalid argument"):
        small.restore(first.save(NS)[1:], NS)
    assert small.save(NS) == b""


@pytest.mark.parametrize("size", [1024, 2048])
def test_new_configuration_leaves_connections_where_they_are(size: int) -> None:
    vip = {"address": VIP, "port": 80, "backends": [{"address": "10.0.0.1"}]}
    other = {**vip, "backends": [{"address": "10.0.0.2"}]}
    with Runner("lb", config={"vips": [vip], "max_connections": 1024}) as runner:
        runner.run([tcp(CLIENT, 1000, VIP, 80, SYN), tcp(CLIENT, 1000, VIP, 80, ACK)])
        runner.reconfigure({"vips": [other], "max_connections": size})
        result = runner.run([tcp(CLIENT, 1001, VIP, 80, SYN), tcp(CLIENT, 1000, VIP, 80, ACK)])
        sent_to = [list(read_headers(frame).dst) for frame in result.packets]
        assert sent_to == [[10, 0, 0, 2], [10, 0, 0, 1]]
        with pytest.raises(ConfigError, match="vips"):
            runner.reconfigure({"vips": [{**vip, "address": "nonsense"}]})
        with pytest.raises(ConfigError, match="max_connections: 1: expected as much as there are"):
            runner.reconfigure({"vips": [other], "max_connections": 1})
        again = runner.run([tcp(CLIENT, 1000, VIP, 80, ACK)])
        assert list(read_headers(again.packets[0]).dst) == [10, 0, 0, 1]
