# SPDX-License-Identifier: Apache-2.0
"""The routes of the host: read from a real kernel in a network namespace, and followed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network

import pytest
from onvm_nf_router import netlink
from onvm_nf_router.host_routes import HostRoutes
from onvm_nf_router.interfaces import Interface
from onvm_nf_router.routes import Hop
from onvm_nf_router.table import RouteTable

SPACE = f"onvmroutes{os.getpid()}"
TIMEOUT_S = 30
is_possible = os.geteuid() == 0 and shutil.which("ip") is not None
pytestmark = pytest.mark.skipif(not is_possible, reason="needs root and iproute2")

INTERFACES = (
    Interface("lan", 1, bytes(6), 1500, (ip_interface("10.0.0.1/24"),)),
    Interface(
        "wan",
        2,
        bytes(6),
        1500,
        (ip_interface("198.51.100.1/24"), ip_interface("2001:db8:2::1/64")),
    ),
)


class Plane:
    """Routes by prefix: kind and hops."""

    def __init__(self) -> None:
        self.groups: dict[int, tuple[str, tuple[Hop, ...]]] = {}
        self.numbers: dict[object, int] = {}

    def set_group(self, index: int, kind: str, hops: tuple[Hop, ...]) -> None:
        self.groups[index] = kind, hops

    def add_route(self, prefix: object, group: int) -> None:
        self.numbers[prefix] = group

    def delete_route(self, prefix: object) -> None:
        del self.numbers[prefix]

    def to(self, prefix: str) -> str:
        """The kind and hops of a prefix, as text."""
        number = self.numbers.get(ip_network(prefix))
        if number is None:
            return "none"
        kind, hops = self.groups[number]
        shown = sorted(f"{hop.gateway}@{hop.interface}*{hop.weight}" for hop in hops)
        return " ".join([kind, *shown])


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", SPACE, *arguments], check=True)


@contextmanager
def inside() -> Iterator[None]:
    """Be in the namespace, for sockets that are made now."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{SPACE}") as other:
        assert libc.setns(other.fileno(), 0) == 0
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), 0) == 0


@pytest.fixture
def space() -> Iterator[None]:
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        for name, addresses in (
            ("lan", ("10.0.0.1/24",)),
            ("wan", ("198.51.100.1/24", "2001:db8:2::1/64")),
            ("mgmt", ("192.0.2.1/24",)),
        ):
            ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
            ip("link", "set", name, "up")
            ip("link", "set", f"{name}p", "up")
            for address in addresses:
                ip("address", "add", address, "dev", name, "nodad")
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", SPACE], check=True)


class Follower:
    """Follows the main table of the namespace."""

    def __init__(self, table: int = 254) -> None:
        self.plane = Plane()
        self.table = RouteTable(self.plane)
        with inside():
            self.routes = HostRoutes(table, self.table)
        self.routes.show(INTERFACES)
        self.longest_s = 0.0

    def until(self, prefix: str, wanted: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.plane.to(prefix) != wanted:
            if self.turn():  # it has work: this machine is slow, the follower is not stuck
                deadline = time.monotonic() + TIMEOUT_S
            assert time.monotonic() < deadline, self.plane.to(prefix)

    def until_table_has(self, count: int) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.table) != count:
            if self.turn():
                deadline = time.monotonic() + TIMEOUT_S
            assert time.monotonic() < deadline, len(self.table)

    def turn(self) -> bool:
        begun = time.thread_time()
        is_busy = self.routes.turn(time.monotonic_ns())
        self.longest_s = max(self.longest_s, time.thread_time() - begun)
        return is_busy


@pytest.fixture
def follower(space: None) -> Iterator[Follower]:
    ip("route", "add", "default", "via", "198.51.100.9")
    made = Follower()
    made.until("0.0.0.0/0", "unicast 198.51.100.9@1*1")
    yield made
    made.routes.close()


def test_routes_come_and_go(follower: Follower) -> None:
    ip("route", "add", "10.1.0.0/16", "via", "10.0.0.9")
    follower.until("10.1.0.0/16", "unicast 10.0.0.9@0*1")
    ip("route", "add", "10.2.0.0/16", "nexthop", "via", "10.0.0.9", "weight", "3",
       "nexthop", "via", "198.51.100.9")  # fmt: skip
    follower.until("10.2.0.0/16", "unicast 10.0.0.9@0*3 198.51.100.9@1*1")
    ip("route", "add", "blackhole", "10.3.0.0/16")
    follower.until("10.3.0.0/16", "blackhole")
    ip("route", "add", "unreachable", "10.4.0.0/16")
    follower.until("10.4.0.0/16", "unreachable")
    ip("route", "add", "10.5.0.0/16", "dev", "lan")
    follower.until("10.5.0.0/16", "connected None@0*1")
    ip("-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:2::9")
    follower.until("2001:db8:9::/48", "unicast 2001:db8:2::9@1*1")
    ip("route", "del", "10.1.0.0/16")
    follower.until("10.1.0.0/16", "none")


def test_smallest_metric_counts(follower: Follower) -> None:
    ip("route", "add", "10.1.0.0/16", "via", "10.0.0.9", "metric", "20")
    follower.until("10.1.0.0/16", "unicast 10.0.0.9@0*1")
    ip("route", "add", "10.1.0.0/16", "via", "198.51.100.9", "metric", "10")
    follower.until("10.1.0.0/16", "unicast 198.51.100.9@1*1")
    ip("route", "del", "10.1.0.0/16", "metric", "10")
    follower.until("10.1.0.0/16", "unicast 10.0.0.9@0*1")


def test_gateway_that_is_link_local_is_on_the_interface_with_the_same_address(
    follower: Follower,
) -> None:
    ip("-6", "route", "add", "2001:db8:9::/48", "via", "fe80::9", "dev", "wan")
    follower.until("2001:db8:9::/48", "unicast fe80::9@1*1")


def test_one_gateway_of_several_goes(follower: Follower) -> None:
    for host in ("9", "a"):
        ip("-6", "route", "append", "2001:db8:9::/48", "via", f"2001:db8:2::{host}")
    both = "unicast 2001:db8:2::9@1*1 2001:db8:2::a@1*1"
    follower.until("2001:db8:9::/48", both)
    ip("-6", "route", "del", "2001:db8:9::/48", "via", "2001:db8:2::9")
    follower.until("2001:db8:9::/48", "unicast 2001:db8:2::a@1*1")


def test_routes_elsewhere_do_not_concern_the_router(follower: Follower) -> None:
    ip("route", "add", "10.6.0.0/16", "via", "192.0.2.9")
    ip("route", "add", "10.7.0.0/16", "via", "10.0.0.9", "table", "7")
    ip("route", "add", "10.8.0.0/16", "via", "10.0.0.9")
    follower.until("10.8.0.0/16", "unicast 10.0.0.9@0*1")
    assert follower.plane.to("10.6.0.0/16") == follower.plane.to("10.7.0.0/16") == "none"
    assert follower.plane.to("10.0.0.0/24") == "none", "the router knows its links itself"


def test_another_table_is_followed(space: None) -> None:
    ip("route", "add", "10.7.0.0/16", "via", "10.0.0.9", "table", "700")
    follower = Follower(700)
    follower.until("10.7.0.0/16", "unicast 10.0.0.9@0*1")
    follower.routes.close()


def test_interface_that_goes_down_takes_its_routes_along(follower: Follower) -> None:
    ip("route", "add", "10.1.0.0/16", "via", "10.0.0.9")
    follower.until("10.1.0.0/16", "unicast 10.0.0.9@0*1")
    ip("link", "set", "lan", "down")
    follower.until("10.1.0.0/16", "none")
    assert follower.plane.to("0.0.0.0/0") != "none"


def test_interfaces_of_the_router_come_and_go(follower: Follower) -> None:
    follower.routes.show(())
    follower.until("0.0.0.0/0", "none")
    follower.routes.show(INTERFACES)
    follower.until("0.0.0.0/0", "unicast 198.51.100.9@1*1")


ROUTES = 20_000


def change_many(verb: str) -> str:
    """Add or delete many routes.

    Returns:
        The last prefix.
    """
    prefixes = [f"20.{n // 256}.{n % 256}.0/24" for n in range(ROUTES)]
    lines = "".join(f"route {verb} {prefix} via 10.0.0.9\n" for prefix in prefixes)
    subprocess.run(["ip", "-n", SPACE, "-batch", "-"], input=lines.encode(), check=True)
    return prefixes[-1]


@pytest.mark.parametrize("held_bytes", [netlink._BUFFER_BYTES, 1 << 16])
def test_burst_of_routes_is_taken_whole_in_short_turns(
    space: None, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All routes come at once, and go at once, while the follower has no time for them.

    A socket that does not hold them loses messages; the follower reads the table again.
    """
    monkeypatch.setattr(netlink, "_BUFFER_BYTES", held_bytes)
    follower = Follower()
    follower.until(change_many("add"), "unicast 10.0.0.9@0*1")
    follower.until_table_has(ROUTES)
    follower.until(change_many("del"), "none")
    follower.until_table_has(0)
    follower.routes.close()
    assert follower.longest_s < 0.02, "no turn keeps packets for long"
