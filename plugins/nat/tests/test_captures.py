# SPDX-License-Identifier: Apache-2.0
"""Real captures through the NAT and back: kernel against model, and replies find their way home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onvm_nf_nat import Nat
from onvm_nf_nat.config import load
from onvm_nf_nat.model import Drop, NatModel
from shared_data import captures, frames_of

from onvm_sdk.headers import ICMP, L3, L4, TCP, UDP, checksum, read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import icmp_error, is_sound
from onvm_sdk.verdict import Verdict

NS = 1_000_000_000
FRAMES_MAX = 500
EXTERNAL = bytes((192, 0, 2, 1))
CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {
        "inside": ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"],
        "ports": "2000-2099",
        "filtering": "address-and-port-dependent",
        "max_sessions": 64,
    },
]


def swapped(frame: bytes) -> bytes:
    """The frame with its two ends exchanged: a reply. Sums stay as they are, right or wrong."""
    h = read_headers(frame)
    ip, l4 = h.l3_offset + 12, h.l4_offset
    frame = frame[:ip] + h.dst + h.src + frame[ip + 8 :]
    if h.protocol == ICMP:
        old, new = frame[l4 : l4 + 2], bytes((8 - frame[l4], frame[l4 + 1]))
        total = 0xFFFF ^ int.from_bytes(frame[l4 + 2 : l4 + 4], "big")
        total += (0xFFFF ^ int.from_bytes(old, "big")) + int.from_bytes(new, "big")
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        return frame[:l4] + new + (0xFFFF ^ total).to_bytes(2, "big") + frame[l4 + 4 :]
    return frame[:l4] + frame[l4 + 2 : l4 + 4] + frame[l4 : l4 + 2] + frame[l4 + 4 :]


def is_translatable(frame: bytes) -> bool:
    """Whether the default configuration gives it a session, and it has one to come back by."""
    h = read_headers(frame)
    if h.l3 is not L3.OK or h.version != 4 or h.l4 is not L4.OK or h.is_fragment:
        return False
    if h.dst == EXTERNAL or h.protocol not in (TCP, UDP, ICMP):
        return False
    if any(a[0] in (0, 127) or a[0] >> 4 == 14 or a == b"\xff" * 4 for a in (h.src, h.dst)):
        return False
    return h.protocol != ICMP or frame[h.l4_offset] == 8


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=["default", "small"])
@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_kernel_agrees_with_model_on_capture(
    path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.randbits", lambda bits: 0)  # the key of the model
    frames, model = frames_of(path, FRAMES_MAX), NatModel(load(config))
    with Runner(Nat, config=config) as runner:
        for reverse in (False, True):
            result = runner.run(frames, reverse=reverse, now_ns=NS)
            assert not result.broken
            for i, frame in enumerate(frames):
                try:
                    expected = model.translate(frame, reverse, NS)
                except Drop as drop:
                    assert result.reasons[i] == drop.args[0], i
                    continue
                assert result.verdicts[i] is (
                    Verdict.OUT if expected.is_hairpin else Verdict.NEXT
                ), i
                assert result.packets[i] == expected.data, i
            frames = [swapped(p) for p in result.packets if is_translatable(p)]


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_replies_come_back_to_the_original_ends(path: Path) -> None:
    frames = [frame for frame in frames_of(path, FRAMES_MAX) if is_translatable(frame)]
    with Runner(Nat) as runner:
        left = runner.run(frames)
        assert set(left.verdicts) <= {Verdict.NEXT}
        for before, after in zip(frames, left.packets, strict=True):
            h = read_headers(after)
            assert h.src == EXTERNAL
            assert is_sound(after) == is_sound(before), "a wrong checksum stays wrong"
        back = runner.run([swapped(frame) for frame in left.packets], reverse=True)
    for original, done in zip(frames, back.packets, strict=True):
        home, first = read_headers(done), read_headers(original)
        assert (home.dst, home.src) == (first.src, first.dst)
        if first.protocol == ICMP:
            assert home.icmp_id == first.icmp_id
        else:
            assert (home.dst_port, home.src_port) == (first.src_port, first.dst_port)
    assert set(back.verdicts) <= {Verdict.NEXT}


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_errors_about_what_left_come_back_about_the_original(path: Path) -> None:
    frames = [
        frame
        for frame in frames_of(path, FRAMES_MAX)[:100]
        if is_translatable(frame) and _header_is_sound(frame)  # RFC 5508 REQ-3a
    ]
    with Runner(Nat) as runner:
        left = runner.run(frames).packets
        errors = [
            _tagged_as(frame, icmp_error("203.0.113.9", "192.0.2.1", _untagged(frame), size=64))
            for frame in left
        ]
        back = runner.run(errors, reverse=True)
    assert set(back.verdicts) <= {Verdict.NEXT}
    for original, done in zip(frames, back.packets, strict=True):
        outer, first = read_headers(done), read_headers(original)
        assert outer.dst == first.src
        assert is_sound(done)
        inner = bytes(done[outer.l4_offset + 8 :])
        size = (inner[0] & 15) * 4
        assert inner[12:20] == first.src + first.dst
        assert checksum(inner[:size]) == checksum(
            original[first.l3_offset : first.l3_offset + size]
        )
        at = 4 if first.protocol == ICMP else 0
        l4 = original[first.l4_offset :]
        assert inner[size + at : size + at + 4] == l4[at : at + 4]


def _header_is_sound(frame: bytes) -> bool:
    h = read_headers(frame)
    return checksum(frame[h.l3_offset : h.l4_offset]) == 0


def _untagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x08\0" + frame[read_headers(frame).l3_offset :]


def _tagged_as(frame: bytes, other: bytes) -> bytes:
    """The frame `other` in the VLANs of `frame`."""
    return other[:12] + frame[12 : read_headers(frame).l3_offset - 2] + other[12:]
