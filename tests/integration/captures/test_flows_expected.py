"""The flow table finds the flows that nDPI found in the same captures."""

from __future__ import annotations

import gzip
import ipaddress
import json
from pathlib import Path

import pytest
from scenario import run

LEARN = """
source = plane.open_port("in", PcapPort(rx_path=arguments["path"]))
sink = plane.open_port("out", NullPort(is_source=False))
manager.set_chain(1, source, sink, [], is_bidirectional=False, track_flows=True)
plane.pause_sources(False)
until(lambda: plane.read_port(source).is_finished)
until(lambda: plane.read_plane().buffers_free == settings.n_buffers)
result = [
    [flow.protocol, flow.src, flow.src_port, flow.dst, flow.dst_port]
    for flow in plane.read_flows(1_000_000)
    if not flow.vlan & 0x8000
]
"""
PROTOCOLS = {"TCP": 6, "UDP": 17}

Flow = tuple[int, tuple[tuple[str, int], ...]]

# (only theirs, only ours): flows in which the two differ, and why
KNOWN: dict[str, tuple[int, int]] = {
    # a frame cut inside its UDP header: nDPI counts it with a port of 0, we know no ports
    "ndpi__fuzz-2006-06-26-2594.pcap": (1, 0),
    # a GTP tunnel: nDPI looks inside, the flow director at the outer header
    "ndpi__zoom.pcap": (1, 1),
}
NAMES = (
    "1kxun",
    "WebattackRCE",
    "bittorrent",
    "dnscrypt-v1-and-resolver-pings",
    "fuzz-2006-06-26-2594",
    "gnutella",
    "http_ipv6",
    "ip_fragmented_garbage",
    "netflix",
    "reddit",
    "synscan",
    "teams",
    "zoom",
)


def both_ways(protocol: int, a: str, a_port: int, b: str, b_port: int) -> Flow:
    ends = [(str(ipaddress.ip_address(a)), a_port), (str(ipaddress.ip_address(b)), b_port)]
    return protocol, tuple(sorted(ends))


@pytest.mark.parametrize("name", [f"ndpi__{name}.pcap" for name in NAMES])
def test_flows_are_those_of_ndpi(name: str, shared_data: Path, tmp_path: Path) -> None:
    (capture,) = (shared_data / "pcap").glob(f"*/{name}")
    expected_file = shared_data / "flow_expect" / f"{name}.ndpi_flows.json.gz"
    theirs = {
        both_ways(PROTOCOLS[flow["proto"]], flow["a"], flow["ap"], flow["b"], flow["bp"])
        for flow in json.loads(gzip.decompress(expected_file.read_bytes()))["flows"]
        if flow["proto"] in PROTOCOLS
    }
    answer = run(LEARN, tmp_path, path=str(capture))
    ours = {both_ways(*flow) for flow in answer["result"] if flow[0] in PROTOCOLS.values()}
    assert (len(theirs - ours), len(ours - theirs)) == KNOWN.get(name, (0, 0))
