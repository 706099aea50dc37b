"""Exporter "prometheus": a file for the textfile collector of node_exporter.

It uses the text format 0.0.4: each metric has HELP and TYPE once, then all its series, each once.
Names of metrics that only grow end in ``_total``. A new file is written beside the old one and then
renamed, so a reader never sees half a file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onvm_core.export.report import NfReport, PortReport
from onvm_core.export.snapshot import Snapshot, file_option

__all__ = ["HELP", "Prometheus", "exposition", "families", "text_of"]

HELP = {
    "received_packets_total": "Packets received on all ports.",
    "sent_packets_total": "Packets sent on all ports.",
    "originated_packets_total": "Packets made by NFs.",
    "dropped_packets_total": "Packets dropped, by reason.",
    "port_received_packets_total": "Packets received on a port.",
    "port_received_bytes_total": "Bytes received on a port.",
    "port_sent_packets_total": "Packets sent on a port.",
    "port_sent_bytes_total": "Bytes sent on a port.",
    "nf_received_packets_total": "Packets handed to an NF instance.",
    "nf_sent_packets_total": "Packets that an NF instance passed on.",
    "nf_originated_packets_total": "Packets that an NF instance made.",
    "nf_held_packets": "Packets that an NF instance holds to release them later.",
    "nf_hold_refused_packets_total": "Packets that an NF instance could not hold any more.",
    "nf_dropped_packets_total": "Packets that an NF instance dropped, by reason.",
    "nf_counter_total": "Counters that an NF keeps itself.",
    "nf_instances": "NF instances by state.",
    "nf_utilisation_ratio": "Share of its capacity that an NF instance uses.",
    "nf_spare_packets_per_second": "Packets per second that an NF instance could take on top.",
    "nf_occupancy_ratio": "Share of its places for packets that is taken, on average.",
    "nf_shed_packets": "Packets shed in the last second because an NF instance had no room.",
    "nf_cpu_ratio": "CPU time of an NF instance, as a share of one core.",
    "nf_latency_seconds": "Time of packets from the manager to an NF and back, by quantile.",
    "port_up": "1: the port has a link; 0: it is down, or its device is gone.",
    "peer_up": "1 if another host of the cluster answers probes, else 0.",
    "peer_sent_packets_total": "Packets sent to another host of the cluster.",
    "peer_received_packets_total": "Packets received from another host of the cluster.",
    "flows": "Flows in the flow table.",
    "buffers": "Packet buffers by holder.",
    "uptime_seconds": "Time since the manager started.",
}
"""Help by the name of the metric, without ``onvm_``."""

Labels = tuple[tuple[str, str], ...]


class Prometheus:
    """Options: ``file``, whose name ends with ``.prom``."""

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        self._path = file_option(options, folder, ".prom")
        # node_exporter reads what ends with .prom: the unfinished file does not.
        self._new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file, which would show old figures forever."""
        self._new.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def export(self, snapshot: Snapshot) -> None:
        """Replace the file."""
        self._new.write_text(exposition(snapshot), encoding="utf-8")
        self._new.chmod(0o644)  # node_exporter is another user
        self._new.replace(self._path)


def families(snapshot: Snapshot) -> Iterator[tuple[str, str, list[tuple[Labels, float]]]]:
    """The metrics of a snapshot: name, help, and each series once, with its labels."""
    found: dict[str, dict[Labels, float]] = {}
    for name, labels, value in _series(snapshot):
        family = found.setdefault(name, {})
        # Instances that died are listed beside those that took their names: one series for both.
        whole = (("manager", snapshot.manager), *labels)
        family[whole] = family.get(whole, 0) + value
    for name, family in found.items():
        yield f"onvm_{name}", HELP[name], list(family.items())


def exposition(snapshot: Snapshot) -> str:
    """A snapshot in the text format."""
    lines = []
    for name, help_text, series in families(snapshot):
        lines.append(f"# HELP {name} {_escape_help(help_text)}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for labels, value in series:
            text = ",".join(f'{key}="{_escape_label(label)}"' for key, label in labels)
            lines.append(f"{name}{{{text}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def text_of(metrics: Mapping[str, tuple[str, float]], labels: Labels) -> str:
    """Metrics with one series each, in the text format.

    Args:
        metrics: by name, without ``onvm_``: their help and value.
        labels: of all of them.
    """
    shown = ",".join(f'{key}="{_escape_label(label)}"' for key, label in labels)
    return "".join(
        f"# HELP onvm_{name} {_escape_help(text)}\n"
        f"# TYPE onvm_{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
        f"onvm_{name}{{{shown}}} {_number(value)}\n"
        for name, (text, value) in metrics.items()
    )


def _series(snapshot: Snapshot) -> Iterator[tuple[str, Labels, float]]:
    report = snapshot.report
    yield "uptime_seconds", (), snapshot.uptime_s
    yield "received_packets_total", (), report.rx
    yield "sent_packets_total", (), report.tx
    yield "originated_packets_total", (), report.originated
    for reason, count in report.drops.items():
        yield "dropped_packets_total", (("reason", reason),), count
    yield "flows", (), report.flows
    for holder, count in (
        ("pool", report.buffers.free),
        ("nfs", report.buffers.with_nfs),
        ("manager", report.buffers.total - report.buffers.free - report.buffers.with_nfs),
    ):
        yield "buffers", (("holder", holder),), count
    for port in report.ports:
        yield from _port(port)
    for nf in report.nfs:
        yield from _nf(nf)
    for peer in snapshot.peers:
        labels = (("peer", peer.name),)
        yield "peer_up", labels, int(peer.is_up)
        yield "peer_sent_packets_total", labels, peer.tx
        yield "peer_received_packets_total", labels, peer.rx


def _port(port: PortReport) -> Iterator[tuple[str, Labels, float]]:
    labels = (("port", port.name),)
    yield "port_received_packets_total", labels, port.rx
    yield "port_received_bytes_total", labels, port.rx_bytes
    yield "port_sent_packets_total", labels, port.tx
    yield "port_sent_bytes_total", labels, port.tx_bytes
    yield "port_up", labels, int(port.state == "up")


def _nf(nf: NfReport) -> Iterator[tuple[str, Labels, float]]:
    labels = (("service", nf.service), ("instance", nf.instance))
    yield "nf_received_packets_total", labels, nf.rx
    yield "nf_sent_packets_total", labels, nf.tx
    yield "nf_originated_packets_total", labels, nf.originated
    for reason, count in nf.drops.items():
        yield "nf_dropped_packets_total", (*labels, ("reason", reason)), count
    for name, count in nf.counters.items():
        yield "nf_counter_total", (*labels, ("counter", name)), count
    yield "nf_hold_refused_packets_total", labels, nf.hold_refused
    if nf.is_gone:
        return
    yield "nf_cpu_ratio", labels, nf.cpu
    for quantile, value in (("0.5", nf.latency.p50_us), ("0.99", nf.latency.p99_us)):
        if value is not None:
            yield "nf_latency_seconds", (*labels, ("quantile", quantile)), value / 1e6
    yield "nf_held_packets", labels, nf.held
    yield "nf_instances", (("service", nf.service), ("state", nf.state)), 1
    if nf.load is not None:
        yield "nf_utilisation_ratio", labels, nf.load.utilisation
        yield "nf_occupancy_ratio", labels, nf.load.occupancy_mean
        yield "nf_shed_packets", labels, nf.load.sheds
        if nf.load.spare_pps is not None:
            yield "nf_spare_packets_per_second", labels, nf.load.spare_pps


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
