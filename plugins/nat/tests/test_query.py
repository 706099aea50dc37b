# SPDX-License-Identifier: Apache-2.0
"""Queries of ICMP."""

from __future__ import annotations

import pytest
from nat_bed import (
    I1,
    I2,
    O1,
    O2,
    E,
    Nat,
    src,
)

from onvm_sdk.testing.frames import echo, icmp_error


@pytest.mark.parametrize("query", [8, 13, 15, 17, 42])
def test_all_queries_are_mapped(query: int) -> None:  # RFC 5508 REQ-1, REQ-1a
    nat = Nat()
    first, second = (src(nat.out(echo(inside, O1, 2000, query)))[1] for inside in (I1, I2))
    assert first != second
    assert src(nat.out(echo(I1, O2, 2000, query)))[1] == first, "whatever host is asked"
    reply = {8: 0, 42: 43}.get(query, query + 1)
    assert nat.back(echo(O1, E, second, reply)) == echo(O1, I2, 2000, reply)
    sent = nat.out(echo(I2, O1, 2000, query))
    assert nat.back(icmp_error(O2, E, sent)) == icmp_error(O2, I2, echo(I2, O1, 2000, query))
    assert nat.dropped(echo(O1, E, second, query)) == "no_mapping", "no query comes from outside"
    assert nat.dropped(echo(I1, O1, 7, reply), reverse=False) == "no_mapping"
    assert nat.dropped(echo(I1, E, first, query), reverse=False) == "no_mapping"
    assert nat.count("mappings_opened") == 2


@pytest.mark.parametrize("kind", [5, 9, 10, 40, 255])
def test_other_icmp_is_dropped(kind: int) -> None:  # RFC 5508 REQ-11
    nat = Nat()
    port = src(nat.out(echo(I1, O1, 7)))[1]
    assert nat.dropped(echo(I1, O1, 7, kind), reverse=False) == "protocol"
    assert nat.dropped(echo(O1, E, port, kind)) == "protocol"
