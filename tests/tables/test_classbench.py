# SPDX-License-Identifier: Apache-2.0
"""ACLs of ClassBench's sizes and shapes give the first match of every trace packet."""

from __future__ import annotations

import gzip
import subprocess
import sys
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np
import pytest
from shared_data import need_data

from onvm_sdk.tables import Acl, AclRule, pack_tuple


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
    ("classbench/rules/fw1_10k.rules.gz", "classbench/traces/fw1_10k.trace.gz", 4),
    ("classbench/rules/ipc1_10k.rules.gz", "classbench/traces/ipc1_10k.trace.gz", 4),
    ("classbench_v6/acl1_1k.v6.rules.gz", "classbench_v6/acl1_1k.v6.trace.gz", 6),
    ("classbench_v6/fw1_1k.v6.rules.gz", "classbench_v6/fw1_1k.v6.trace.gz", 6),
]


@pytest.mark.parametrize(("rules", "trace", "version"), SETS)
def test_first_match_of_every_packet(rules: str, trace: str, version: int) -> None:
    tuples, expected = [], []
    for line in read(need_data(trace)):
        src, dst, sport, dport, protocol, index = line.split("\t")
        if version == 4:
            src, dst = str(IPv4Address(int(src))), str(IPv4Address(int(dst)))
        tuples.append(pack_tuple(src, dst, int(protocol), int(sport), int(dport)))
        expected.append(int(index) + 1)
    with Acl([rule_of(line) for line in read(need_data(rules))], version=version) as acl:
        assert np.array_equal(acl.lookup(b"".join(tuples)), expected)


MEASURE = """
import resource, sys
sys.path[:] = sys.argv[2:]
from pathlib import Path
from test_classbench import Acl, read, rule_of
rules = [rule_of(line) for line in read(Path(sys.argv[1]))]
Acl(rules[:1]).close()  # starts DPDK
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
Acl(rules).close()
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["fw1_10k", "fw3_10k", "ipc1_10k"])
def test_large_sets_build_in_little_memory(name: str) -> None:
    rules = need_data("classbench", "rules", f"{name}.rules.gz")
    command = [
        sys.executable,
        "-P",
        "-c",
        MEASURE,
        str(rules),
        str(Path(__file__).parent),
        *sys.path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 256, "megabytes; in one trie fw1_10k took 1,075"
