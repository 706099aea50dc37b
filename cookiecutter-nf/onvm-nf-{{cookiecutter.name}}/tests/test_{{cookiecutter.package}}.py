"""Send packets through the NF in this process, and check the verdicts."""

from __future__ import annotations

import pytest
from onvm_sdk import Verdict
from onvm_sdk.testing import run
from onvm_sdk.testing.frames import is_sound, tcp, udp

from {{ cookiecutter.package }} import {{ cookiecutter.class_name }}


def to_port(port: int) -> bytes:
    return udp("192.0.2.1", 4000, "198.51.100.1", port, b"hello")


TCP = tcp("192.0.2.1", 4000, "198.51.100.1", 53)
TTL = 14 + 8


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        (to_port(53), Verdict.DROP),
        (to_port(54), Verdict.NEXT),
        (TCP, Verdict.NEXT),
        (bytes(60), Verdict.NEXT),
        (to_port(53)[:30], Verdict.NEXT),
    ],
    ids=["blocked", "other-port", "tcp", "not-ip", "truncated"],
)
def test_verdict(packet: bytes, verdict: Verdict) -> None:
    assert run({{ cookiecutter.class_name }}, [packet]).verdicts == [verdict]


def test_port_comes_from_the_configuration() -> None:
    result = run({{ cookiecutter.class_name }}, [to_port(53), to_port(5353)], config={"port": 5353})
    assert result.verdicts == [Verdict.NEXT, Verdict.DROP]
    assert result.reasons == [None, "blocked"]


def test_hop_is_counted_and_checksum_kept() -> None:
    (packet,) = run({{ cookiecutter.class_name }}, [TCP]).packets
    assert packet[TTL] == TCP[TTL] - 1
    assert is_sound(packet)
