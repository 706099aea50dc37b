"""Managers with another MTU than the interfaces had, between ends at their default settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wire_bed import MISSING, PORT_KINDS, V4, V6, Bed, bed

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")
FRAME_MTU = 1700
"""Larger packets do not fit the frames of XDP sockets."""


def mtu_of(wire: Bed) -> int:
    return FRAME_MTU if wire.kind == "af_xdp" else 9000


@pytest.fixture(params=PORT_KINDS)
def fresh(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A bed without a manager."""
    with bed(request.param) as made:
        made.serve()
        yield made


def _check_large(wire: Bed) -> None:
    for host in (V4, V6):
        wire.ping(host, mtu_of(wire))
        wire.download(host)
    wire.stream(V4, 10)
    wire.check_counts()


def test_large_packets(fresh: Bed) -> None:
    fresh.start(mtu=mtu_of(fresh))
    _check_large(fresh)
    fresh.stop()


def test_manager_with_another_mtu_after_one_without(fresh: Bed) -> None:
    fresh.start()
    fresh.ping(V4)
    fresh.ping(V6)
    fresh.download(V6)
    fresh.check_counts()
    fresh.stop()
    fresh.start(mtu=mtu_of(fresh))
    _check_large(fresh)
    fresh.stop()
