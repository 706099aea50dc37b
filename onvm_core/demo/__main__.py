"""``make demo``: traffic through firewall, NAT and load balancer, then a service that scales out.

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
from pathlib import Path

from onvm_core.cli.manager.report import print_report
from onvm_core.cli.manager.run import RunRequest, run_once
from onvm_core.demo.scale import losses
from onvm_core.export.report import Report
from onvm_sdk.errors import OnvmError

__all__ = ["main"]

CHAIN = ("firewall", "nat", "lb")
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
    print(f"Chain: {' → '.join(CHAIN)}, each in a process of its own.", flush=True)
    if pcap is None:
        output = output or Path("demo-out.pcapng")
        near, far = f"gen:?flows=4000&seed=1&timeout_ms=3000&count={PACKETS}", "gen:"
        print(f"Traffic: generated client and server, {PACKETS:,} packets.\n", flush=True)
    else:
        output = output or Path("demo-out.pcap")
        near, far = f"pcap:{pcap}", f"pcap:{output}"
        print(f"Traffic: {pcap}.\n", flush=True)
    report = run_once(
        RunRequest(
            near=near,
            far=far,
            nfs=CHAIN,
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
