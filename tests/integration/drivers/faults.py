"""NFs that die, chains that change and flows that come back, under load.

Usage: faults.py DIRECTORY HOSTILE_NF CASE [WORKERS]; one line of JSON.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from bed import Bed, say

import onvm_core
from onvm_core.dataplane.values import NullPort
from onvm_core.manager.nf_hosts.registry import HostState

BENCH_NF = Path(onvm_core.__file__).parent / "bin" / "onvm-bench-nf"


class Cases:
    """Each case leaves the bed running; what it returns is in the driver's line."""

    def __init__(self, bed: Bed, program: str) -> None:
        self.bed = bed
        self.program = program

    def nf(self, service: str, mode: str = "behave"):
        process = self.bed.start(self.program, self.bed.manager.attach_path, service, mode)
        self.bed.until(
            lambda: any(h.state is HostState.ACTIVE for h in self.bed.hosts_of(process)),
            5,
            f"{service} serves",
        )
        return process

    def kill_200(self) -> dict[str, object]:
        """kill -9 under load; another chain carries traffic, and so does a second instance."""
        bed = self.bed
        bed.chain(1, (pair := bed.null_pair(rate_pps=100_000)), ["good"], track_flows=False)
        bed.chain(2, bed.null_pair(flows=64), ["a", "b"], track_flows=True)
        for service in ("good", "a", "b"):
            self.nf(service)
        gap, restart = 0.0, []
        for turn in range(200):
            service = "ab"[turn % 2]
            process = bed.start(self.program, bed.manager.attach_path, service, "behave")
            begin = time.monotonic()
            bed.until(
                lambda p=process: any(h.state is HostState.ACTIVE for h in bed.hosts_of(p)),
                5,
                "the new one serves",
            )
            restart.append(time.monotonic() - begin)
            victim = next(h for h in bed.serving(service) if h.pid != process.pid)
            victim_process = next(p for p in bed.processes if p.pid == victim.pid)
            victim_process.send_signal(signal.SIGKILL)
            gap = max(gap, bed.longest_gap_s(pair[1], 0.015))
            bed.until(lambda h=victim: h.state is HostState.DEAD, 5, "it is gone")
            bed.kill(victim_process)
        return {
            "gap": gap,
            "restart": sorted(restart)[100],
            "paths": bed.plane.read_plane().paths,
        }

    def kill_only_instance(self) -> dict[str, object]:
        """The only instance of the middle of a chain dies again and again."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=200_000), ["a", "b", "c"], track_flows=False)
        for service in "abc":
            self.nf(service)
        for _ in range(30):
            victim = next(p for p in bed.processes if bed.hosts_of(p)[0].services == ("b",))
            bed.kill(victim)
            bed.run(0.005)
            self.nf("b")
            bed.run(0.005)
        return {}

    def wait_for_instance(self) -> dict[str, object]:
        """The only instance dies; a source that can wait and one that cannot are at its chain."""
        bed = self.bed
        bed.plane.pause_sources(True)
        patient = bed.null_pair(flows=100, count=2_000_000)
        hasty = bed.null_pair(flows=100, rate_pps=50_000)
        bed.chain(1, patient, ["a"], waits=True)
        bed.chain(2, hasty, ["a"], waits=True)
        self.nf("a")
        bed.plane.pause_sources(False)
        bed.until(lambda: bed.plane.read_port(patient[1]).tx > 10_000, 5, "traffic")
        bed.kill(bed.processes[0])
        bed.until(lambda: not list(bed.manager.registry.living()), 5, "it is gone")
        stands_at = bed.plane.read_port(patient[0]).rx
        before = bed.plane.read_plane().drops
        bed.until(
            lambda: bed.plane.read_plane().drops["waiting"] > 5000,
            5,
            "the hasty one is shed",
        )
        read_meanwhile = bed.plane.read_port(patient[0]).rx - stands_at
        dropped = {k: v for k, v in bed.plane.read_plane().drops.items() if v != before[k]}
        self.nf("a")
        bed.until(lambda: bed.plane.read_port(patient[0]).is_finished, 20, "all is read")
        bed.drain()
        drops = bed.plane.read_plane().drops
        lost = sum(v for k, v in drops.items() if k not in ("waiting", "shed"))
        return {
            "read_meanwhile": read_meanwhile,
            "dropped": sorted(dropped),
            "lost": lost,
            "died_with": drops["nf_died"],
            "patient": [bed.plane.read_port(patient[0]).rx, bed.plane.read_port(patient[1]).tx],
        }

    def pause(self) -> dict[str, object]:
        """A draining instance is held still, and its flows move to the other: none is lost."""
        bed = self.bed
        bed.plane.pause_sources(True)
        bed.chain(1, (pair := bed.null_pair(rate_pps=20_000, flows=100)), ["a"])
        first = self.nf("a")
        bed.plane.pause_sources(False)
        bed.until(lambda: bed.plane.read_plane().new_flows >= 100, 5, "all flows")
        successor = bed.hosts_of(self.nf("a"))[0]
        host = bed.hosts_of(first)[0]
        bed.manager.drain_host(host)
        bed.plane.pause_host(host.slot, True)
        bed.until(lambda: bed.plane.read_host(host.slot).reserved == 0, 5, "it holds nothing")
        bed.until(
            lambda: bed.plane.read_port(pair[1]).tx == bed.plane.read_host(host.slot).rx[0],
            5,
            "all is sent",
        )
        stands_at, sent = (
            bed.plane.read_host(host.slot).rx[0],
            bed.plane.read_port(pair[1]).tx,
        )
        bed.run(0.02)
        stood = [
            bed.plane.read_host(host.slot).rx[0] - stands_at,
            bed.plane.read_port(pair[1]).tx - sent,
        ]
        bed.plane.pause_host(host.slot, False)  # taken back
        bed.until(lambda: bed.plane.read_host(host.slot).rx[0] > stands_at + 100, 5, "it goes on")
        bed.plane.pause_host(host.slot, True)
        bed.plane.leave_host(host.slot, successor.slot)
        bed.until(
            lambda: bed.plane.read_host(successor.slot).rx[0] > 1000,
            5,
            "the successor has its flows",
        )
        return {
            "stood": stood,
            "drops": {k: v for k, v in bed.plane.read_plane().drops.items() if v},
        }

    def chain_changes(self) -> dict[str, object]:
        """Services, tracking and ports of a chain change under load."""
        bed = self.bed
        pair = bed.null_pair(rate_pps=50_000, flows=50)
        others = [
            bed.add(bed.plane.open_port(f"other{i}", NullPort(is_source=False))) for i in range(2)
        ]
        bed.plane.pause_sources(True)
        for service in "abc":
            self.nf(service)
        bed.plane.pause_sources(False)
        before: dict[str, int] = {}
        for turn in range(60):
            services = [["a"], ["a", "b", "c"], ["c", "b"], [], ["a", "b", "a"]][turn % 5]
            bed.chain(1, pair, services, track_flows=turn % 2 == 0)
            bed.run(0.01)
            before = before or bed.plane.read_plane().drops
        bed.run(0.05)
        kept = {k: v - before[k] for k, v in bed.plane.read_plane().drops.items() if v != before[k]}
        for turn in range(20):
            bed.chain(1, (pair[0], others[turn % 2]), ["a"], is_bidirectional=turn % 3 == 0)
            bed.run(0.005)
        return {"dropped_by_service_changes": kept}

    def forgotten_flows(self) -> dict[str, object]:
        """Flows are forgotten while their packets come: each is in the table once again."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=400_000, flows=2000), ["a"])
        for service in "ab":
            self.nf(service)
        seen = []
        for turn in range(150):
            bed.chain(1, bed.ports, ["ab"[turn % 2]])
            bed.run(0.04)  # each flow comes every 5 ms
            seen.append(bed.plane.read_plane().flows)
        bed.until(lambda: bed.plane.read_plane().flows == 4000, 10, "all flows are back")
        return {"most": max(seen), "keys": len(bed.plane.read_flows(10_000))}

    def drain(self) -> dict[str, object]:
        """A drained instance keeps its flows and gets no new ones."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=100_000, flows=200), ["a"], track_flows=True)
        first = self.nf("a")
        bed.until(lambda: bed.plane.read_plane().flows >= 200, 5, "all flows")
        self.nf("a")
        host = bed.hosts_of(first)[0]
        bed.plane.drain_host(host.slot)
        host.state = HostState.DRAINING
        bed.run(0.1)
        before = bed.plane.read_host(host.slot).rx[0]
        bed.run(0.1)
        kept = bed.plane.read_host(host.slot).rx[0] - before
        bed.chain(2, bed.null_pair(rate_pps=50_000, flows=100), ["a"], track_flows=True)
        bed.run(0.2)
        slots = {f.hosts for f in bed.plane.read_flows(1000) if f.chain == 2}
        return {"kept": kept, "new_flows_at_drained": (host.slot,) in slots}

    def both_directions(self) -> dict[str, object]:
        """Flows in both directions over three instances: each meets one of them."""
        bed = self.bed
        near = bed.add(bed.plane.open_port("near", NullPort(n_flows=300, rate_pps=100_000)))
        far = bed.add(bed.plane.open_port("far", NullPort(n_flows=300, rate_pps=1, count=1)))
        bed.drain()
        bed.chain(1, (near, far), ["a"], is_bidirectional=True, track_flows=True)
        for _ in range(3):
            self.nf("a")
        bed.resume()
        bed.run(0.4)
        bed.drain()
        flows = bed.plane.read_flows(10_000)
        there = {(f.src, f.src_port, f.dst, f.dst_port): f.hosts for f in flows if not f.is_reverse}
        back = {(f.dst, f.dst_port, f.src, f.src_port): f.hosts for f in flows if f.is_reverse}
        split = sum(back[key] != hosts for key, hosts in there.items() if key in back)
        both = sum(key in back for key in there)
        return {"both": both, "split": split, "instances": len(set(there.values()))}

    def expiry(self) -> dict[str, object]:
        """Flows that are idle are forgotten; a full table is counted, packets go on."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=8_000_000, flows=60_000, count=240_000), ["a"])
        self.nf("a")
        bed.run(0.6)
        full = bed.plane.read_plane()
        bed.until(lambda: bed.plane.read_plane().flows == 0, 10, "no flow is left")
        before = bed.plane.read_plane().new_flows
        bed.chain(2, again := bed.null_pair(rate_pps=50_000, flows=8000, count=8000), ["a"])
        bed.until(lambda: bed.plane.read_port(again[0]).is_finished, 5, "more flows")
        return {
            "full": full.flow_table_full,
            "again": bed.plane.read_plane().new_flows - before,
            "missed": full.drops,
        }

    def originator_dies(self) -> dict[str, object]:
        """An NF that makes packets is killed with loans in hand."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=10_000), ["a"], track_flows=False)
        for mode in ("loan_out", "loan_keep", "loan_next", "loan_to_itself"):
            process = self.nf("a", mode)
            bed.run(0.05)
            bed.kill(process)
            bed.run(0.02)
        return {}

    def full_load(self) -> dict[str, object]:
        """Fast NFs, sources that wait: nothing is dropped by the manager."""
        bed = self.bed
        bed.chain(1, bed.null_pair(flows=100, count=300_000), ["x", "y"], track_flows=True)
        for service in "xy":
            bed.start(BENCH_NF, bed.manager.attach_path, service, 1, 64, bed.nf_cpus[0])
        bed.until(lambda: bool(bed.serving("x") and bed.serving("y")), 5, "both serve")
        bed.until(lambda: bed.plane.read_port(bed.ports[0]).is_finished, 20, "all is read")
        bed.drain()
        return {"drops": {k: v for k, v in bed.plane.read_plane().drops.items() if v}}

    def recycling(self) -> dict[str, object]:
        """Hosts come and go until all paths would have been used up."""
        bed = self.bed
        bed.chain(1, bed.null_pair(rate_pps=20_000, flows=20), ["a"], track_flows=True)
        for number in range(2, 26):  # many paths for each host
            bed.chain(number, (60, 61), ["a"])
        service = bed.manager.registry.service_id("a")
        most = 0
        for cycle in range(2000):
            slot, handover = bed.plane.add_host([service], 0)
            os.close(handover.area_fd)
            bed.plane.activate_host(slot)
            bed.plane.remove_host(slot)
            if cycle % 20 == 0:
                most = max(most, bed.plane.read_plane().paths)
                bed.manager.poll(0)
        serves = bed.plane.read_plane().drops["no_instance"]
        self.nf("a")
        tx = bed.plane.read_port(bed.ports[1]).tx
        bed.until(lambda: bed.plane.read_port(bed.ports[1]).tx > tx + 1000, 5, f"traffic {serves}")
        bed.until(lambda: bed.plane.read_plane().paths < 60, 5, "retired paths are free")
        return {"most": most, "paths": bed.plane.read_plane().paths}


SETTINGS = {
    "expiry": {"flow_capacity": 16_384, "flow_idle_ms": 400},
    "recycling": {"ring_length": 128},
}


def main() -> None:
    directory, program, case, *rest = sys.argv[1:]
    settings = {"n_workers": int(rest[0]) if rest else 1, **SETTINGS.get(case, {})}
    with Bed(Path(directory), **settings) as bed:
        result = getattr(Cases(bed, program), case)()
        bed.drain()
        reserved = bed.reserved()
        for process in list(bed.processes):
            bed.kill(process)
        bed.until(lambda: not list(bed.manager.registry.living()), 5, "all NFs are gone")
        bed.run(0.05)
        result.setdefault("drops", bed.plane.read_plane().drops)
        say(reserved=reserved, buffers=bed.buffers(), balance=bed.balance(), **result)


main()
