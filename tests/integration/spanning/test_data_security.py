"""Packets between hosts are believed only with proof: forged ones of every kind change a counter.

The test is one of two hosts. It needs neither root nor ZooKeeper.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from cluster_hosts import VNI, Managers, chain, receive, secret_of, wait_for
from secured_peer import DOWN, UP, SecuredPeer
from test_spanning import PLANE, base, inner, nf, nsh_packet

if TYPE_CHECKING:
    from up_host import Host

    from onvm_core.manager.cluster_view.view import DataSecurity


class Bed:
    """Host x is the test, host b a manager with an NF, host y has no part in the chain."""

    def __init__(self, host: Host, security: DataSecurity, n: int) -> None:
        addresses = base(n)
        addresses = {"b": addresses["b"], "x": addresses["x"], "y": addresses["a"]}
        self.managers = Managers(
            host,
            {"b": PLANE + nf("hop")},
            addresses,
            [chain("x:in", "x:out", "hop")],
            security=security,
        )
        self.security = security
        self.managers.start()
        assert self.managers.apply()["b"]["missing"] == []
        self.peer = self.at("x")
        self.peer.meet()

    def at(self, name: str) -> SecuredPeer:
        secret = b"" if self.security == "none" else bytes.fromhex(secret_of("b", name))
        return SecuredPeer(
            self.managers.addresses[name],
            self.managers.addresses["b"],
            secret,
            encrypts=self.security == "encrypt",
        )

    def drops(self) -> dict[str, int]:
        return {key: value for key, value in self.managers.local("b")["drops"].items() if value}

    def sealed(self, datagram: bytes, **changes: int) -> bytes:
        return datagram if self.security == "none" else self.peer.seal(datagram, **changes)

    def status(self, name: str = "x") -> dict[str, Any]:
        (one,) = [one for one in self.managers.local("b")["peers"] if one["name"] == name]
        return one

    def check_packets_pass(self) -> None:
        """A genuine packet goes through the NF and comes back sealed."""
        frame = inner()
        self.peer.send(self.sealed(nsh_packet(frame)))
        data, ancillary, sender = receive(self.peer.socket)
        assert [int.from_bytes(value, "little") for _, _, value in ancillary] == [255]  # GTSM
        if self.security != "none":
            data = self.peer.open(data, sender[1])
        assert data[32:] == bytes(frame)


@pytest.fixture(params=["auth", "encrypt"])
def bed(host: Host, request: pytest.FixtureRequest) -> Iterator[Bed]:
    made = Bed(host, request.param, 6)
    yield made
    made.peer.close()


def test_forged_packets_of_every_kind_change_only_a_counter(bed: Bed) -> None:
    good = nsh_packet(inner())
    genuine = bed.peer.seal(good)
    bed.peer.send(genuine)
    receive(bed.peer.socket)
    counted: dict[str, int] = {}

    def count(reason: str, *datagrams: bytes, by: Callable[[bytes], None] = bed.peer.send) -> None:
        for datagram in datagrams:
            by(datagram)
        counted[reason] = counted.get(reason, 0) + len(datagrams)
        bed.peer.talk(0.02)
        wait_for(lambda: bed.drops() == counted)

    count("replayed", genuine, genuine)
    count("forged", good, b"", b"\0", *(genuine[:n] for n in (7, 31, 32, 55, len(genuine) - 1)))
    secret, bed.peer.secret = bed.peer.secret, os.urandom(32)
    of_another_secret = bed.peer.seal(good)
    bed.peer.secret = secret
    count("forged", of_another_secret)
    fresh = bed.peer.seal(good)
    for place in (0, 4, 8, 12, 15, 40, len(fresh) - 24, len(fresh) - 17, len(fresh) - 1):
        flipped = bytearray(fresh)
        flipped[place] ^= 0x40
        count("forged", bytes(flipped))
    count("forged", bed.peer.seal(good, key=(bed.peer.heard.key + 1) % 256))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind((bed.peer.here, 0))
        count("forged", fresh, by=lambda data: bed.peer.send(data, elsewhere))
    bed.peer.stream = 250  # no worker has so many sockets
    count("forged", bed.peer.seal(good))
    bed.peer.stream = 3
    count("foreign", bed.peer.seal(nsh_packet(inner(), vni=VNI + 1)))
    count("no_path", bed.peer.seal(nsh_packet(inner(), si=9)))
    count("oversize", bed.peer.seal(nsh_packet(inner(size=3000))))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((base(7)["x"], 0))
        count("foreign", fresh, by=lambda data: bed.peer.send(data, stranger))
    bed.peer.send(fresh)  # it was tried in vain by others, and is genuine
    receive(bed.peer.socket)
    bed.check_packets_pass()
    assert bed.status()["is_up"]
    assert bed.status()["forged"] == counted["forged"]
    assert bed.status()["replayed"] == counted["replayed"]


def test_probes_of_hosts_that_come_and_go_are_not_foreign(bed: Bed) -> None:
    """Hosts learn of it one after the other. What a stranger sends is counted all the same."""
    peer, there = bed.peer, bed.peer.there
    strange = SecuredPeer(base(7)["b"], there, bytes.fromhex(secret_of("b", "z")))
    strange.say()  # it is not known yet
    bed.managers.addresses = {**bed.managers.addresses, "z": strange.here}
    bed.managers.apply()
    strange.meet()
    bed.managers.chains = []
    bed.managers.addresses = {name: bed.managers.addresses[name] for name in "byz"}
    bed.managers.apply()
    for _ in range(3):
        peer.say()  # it has left
    peer.send(nsh_packet(inner()))
    wait_for(lambda: bed.drops() == {"foreign": 1})
    peer.secret = os.urandom(32)
    peer.say()
    wait_for(lambda: bed.drops() == {"foreign": 2})
    stranger = SecuredPeer(base(7)["x"], there, strange.secret)
    stranger.say()
    wait_for(lambda: strange.talk(0.02) or bed.drops() == {"foreign": 3})  # type: ignore[func-returns-value]
    strange.close()
    stranger.close()


def test_a_peer_hands_over_only_where_it_is_before(bed: Bed) -> None:
    """Another member has right keys, and no part in the chain."""
    other = bed.at("y")
    other.meet()
    other.send(other.seal(nsh_packet(inner())))
    other.send(other.seal(nsh_packet(inner(), si=1)))
    wait_for(lambda: bed.drops() == {"wrong_hop": 2})
    other.close()


def test_numbers_may_come_late_but_not_twice(bed: Bed) -> None:
    good = nsh_packet(inner())
    first = bed.peer.seal(good)
    late = [bed.peer.seal(good) for _ in range(3)]
    far = bed.peer.seal(good, number=5000)
    for datagram in (*reversed(late), far):
        bed.peer.send(datagram)
        receive(bed.peer.socket)
    for datagram in (*late, far, first):  # `first` is too old to tell
        bed.peer.send(datagram)
    wait_for(lambda: bed.drops() == {"replayed": 5})


def test_forged_probes_change_only_a_counter(bed: Bed) -> None:
    wrong = bed.peer.make_probe(state=DOWN, yours=0)
    wrong = wrong[:-1] + bytes([wrong[-1] ^ 1])
    recorded = bed.peer.said[0]  # of a host that has just started
    for _ in range(20):
        for datagram in (
            wrong,
            recorded,
            bed.peer.make_probe(state=DOWN, yours=0, ttl=254),
            bed.peer.make_probe(state=DOWN, yours=0, vni=VNI + 1),
            wrong[:100],
            wrong[:9],
        ):
            bed.peer.send(datagram)
        bed.peer.talk(0.02)
        assert bed.status()["is_up"]
    assert bed.drops() == {"forged": 20, "foreign": 80}
    bed.check_packets_pass()


def test_keys_change_without_losing_packets(bed: Bed) -> None:
    """A host that starts again agrees on new keys; recorded packets stay recorded."""
    before = bed.peer.seal(nsh_packet(inner()))
    for _ in range(3):
        old = bed.peer.probe.nonce
        bed.peer.begin()
        bed.peer.talk(0.4)
        bed.peer.meet()
        assert bed.peer.probe.nonce != old
        bed.check_packets_pass()
    bed.peer.send(before)
    wait_for(lambda: bed.drops() == {"forged": 1})


def test_security_can_be_switched_on(host: Host) -> None:
    bed = Bed(host, "none", 10)
    bed.check_packets_pass()
    bed.peer.close()
    bed.managers.security = bed.security = "auth"
    assert bed.managers.apply()["b"]["missing"] == []
    bed.peer = bed.at("x")
    bed.peer.meet()
    bed.check_packets_pass()
    bed.peer.send(nsh_packet(inner()))
    wait_for(lambda: bed.drops() == {"forged": 1})
    bed.peer.close()


def test_without_security_a_probe_that_names_no_session_changes_nothing(host: Host) -> None:
    bed = Bed(host, "none", 8)
    for _ in range(20):
        bed.peer.send(bed.peer.make_probe(state=DOWN, yours=0))
        bed.peer.talk(0.02)
        assert bed.status()["is_up"]
    bed.check_packets_pass()
    bed.peer.send(bed.peer.make_probe(state=DOWN))
    wait_for(lambda: not bed.status()["is_up"])
    bed.peer.close()


def test_peer_that_gets_small_packets_alone_is_down(host: Host) -> None:
    """As behind a tunnel that drops full-sized packets, or their fragments."""
    bed = Bed(host, "auth", 9)
    bed.peer.probe.unheard_ms = 60_000

    def is_down() -> bool:
        bed.peer.talk(0.1)
        heard = bed.peer.heard
        return not bed.status()["is_up"] and heard is not None and heard.state == UP

    wait_for(is_down)
    bed.peer.close()
