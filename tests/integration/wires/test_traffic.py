"""Real traffic through ports on interfaces at their default settings: nothing but `onvm up`.

Client and server are in one subnet, and the firewall between them accepts everything. After each
test the counters of the ends' interfaces and those of the ports agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import vlan_tags
from wire_bed import CLIENT, ENDS, MANAGER, MISSING, PORT_KINDS, SERVER, V4, V6, Bed, bed

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
NO_TAGS = vlan_tags.obstacle()


@pytest.fixture(scope="module", params=PORT_KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A bed with a manager that serves the tests of a kind one after the other."""
    with bed(request.param) as made:
        made.serve()
        made.start()
        yield made
        made.stop()


@pytest.fixture
def wire(running: Bed) -> Iterator[Bed]:
    yield running
    running.check_counts()


@pytest.mark.parametrize("host", [V4, V6])
def test_ping(wire: Bed, host: str) -> None:
    wire.ping(host)
    wire.ping(host, 1500)


@pytest.mark.parametrize("host", [V4, V6])
def test_download_arrives_as_it_was_sent(wire: Bed, host: str) -> None:
    wire.download(host)


@pytest.mark.skipif(bool(NO_TAGS), reason=NO_TAGS or "complete")
@pytest.mark.parametrize("tags", [(7,), (7, 8)], ids=["vlan", "qinq"])
def test_download_with_vlan_tags(wire: Bed, tags: tuple[int, ...]) -> None:
    if wire.kind == "af_xdp" and len(tags) > 1:
        pytest.skip("a veth takes one tag more than its MTU; frames carry both inside")
    with wire.tagged(*tags):
        wire.ping(V4)
        wire.download(V4)
        wire.download(V6)


@pytest.mark.parametrize("streams", [1, 10])
@pytest.mark.parametrize("options", [(), ("-R",)], ids=["up", "down"])
def test_tcp_streams(wire: Bed, streams: int, options: tuple[str, ...]) -> None:
    wire.stream(V4, streams, *options)


@pytest.mark.parametrize("streams", [1, 10])
def test_tcp_both_ways_at_once_arrives_as_it_was_sent(wire: Bed, streams: int) -> None:
    wire.client("talk", V4, streams, 10_000_000 // streams)


@pytest.mark.parametrize("host", [V4, V6])
def test_short_datagrams_are_answered(wire: Bed, host: str) -> None:
    """As queries to a DNS server are."""
    wire.client("ask", host, 100, 60)


@pytest.mark.parametrize("host", [V4, V6])
def test_fragmented_datagrams_are_answered(wire: Bed, host: str) -> None:
    """The firewall lets later fragments pass unless its configuration says otherwise."""
    wire.client("ask", host, 20, 4000)


@pytest.mark.parametrize("host", [V4, V6])
def test_connections_at_the_same_time(wire: Bed, host: str) -> None:
    wire.client("talk", host, 100, 20_000)


def test_interface_of_an_end_goes_down_and_up_again(wire: Bed) -> None:
    wire.down(CLIENT)
    assert not wire.reaches(V4)
    wire.up(CLIENT)
    wire.await_reachable()
    wire.ping(V4)
    wire.download(V6)


def test_interface_of_a_port_goes_down_and_up_again(wire: Bed) -> None:
    if wire.kind == "tap":
        pytest.skip("the interface of a tap port is that of the end")
    wire.net.ip(MANAGER, "link", "set", wire.outer(SERVER), "down")
    assert not wire.reaches(V4)
    wire.net.ip(MANAGER, "link", "set", wire.outer(SERVER), "up")
    wire.await_reachable()
    wire.ping(V4)
    wire.download(V6)


def test_interface_of_a_port_is_removed_and_made_again(wire: Bed) -> None:
    if wire.kind == "tap":
        pytest.skip("the interface of a tap port is the port's")
    if wire.kind == "af_xdp":
        pytest.skip("DPDK's driver keeps the interface that it has opened")
    wire.remove_veth(SERVER)
    wire.await_port(SERVER, "gone")
    assert not wire.reaches(V4)
    wire.add_veth(SERVER)
    wire.await_port(SERVER, "up")
    wire.await_reachable()
    wire.ping(V4)
    wire.download(V6)
    wire.forget_counts()


@pytest.mark.parametrize("role", list(ENDS))
def test_smaller_mtu_at_one_end(wire: Bed, role: str) -> None:
    wire.set_mtu(role, 1400)
    try:
        wire.ping(V4, 1400)
        wire.download(V4)
        wire.download(V6)
        wire.stream(V4, 1)
    finally:
        wire.set_mtu(role, 1500)
