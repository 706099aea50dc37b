"""Captures through chains, one after the other, in one manager.

Usage: captures.py DIRECTORY FUSED OUTPUT_FOLDER CAPTURE…; one line of JSON per capture and chain.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bed import Bed, say

from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import PcapPort
from onvm_sdk.manifest import LOANED_USUAL

NFS = ("firewall", "nat", "lb")
CHAINS: tuple[tuple[str, ...], ...] = ((), ("firewall",), ("nat",), ("lb",), NFS)
TIMEOUT_S = 20.0


def total_drops(bed: Bed) -> dict[str, int]:
    drops = dict(bed.plane.read_plane().drops)
    drops["by_nfs"] = sum(
        sum(map(sum, bed.plane.read_host(host.slot).drops))
        for host in bed.manager.registry.living()
    )
    return drops


def is_back(buffers: dict[str, int]) -> bool:
    """True if all buffers are in the pool but those that the NAT may fill."""
    return buffers["total"] - buffers["free"] == buffers["with_nfs"] == LOANED_USUAL


def through(bed: Bed, capture: str, chain: tuple[str, ...], output: Path) -> None:
    try:
        near = bed.plane.open_port("in", PcapPort(rx_path=capture))
    except DataplaneError as error:
        say(capture=capture, chain=chain, error=str(error))
        return
    far = bed.plane.open_port("out", PcapPort(tx_path=str(output)))
    ports = [bed.add(near), bed.add(far)]
    before, originated = total_drops(bed), bed.plane.read_plane().originated
    bed.chain(1, ports, chain, track_flows=len(capture) % 2 == 0)
    bed.until(
        lambda: bool(bed.plane.read_port(near).is_finished) and bed.is_drained(),
        TIMEOUT_S,
        f"{capture} through {chain}",
    )
    bed.until(
        lambda: is_back(bed.buffers()),
        2,
        f"buffers are back after {capture} through {chain}",
    )
    drops = {key: n - before[key] for key, n in total_drops(bed).items() if n != before[key]}
    say(
        capture=capture,
        chain=chain,
        rx=bed.plane.read_port(near).rx,
        tx=bed.plane.read_port(far).tx,
        originated=bed.plane.read_plane().originated - originated,
        drops=drops,
        output=str(output),
    )
    bed.plane.remove_chain(1)
    for port in ports:
        bed.close_port(port)


def main() -> None:
    directory, is_fused, folder, *captures = sys.argv[1:]
    chains = (NFS,) if is_fused == "fused" else CHAINS
    groups = [",".join(NFS)] if is_fused == "fused" else list(NFS)
    with Bed(Path(directory), ring_length=1024) as bed:
        for group in groups:
            bed.start(
                sys.executable,
                "-P",
                "-m",
                "onvm_sdk.runtime",
                "--socket",
                bed.manager.attach_path,
                "--nf",
                group,
                "--leave-with-manager",
            )
        bed.until(lambda: all(map(bed.serving, NFS)), 20, "NFs serve")
        for number, capture in enumerate(captures):
            for chain in chains:
                name = f"{number}.pcap" if not chain else "chained.pcap"
                through(bed, capture, chain, Path(folder) / name)
        say(balance=bed.balance(), buffers=bed.buffers(), reserved=bed.reserved())


main()
