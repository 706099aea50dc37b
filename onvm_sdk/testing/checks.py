"""Checks that every NF must pass.

pytest --pyargs onvm_sdk.testing.checks --onvm-nf=NAME [--onvm-nf-config=FILE]
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from onvm_sdk._hosting.plugin import load_plugin
from onvm_sdk.limits import BURST_MAX
from onvm_sdk.testing.runner import Runner
from onvm_sdk.verdict import Verdict

__all__ = ["frames"]


def frames(seed: int = 1) -> list[bytes]:
    """Make difficult frames: empty, truncated after every byte, with wrong lengths, and garbage."""
    rng = random.Random(seed)
    whole = list(_whole_frames())
    cut = [frame[:length] for frame in whole for length in range(len(frame))]
    broken = []
    for frame in whole:
        for _ in range(40):
            damaged = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(12, len(frame))] = rng.randrange(256)
            broken.append(bytes(damaged))
    garbage = [rng.randbytes(rng.randrange(1, 200)) for _ in range(100)]
    return [b"", *whole, *cut, *broken, *garbage]


def _whole_frames() -> Iterator[bytes]:
    eth = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01"
    payload = bytes(range(24))
    transports = {
        17: struct.pack("!HHHH", 5000, 53, 8 + len(payload), 0x1234) + payload,
        6: struct.pack("!HHIIBBHHH", 5000, 80, 1, 2, 0x50, 2, 512, 0x1234, 0) + payload,
        1: struct.pack("!BBHHH", 8, 0, 0x1234, 7, 1) + payload,
        58: struct.pack("!BBHHH", 128, 0, 0x1234, 7, 1) + payload,
        132: bytes(12),
    }
    for protocol, transport in transports.items():
        for fragment in (0, 0x2000, 0x0010):
            size = 20 + len(transport)
            header = [0x45, 0, size, 9, fragment, 64, protocol, 0, 0x0A000001, 0x0A000102]
            ip4 = struct.pack("!BBHHHBBHII", *header)
            total = sum(struct.unpack("!10H", ip4))
            total = (total & 0xFFFF) + (total >> 16)
            ip4 = ip4[:10] + struct.pack("!H", ~total & 0xFFFF) + ip4[12:]
            yield eth + b"\x08\x00" + ip4 + transport
            yield eth + b"\x81\x00\x00\x05\x08\x00" + ip4 + transport
        ip6 = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64)
        yield eth + b"\x86\xdd" + ip6 + bytes(15) + b"\x01" + bytes(15) + b"\x02" + transport
    yield eth + b"\x08\x06" + bytes(28)


@pytest.fixture
def runner(
    onvm_nf: str, request: pytest.FixtureRequest, nf_runner: Callable[..., Runner]
) -> Runner:
    config: Any = request.config.getoption("--onvm-nf-config")
    return nf_runner(onvm_nf, config=config)


def test_manifest_is_valid_and_names_the_nf(onvm_nf: str) -> None:
    assert load_plugin(onvm_nf).manifest.name == onvm_nf


def test_survives_short_damaged_and_random_packets(runner: Runner) -> None:
    every = frames()
    result = runner.run(every)
    assert len(result.packets) == len(every)


def test_writes_only_into_its_packets(runner: Runner) -> None:
    result = runner.run(frames())
    assert not result.broken, "packets whose surroundings were written to"


def test_verdicts_and_drop_reasons_are_known(runner: Runner) -> None:
    result = runner.run(frames())
    known = max(1, len(runner.contexts[0].reasons))
    for verdict, destination in zip(result.verdicts, result.destinations, strict=True):
        assert verdict is not Verdict.DROP or destination < known


def test_same_packets_in_both_directions_and_any_burst(runner: Runner) -> None:
    runner.run(frames(2), reverse=True, burst_size=1)
    runner.run(frames(3), burst_size=BURST_MAX)


def test_drain_and_snapshot_answer(runner: Runner) -> None:
    nf = runner.stages[0].nf
    assert isinstance(nf.drain(), bool)
    state = nf.snapshot()
    assert isinstance(state, bytes)
    if state:
        nf.restore(state)  # on an instance that serves, too
    assert isinstance(nf.inherits(), bool)
