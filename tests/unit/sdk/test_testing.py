"""What the SDK gives to tests: strategies, golden captures, and NFs in a real manager."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import find, given, settings

from onvm_sdk import FiveTuple, NetworkFunction, PacketView
from onvm_sdk.headers import L4, Headers, read_headers
from onvm_sdk.testing.frames import is_sound, udp
from onvm_sdk.testing.golden import GoldenError, check_golden, describe
from onvm_sdk.testing.managed import Managed, ManagerError, run_managed
from onvm_sdk.testing.strategies import UDP, broken, conversations, flows, packets

FRAMES = [udp("10.0.0.1", number, "10.0.0.2", 99, b"abc") for number in range(1, 6)]


class Marker(NetworkFunction):
    """Drops packets from port 3, marks the others."""

    def process_packet(self, pkt: PacketView) -> None:
        if pkt.udp.src_port == 3:
            pkt.drop()
        pkt.ipv4.ttl = 9


class Raiser(NetworkFunction):
    """Raises."""

    def process_packet(self, pkt: PacketView) -> None:
        raise LookupError("no such thing")


@given(packets())
@settings(max_examples=40, deadline=None)
def test_packets_of_the_strategy_are_sound(frame: bytes) -> None:
    assert is_sound(frame)
    assert read_headers(frame).l4 is L4.OK


@given(conversations(flows(versions=[6], protocols=[UDP])))
@settings(max_examples=20, deadline=None)
def test_conversations_have_one_flow_and_its_reverse(packets: list[tuple[bool, bytes]]) -> None:
    keys = {(h.src, h.src_port) for back, frame in packets if not back for h in [_read(frame)]}
    back = {(h.dst, h.dst_port) for back, frame in packets if back for h in [_read(frame)]}
    assert len(keys | back) == 1
    assert all(_read(frame).protocol == UDP for _, frame in packets)


def _read(frame: bytes) -> Headers:
    return read_headers(frame)


def test_strategies_find_both_versions_and_broken_packets() -> None:
    assert isinstance(find(flows(), lambda flow: ":" in str(flow)), FiveTuple)
    assert find(broken(), lambda frame: 0 < len(frame) < 20)
    assert find(broken(), lambda frame: len(frame) > 40 and read_headers(frame).l4 is not L4.OK)


def test_a_golden_capture_shows_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "out.pcap"
    with pytest.raises(GoldenError, match="expected a capture; write it with --onvm-update-golden"):
        check_golden(FRAMES, file)
    check_golden(FRAMES, file, update=True)
    check_golden(FRAMES, file)
    again = file.read_bytes()
    check_golden(FRAMES, file, update=True)
    assert file.read_bytes() == again
    changed = [*FRAMES[:2], FRAMES[2].replace(b"abc", b"abd"), *FRAMES[4:]]
    with pytest.raises(GoldenError) as raised:
        check_golden(changed, file)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"packets differ from {file}:"
    assert lines[1] == "4 packets, expected 5"
    assert lines[2] == "packet 2:"
    assert any("Raw.load = b'abc'" in line and line.lstrip()[0] == "-" for line in lines)
    assert any("Raw.load = b'abd'" in line and line.lstrip()[0] == "+" for line in lines)
    assert "packet 3 is missing:" in lines
    assert not any("Ethernet" in line for line in lines[3:5])
    with pytest.raises(GoldenError, match="and 2 more"):
        check_golden([], file)
    assert describe(b"short") == ["5 bytes: 73 68 6f 72 74"]


def test_an_nf_runs_in_a_real_manager() -> None:
    done = run_managed(Marker, FRAMES)
    assert isinstance(done, Managed)
    assert [packet[34:36] for packet in done.packets] == [bytes([0, n]) for n in (1, 2, 4, 5)]
    assert all(packet[22] == 9 and is_sound(packet) for packet in done.packets)
    assert (done.report["rx"], done.report["tx"]) == (5, 4)
    both = run_managed([Marker, Marker], FRAMES[:2], options=["--instances", "1"])
    assert len(both.packets) == 2


def test_an_nf_that_raises_is_an_error_with_its_line() -> None:
    with pytest.raises(ManagerError, match=r"LookupError: no such thing \(.*test_testing.py:\d+\)"):
        run_managed(Raiser, FRAMES * 1000)


PLUGIN = """
import pytest

def test_golden(golden):
    golden([b"x" * 60], "made.pcap")

def test_manager(nf_manager):
    assert callable(nf_manager)
"""


def test_fixtures_are_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN)
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1, failed=1)
    pytester.runpytest("-p", "no:cacheprovider", "--onvm-update-golden").assert_outcomes(passed=2)
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=2)


pytest_plugins = ["pytester"]
