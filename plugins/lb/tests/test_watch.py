# SPDX-License-Identifier: Apache-2.0
"""The thread that watches backends, with checks of the test's own, and files of backends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from onvm_nf_lb import Lb, backends_file
from onvm_nf_lb.check import Target
from onvm_nf_lb.config import load
from onvm_nf_lb.kernel import Plan
from onvm_nf_lb.probes import has_network
from onvm_nf_lb.watch import Watch

from onvm_sdk.errors import ConfigError
from onvm_sdk.headers import read_headers
from onvm_sdk.nf import Context
from onvm_sdk.testing.frames import SYN, tcp
from onvm_sdk.testing.kernel import KernelRunner, Packet

V, A, B, C = "198.51.100.10", "203.0.113.1", "203.0.113.2", "203.0.113.3"
CHECK = {"type": "tcp", "interval_s": 0.05, "rise": 1, "fall": 1}
WAIT_S = 20.0


class World:
    """Backends as their checks find them, and what the watch has said."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.checked: set[str] = set()
        self.lines: list[str] = []

    async def probe(self, target: Target) -> str | None:
        self.checked.add(target.address)
        return "broken" if target.address in self.broken else None


@contextmanager
def watching(world: World, *addresses: str, **more: Any) -> Iterator[Watch]:
    backends = [{"address": address} for address in addresses]
    vip = {"address": V, "port": 80, "backends": backends, **more}
    config = load({"vips": [vip], "table_size": 251})
    watch = Watch(config, probe=world.probe, say=world.lines.append)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
        watch.join()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def weights(plan: Plan) -> dict[str, int]:
    (vip,), (listed,) = plan.config.vips, plan.shares
    return {str(b): share.weight for b, share in zip(vip.backends, listed, strict=True)}


def test_plans_follow_checks() -> None:
    world = World()
    with watching(world, A, B, check=CHECK) as watch:
        until(lambda: world.checked == {A, B})
        world.broken = {A}
        assert weights(until(watch.take)) == {A: 0, B: 1}
        world.broken = set()
        assert weights(until(watch.take)) == {A: 1, B: 1}
    assert world.lines == [
        f"{V}:80/tcp: {A} is down: broken",
        f"{V}:80/tcp: {A} is up: 1 checks in a row",
    ]


def test_failing_backends_go_out_and_come_back() -> None:
    world = World()
    with watching(world, A, B, passive={"out_s": 0.3}) as watch:
        watch.tell_failing(watch.plan, [(0, 1)])
        assert weights(until(watch.take)) == {A: 1, B: 0}
        assert weights(until(watch.take)) == {A: 1, B: 1}


def test_an_error_of_the_thread_reaches_the_nf() -> None:
    async def wrong(_: Target) -> str | None:
        raise ZeroDivisionError

    world = World()
    world.probe = wrong  # type: ignore[method-assign]
    with watching(world, A, check=CHECK) as watch, pytest.raises(RuntimeError, match="has ended"):
        until(watch.take)


def test_file_is_followed_and_a_broken_one_keeps_the_last_good_set(tmp_path: Path) -> None:
    world, file = World(), tmp_path / "pool.json"
    file.write_text(json.dumps([{"targets": [A, f"{B}:8080"], "labels": {"weight": "3"}}]))
    with watching(world, backends_file=str(file), check=CHECK) as watch:
        assert weights(watch.plan) == {A: 3, f"{B}:8080": 3}
        file.write_text('[{"targets": ["203.0.113.1"')
        until(lambda: any("last good" in line for line in world.lines))
        replace(file, f"{A}\n2001:db8::1\n")
        until(lambda: any("2001:db8::1" in line for line in world.lines))
        assert watch.take() is None
        replace(file, f"# two\n{A} weight=2\n{C} backup\n")
        assert weights(until(watch.take)) == {A: 2, C: 0}
        until(lambda: C in world.checked)
        file.unlink()
        until(lambda: any("no such file" in line for line in world.lines))
    assert world.lines[0] == f"{file}: 2 backends"
    assert world.lines[2] == (
        f"{file}: line 2.address: '2001:db8::1': expected an IPv4 address, as the VIP's; "
        "the last good backends stay (2)"
    )
    assert len(world.lines) == 5


def replace(file: Path, text: str) -> None:
    """As programs that write such files do it."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("203.0.113.1 heavy", "pool: line 1: 'heavy': expected weight=NUMBER or backup"),
        ("\n203.0.113.1:x", "pool: line 2: '203.0.113.1:x': expected ADDRESS"),
        ("203.0.113.1:65536", "pool: line 1: '203.0.113.1:65536': expected a port up to"),
        ("203.0.113.1 weight=-1", "pool: line 1.weight: '-1': expected 0 to 1000"),
        ("203.0.113.1 backup=maybe", "pool: line 1.backup: 'maybe': expected true or false"),
        ('[{"targets": ["[a"]}]', "pool: [0].targets[0]: '[a': expected ADDRESS"),
        ('[{"target": []}]', "pool: expected targets, or groups of them"),
        ("[1]", "pool: expected targets, or groups of them"),
        ("[", "pool: expected JSON: "),
    ],
)
def test_mistakes_of_files_name_their_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backends_file.parse(text, "pool")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_forms_of_files() -> None:
    lines = f"{A}\n[2001:db8::1]:80 weight=0\n2001:db8::2 # spare\n"
    found = [(b.address, b.port, b.weight) for b, _ in backends_file.parse(lines, "pool")]
    assert found == [(A, 0, 1), ("2001:db8::1", 80, 0), ("2001:db8::2", 0, 1)]
    groups = json.dumps(
        [f"{A}:1", {"targets": [f"{B}:2"], "labels": {"job": "web", "backup": "true"}}]
    )
    found = [(b.address, b.port, b.backup) for b, _ in backends_file.parse(groups, "pool")]
    assert found == [(A, 1, False), (B, 2, True)]


# ---- the NF ----


def test_nf_balances_to_the_backends_of_a_file_and_reports(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, report = tmp_path / "pool", tmp_path / "report.json"
    file.write_text(f"{A}:8080\n")
    vip = {"address": V, "port": 80, "backends_file": str(file)}
    config = {"vips": [vip], "report": str(report), "table_size": 251}

    nf = Lb()
    nf.setup(Context("lb", config=config))
    runner = KernelRunner(nf.native())
    ports = count(1)

    def sent_to() -> str:
        frame = tcp("192.0.2.1", next(ports), V, 80, SYN)
        nf.on_timer(time.monotonic_ns())
        data = runner.run([Packet(frame)], time.monotonic_ns())[0].data
        return ".".join(map(str, read_headers(data).dst))

    def reported() -> Any:
        nf.on_timer(time.monotonic_ns())
        vips = json.loads(report.read_text())["vips"] if report.exists() else []
        rows = vips[0]["backends"] if vips else [{"opened": 0}]
        return rows if rows[0]["opened"] else None

    try:
        assert sent_to() == A
        replace(file, f"{B}\n")
        until(lambda: sent_to() == B)
        (row,) = until(reported)
        nf.on_message("", b"backends")
        until(lambda: f"{V}:80/tcp: {B}: up for" in capfd.readouterr().err)
    finally:
        nf.teardown()
    assert (row["backend"], row["state"]) == (B, "up")
    assert row["packets_in"] == row["connections"] == row["opened"] > 0


@pytest.mark.skipif(not has_network(), reason="needs an interface besides the loopback")
def test_what_is_known_of_backends_survives_a_new_configuration() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def config(weight: int) -> dict[str, Any]:
            backends = [
                {"address": "127.0.0.1", "port": 1},  # it refuses
                {"address": "127.0.0.1", "port": port, "weight": weight},
            ]
            vip = {"address": V, "port": 80, "backends": backends, "check": CHECK}
            return {"vips": [vip], "table_size": 251}

        nf = Lb()
        nf.setup(Context("lb", config=config(1)))
        runner, ports = KernelRunner(nf.native()), count(1)

        def chosen() -> set[int]:
            nf.on_timer(time.monotonic_ns())
            frames = [tcp("192.0.2.1", next(ports), V, 80, SYN) for _ in range(32)]
            done = runner.run([Packet(frame) for frame in frames], time.monotonic_ns())
            return {read_headers(one.data).dst_port for one in done}

        try:
            until(lambda: chosen() == {port})
            nf.reconfigure(nf.prepare(config(2)))
            assert chosen() == {port}
        finally:
            nf.teardown()
