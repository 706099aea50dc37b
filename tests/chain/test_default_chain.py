# SPDX-License-Identifier: Apache-2.0
"""firewall → nat → lb with no configuration, both ways."""

from __future__ import annotations

import pytest

from onvm_sdk.headers import read_headers
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import is_sound, tcp, udp
from onvm_sdk.verdict import Verdict

pytest.importorskip("onvm_nf_firewall")
pytest.importorskip("onvm_nf_nat")
pytest.importorskip("onvm_nf_lb")


@pytest.mark.parametrize("make", [tcp, udp])
def test_request_and_reply(make) -> None:
    with Runner(["firewall", "nat", "lb"]) as there, Runner("lb") as unrelated:
        request = make("10.0.0.5", 4000, "198.51.100.10", 80)
        sent = there.run([request]).packets[0]
        h = read_headers(sent)
        assert (h.src, h.src_port) == (bytes((192, 0, 2, 1)), 4000)
        assert h.dst[:3] == bytes((203, 0, 113))
        assert is_sound(sent)
        other = make("192.0.2.9", 1, "192.0.2.8", 2)
        assert unrelated.run([other]).packets == [other]


def test_garbage_is_dropped_by_the_firewall() -> None:
    with Runner(["firewall", "nat", "lb"]) as chain:
        result = chain.run([b"", bytes(13), tcp("10.0.0.1", 1, "10.0.0.2", 2)[:40]])
        assert result.verdicts == [Verdict.DROP] * 3
        assert set(result.reasons) == {"malformed"}
