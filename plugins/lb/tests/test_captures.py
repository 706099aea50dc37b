# SPDX-License-Identifier: Apache-2.0
"""Real captures to VIPs of their own: kernel against model, and replies come from the VIP."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from onvm_nf_lb import Lb
from onvm_nf_lb.config import load
from onvm_nf_lb.model import Drop, LbModel
from shared_data import captures, frames_of

from onvm_sdk.headers import L4, TCP, UDP, read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import is_sound
from onvm_sdk.verdict import Verdict

NS = 1_000_000_000
FRAMES_MAX = 500


def is_plain(frame: bytes) -> bool:
    h = read_headers(frame)
    return h.l4 is L4.OK and h.protocol in (TCP, UDP) and not h.is_fragment


def is_host(address: bytes) -> bool:
    return address[0] < 224 and any(address)


def config_for(frames: list[bytes]) -> dict[str, Any]:
    """The two most usual destinations of each IP version become VIPs."""
    vips = []
    for version, backends in ((4, "203.0.113.{}"), (6, "2001:db8:ffff::{}")):
        seen = Counter(
            (h.dst, h.protocol)
            for h in map(read_headers, filter(is_plain, frames))
            if h.version == version and is_host(h.dst)
        )
        vips += [
            {
                "address": _text(address),
                "protocol": "tcp" if protocol == TCP else "udp",
                "backends": [{"address": backends.format(i + 1)} for i in range(3)],
            }
            for (address, protocol), _ in seen.most_common(2)
        ]
    return {"vips": vips, "table_size": 251}


def _text(address: bytes) -> str:
    from ipaddress import ip_address

    return str(ip_address(address))


def swapped(frame: bytes) -> bytes:
    """The frame with its two ends exchanged: a reply."""
    h = read_headers(frame)
    ip, size = h.l3_offset + (12 if h.version == 4 else 8), len(h.src)
    frame = frame[:ip] + h.dst + h.src + frame[ip + 2 * size :]
    l4 = h.l4_offset
    return frame[:l4] + frame[l4 + 2 : l4 + 4] + frame[l4 : l4 + 2] + frame[l4 + 4 :]


def ends(frame: bytes) -> tuple[Any, Any]:
    h = read_headers(frame)
    return (h.src, h.src_port), (h.dst, h.dst_port)


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_kernel_agrees_with_model_both_ways(path: Path) -> None:
    frames = frames_of(path, FRAMES_MAX)
    config = config_for(frames)
    model = LbModel(load(config))
    there: list[tuple[bytes, bytes]] = []
    with Runner(Lb, config=config) as runner:
        result = runner.run(frames, now_ns=NS)
        assert not result.broken
        for i, frame in enumerate(frames):
            try:
                expected = model.balance(frame, NS)
            except Drop as drop:
                assert result.reasons[i] == drop.args[0], i
                continue
            assert result.verdicts[i] is (Verdict.OUT if expected.is_out else Verdict.NEXT)
            assert result.packets[i] == expected.data, i
            if is_plain(frame) and ends(expected.data)[1] != ends(frame)[1]:
                assert is_sound(result.packets[i]) == is_sound(frame), i
                there.append((frame, result.packets[i]))
        back = runner.run([swapped(after) for _, after in there], reverse=True, now_ns=NS)
    for (before, _), reply in zip(there, back.packets, strict=True):
        assert ends(reply) == ends(before)[::-1]
