"""``make demo``: traffic through router, firewall, NAT and load balancer; then a scale-out.

    python -P -m onvm_core.demo [--pcap FILE] [--seconds S] [--output FILE]

Without a capture, a generated client talks to a generated server through the chain. Every
connection is checked end to end, and the packets that leave the chain are written as pcapng. Then
the load on a service rises, and the service scales out (`scale.py`, in its own process, because
DPDK starts only once in each). With a capture, the demo sends that and writes the result.

The exit status is 0 only if every connection completed, no packet was lost, and the service scaled
out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from onvm_core.cli.manager.report import print_report
from onvm_core.cli.manager.run import RunRequest, run_once
from onvm_core.demo.scale import losses
from onvm_core.export.report import Report
from onvm_core.manager.nf_hosts.codec import PortLink
from onvm_sdk.errors import OnvmError

__all__ = ["main"]

CHAIN = ("router", "firewall", "nat", "lb", "router")
CAPTURE_CHAIN = ("firewall", "nat", "lb")
"""For captures, whose frames are addressed to other routers."""
MAC = "02:00:00:00:00:02"
"""The address to which generated clients and servers send."""
LINKS = {
    "in": PortLink(("192.168.0.1/24", "fd00::1/64"), mac=MAC),
    "out": PortLink(("192.0.2.254/24", "fd01::1/64"), mac=MAC),
}
ROUTES = """
[[routes]]
prefix = "10.0.0.0/8"
via = "192.168.0.2"
[[routes]]
prefix = "2001:2:0:1::/64"
via = "fd00::2"
[[routes]]
prefix = "0.0.0.0/0"
via = "192.0.2.2"
[[routes]]
prefix = "::/0"
via = "fd01::2"
"""
"""Generated hosts stand behind routers, which answer ARP and neighbour discovery."""
DEFAULT_SECONDS = 25.0
# So the NAT of the chain has a port for every connection.
PACKETS = 800_000
CAPTURED_PACKETS = 100_000


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(prog="onvm_core.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--pcap", type=Path, help="capture to send instead of generated traffic")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="how long, at most")
    parser.add_argument("--output", type=Path, help="file for what leaves the chain")
    options = parser.parse_args(arguments)
    try:
        is_good = _demo(options.pcap, options.seconds, options.output)
    except OnvmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.pcap is not None:
        return 0
    done = subprocess.run([sys.executable, "-P", "-m", "onvm_core.demo.scale"], check=False)
    return done.returncode or (0 if is_good else 1)


def _demo(pcap: Path | None, seconds: float, output: Path | None) -> bool:
    """True if no packet was lost."""
    chain = CHAIN if pcap is None else CAPTURE_CHAIN
    print(f"Chain: {' → '.join(chain)}, each in a process of its own.", flush=True)
    if pcap is None:
        output = output or Path("demo-out.pcapng")
        near, far = f"gen:?flows=4000&seed=1&timeout_ms=3000&count={PACKETS}", "gen:"
        print(f"Traffic: generated client and server, {PACKETS:,} packets.\n", flush=True)
    else:
        output = output or Path("demo-out.pcap")
        near, far = f"pcap:{pcap}", f"pcap:{output}"
        print(f"Traffic: {pcap}.\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        router = Path(folder) / "router.toml"
        router.write_text(ROUTES, encoding="utf-8")
        report = run_once(
            RunRequest(
                near=near,
                far=far,
                nfs=chain,
                configs={"router": router} if pcap is None else {},
                links=LINKS if pcap is None else {},
                duration_s=seconds,
                track_flows=True,
                wants_progress=True,
                capture=output if pcap is None else None,
                capture_limit=CAPTURED_PACKETS,
            )
        )
    print_report(report)
    _conclude(report, output, is_capture=pcap is None)
    return not losses(report)


def _conclude(report: Report, output: Path, *, is_capture: bool) -> None:
    size = output.stat().st_size / 1e6
    what = f"The first {CAPTURED_PACKETS:,} packets" if is_capture else "The packets"
    print(f"\n{what} that left the chain: {output.absolute()} ({size:,.1f} MB)")
    for generator in report.generators:
        if generator.bad_checksum or generator.bad_payload or generator.out_of_order:
            print("Some replies were damaged or out of order; see the table.")
    for line in losses(report) if is_capture else []:
        print(f"This went wrong: {line}.")


if __name__ == "__main__":
    sys.exit(main())
