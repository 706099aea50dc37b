# SPDX-License-Identifier: Apache-2.0
"""Real captures through kernel and model; real rule sets against their traces."""

from __future__ import annotations

import gzip
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from onvm_nf_firewall import Firewall
from onvm_nf_firewall.config import load
from onvm_nf_firewall.kernel import make_kernel, rule_hits
from onvm_nf_firewall.model import FirewallModel
from shared_data import captures, frames_of, need_data

from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ip
from onvm_sdk.testing.kernel import DROP, NEXT, KernelRunner, Packet

NS = 1_000_000_000
FRAMES_MAX = 1000
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "all pass": {},
    "out only": {
        "default": "drop",
        "fragments": "drop",
        "non_ip": "drop",
        "max_connections": 64,
        "rules": [
            {"action": "accept", "protocol": "tcp", "dst_ports": "1-1023"},
            {"action": "accept", "protocol": "udp", "dst_ports": 53},
            {"action": "accept", "protocol": "icmp"},
        ],
    },
    "some bad": {"rules": [{"action": "drop", "protocol": "tcp", "dst_ports": "80-443"}]},
}


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_kernel_agrees_with_model_on_capture(path: Path) -> None:
    frames = frames_of(path, FRAMES_MAX)
    for title, config in CONFIGURATIONS.items():
        model = FirewallModel(load(config))
        expected = [model.judge(frame, NS) for frame in frames]
        with Runner(Firewall, config=config) as runner:
            result = runner.run(frames, now_ns=NS)
        assert result.packets == frames, "a firewall changes nothing"
        assert result.reasons == expected, title
        assert not result.broken


@pytest.mark.parametrize(
    "path", sorted(need_data("firewall", "real_acl").glob("*.acl.json.gz")), ids=lambda p: p.name
)
def test_real_rule_set_gives_the_first_match_of_its_trace(path: Path) -> None:
    acl = json.loads(gzip.decompress(path.read_bytes()))
    rules = [
        {
            "action": rule["action"].lower(),
            "protocol": rule["proto"],
            "src": rule["src"],
            "dst": rule["dst"],
            "src_ports": "-".join(map(str, rule["sport"])),
            "dst_ports": "-".join(map(str, rule["dport"])),
        }
        for rule in acl["rules"]
    ]
    kernel = make_kernel(
        load({"default": acl["default"].lower(), "rules": rules, "stateful": False})
    )
    trace_path = Path(str(path).replace(".acl.json", ".trace"))
    trace = [
        line.split() for line in gzip.decompress(trace_path.read_bytes()).decode().splitlines()
    ]
    packets, matches, hits = [], [], [0] * len(rules)
    for src, dst, sport, dport, protocol, rule, verdict in trace:
        ports = int(sport).to_bytes(2, "big") + int(dport).to_bytes(2, "big")
        if int(protocol) in (6, 17, 33, 132, 136):
            l4 = ports + {6: bytes(8) + b"\x50" + bytes(7), 17: b"\0\x08\0\0"}.get(
                int(protocol), bytes(8)
            )
        elif int(sport) or int(dport):
            continue  # a packet of this protocol has no ports
        else:
            l4 = bytes(8)
        packets.append(
            Packet(ip(str(IPv4Address(int(src))), str(IPv4Address(int(dst))), int(protocol), l4))
        )
        matches.append((int(rule), NEXT if verdict == "ACCEPT" else DROP))
        if int(rule) >= 0:
            hits[int(rule)] += 1
    assert len(packets) > len(trace) / 3
    runner = KernelRunner(kernel)
    done = [p for i in range(0, len(packets), 512) for p in runner.run(packets[i : i + 512])]
    for (rule, verdict), packet in zip(matches, done, strict=True):
        assert packet.verdict == verdict
        if verdict == DROP:
            assert packet.destination == (1 if rule < 0 else 0)
    assert rule_hits(kernel, len(rules)) == hits


def test_prefixes_of_a_block_list_are_found(tmp_path: Path) -> None:
    folder = need_data("firewall", "ipsets")
    name = "ipsum__levels_1.txt"
    (tmp_path / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    lines = gzip.decompress((folder / "ipsum__levels_1.txt.lookups.gz").read_bytes()).decode()
    expected = [line.split() for line in lines.splitlines()]
    runner = KernelRunner(
        make_kernel(
            load(
                {
                    "stateful": False,
                    "set_files": [str(tmp_path / name)],
                    "rules": [{"action": "drop", "src": "@ipsum__levels_1"}],
                }
            )
        )
    )
    done = runner.run([Packet(ip(source, "10.0.0.1", 47, bytes(8))) for source, _ in expected])
    assert len(done) == 20_000
    assert [str(int(packet.verdict == DROP)) for packet in done] == [said for _, said in expected]
