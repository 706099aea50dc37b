# SPDX-License-Identifier: Apache-2.0
"""ACLs of ClassBench's sizes and shapes give the first match of every trace packet."""

from __future__ import annotations

import gzip
import os
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np
import pytest

from onvm_sdk.tables import Acl, AclRule, pack_tuple

GIVEN = os.environ.get("ONVM_SHARED_DATA")
DATA = Path(GIVEN) if GIVEN else Path(__file__).resolve().parents[3] / "shared" / "data"


def read(path: Path) -> list[str]:
    return (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()).read().splitlines()


def rule_of(line: str) -> AclRule:
    src, dst, sport, dport, protocol = line.lstrip("@").split("\t")[:5]
    number, mask = (int(part, 16) for part in protocol.split("/"))
    first = [[int(port) for port in text.split(":")] for text in (sport, dport)]
    ranges = [range(low, high + 1) for low, high in first]
    nets = (ip_network(net, strict=False) for net in (src, dst))
    return AclRule(*nets, number if mask else None, *ranges)


SETS = [
    ("classbench/rules/acl1_1k.rules", "classbench/traces/acl1_1k.trace.gz", 4),
    ("classbench/rules/fw1_1k.rules", "classbench/traces/fw1_1k.trace.gz", 4),
    ("classbench/rules/ipc1_1k.rules", "classbench/traces/ipc1_1k.trace.gz", 4),
    ("classbench/rules/acl1_10k.rules.gz", "classbench/traces/acl1_10k.trace.gz", 4),
    ("classbench_v6/acl1_1k.v6.rules.gz", "classbench_v6/acl1_1k.v6.trace.gz", 6),
    ("classbench_v6/fw1_1k.v6.rules.gz", "classbench_v6/fw1_1k.v6.trace.gz", 6),
]


@pytest.mark.parametrize(("rules", "trace", "version"), SETS)
def test_first_match_of_every_packet(rules: str, trace: str, version: int) -> None:
    if not (DATA / rules).is_file():
        pytest.skip("shared test data is not there (ONVM_SHARED_DATA)")
    tuples, expected = [], []
    for line in read(DATA / trace):
        src, dst, sport, dport, protocol, index = line.split("\t")
        if version == 4:
            src, dst = str(IPv4Address(int(src))), str(IPv4Address(int(dst)))
        tuples.append(pack_tuple(src, dst, int(protocol), int(sport), int(dport)))
        expected.append(int(index) + 1)
    with Acl([rule_of(line) for line in read(DATA / rules)], version=version) as acl:
        assert np.array_equal(acl.lookup(b"".join(tuples)), expected)
