"""The built-in offers of onvm, made through the same hooks as third-party packages use."""

from __future__ import annotations

from collections.abc import Sequence

from onvm_core.plugins.hookspecs import hookimpl
from onvm_core.plugins.offer import CliCommand, Offer

__all__ = [
    "onvm_classifiers",
    "onvm_cli_commands",
    "onvm_host_policies",
    "onvm_launchers",
    "onvm_placement_policies",
    "onvm_port_kinds",
    "onvm_scaling_policies",
    "onvm_stats_exporters",
]

_PORT_KINDS = (
    Offer(
        "af_packet",
        "an existing network interface, through a packet socket",
        "onvm_core.manager.ports:AF_PACKET",
    ),
    Offer(
        "af_xdp",
        "an existing network interface, through an XDP socket",
        "onvm_core.manager.ports:AF_XDP",
    ),
    Offer("gen", "generated traffic, or answers to it", "onvm_core.manager.ports:GEN"),
    Offer("memif", "another process, over shared memory", "onvm_core.manager.ports:MEMIF"),
    Offer("null", "a source of packets, or a sink", "onvm_core.manager.ports:NULL"),
    Offer("pcap", "a capture, read or written", "onvm_core.manager.capture_port:PCAP"),
    Offer("pci", "a NIC, by its PCI address", "onvm_core.manager.ports:PCI"),
    Offer("tap", "a new network interface", "onvm_core.manager.ports:TAP"),
)
_CLASSIFIERS = (
    Offer(
        "match",
        "the rules in the `match` of chains",
        "onvm_core.manager.chains.classifier:MatchClassifier",
    ),
)

_HOST_POLICIES = (
    Offer(
        "locality",
        "the overloaded host, else one with the service, else the one with most free resources",
        "onvm_core.cluster.scaling.host_policy:Locality",
    ),
    Offer(
        "most-free",
        "the host with the most free resources",
        "onvm_core.cluster.scaling.host_policy:MostFree",
    ),
)

_LAUNCHERS = (
    Offer(
        "container",
        "no network, no capabilities, its own image; podman or docker",
        "onvm_core.launch.container:ContainerLauncher",
    ),
    Offer("process", "a child process", "onvm_core.launch.process:ProcessLauncher"),
    Offer(
        "sandbox",
        "no network, no capabilities, only the files it needs; bubblewrap",
        "onvm_core.launch.sandbox:SandboxLauncher",
    ),
)

_PLACEMENT_POLICIES = (
    Offer(
        "balanced",
        "a core for each NF while there are any, then the least loaded CPU",
        "onvm_core.manager.placement.policy:Balanced",
    ),
    Offer(
        "dedicated",
        "a core for each NF, or a refusal",
        "onvm_core.manager.placement.policy:Dedicated",
    ),
    Offer("pack", "as few CPUs as hold the load", "onvm_core.manager.placement.policy:Pack"),
)

_SCALING_POLICIES = (
    Offer(
        "utilisation",
        "keep the utilisation of instances at a target",
        "onvm_core.scaling.policy:UtilisationPolicy",
    ),
)

_STATS_EXPORTERS = (
    Offer("jsonl", "a line of JSON for each snapshot", "onvm_core.export.jsonl:JsonLines"),
    Offer(
        "prometheus",
        "a file for node_exporter's textfile collector",
        "onvm_core.export.prometheus:Prometheus",
    ),
    Offer(
        "prometheus-http",
        "metrics over HTTP, for Prometheus to scrape",
        "onvm_core.export.prometheus_http:PrometheusHttp",
    ),
    Offer(
        "otlp",
        "metrics to a collector of OpenTelemetry",
        "onvm_core.export.otlp:Otlp",
    ),
)

_COMMANDS = (
    CliCommand(
        "run",
        "Send packets through a chain of NFs, once.",
        "onvm_core.cli.manager.run:run",
        panel="Traffic",
    ),
    CliCommand(
        "up",
        "Start a manager that stays, from a file.",
        "onvm_core.cli.manager.up:up",
        panel="Traffic",
    ),
    CliCommand(
        "reload",
        "Change a manager as its file says, while packets flow.",
        "onvm_core.cli.manager.reload:reload",
        panel="Traffic",
    ),
    CliCommand(
        "plan",
        "Show where the NFs of a file would run, and why.",
        "onvm_core.cli.manager.plan:plan",
        panel="Traffic",
    ),
    CliCommand(
        "down", "End a manager and its NFs.", "onvm_core.cli.manager.down:down", panel="Traffic"
    ),
    CliCommand("status", "Show a manager.", "onvm_core.cli.manager.status:status", panel="Traffic"),
    CliCommand(
        "top", "Show rates and CPU, live.", "onvm_core.cli.manager.status:top", panel="Traffic"
    ),
    CliCommand(
        "chain",
        "List, add, change and remove service chains.",
        "onvm_core.cli.manager.chain:app",
        panel="Traffic",
    ),
    CliCommand(
        "scale",
        "Set how many instances a service has; show why it has so many.",
        "onvm_core.cli.manager.scale:scale",
        panel="Traffic",
    ),
    CliCommand(
        "cluster",
        "Many hosts as one: join, chains across hosts, scaling.",
        "onvm_core.cli.cluster.app:app",
        panel="Traffic",
    ),
    CliCommand(
        "dashboard",
        "Show a manager in a web browser, live.",
        "onvm_core.cli.manager.dashboard.command:dashboard",
        panel="Traffic",
    ),
    CliCommand(
        "trace",
        "Follow packets through a chain, hop by hop.",
        "onvm_core.cli.manager.trace:trace",
        panel="Traffic",
    ),
    CliCommand(
        "logs",
        "Show what NFs and a manager write.",
        "onvm_core.cli.manager.logs:logs",
        panel="Traffic",
    ),
    CliCommand(
        "events",
        "Show what has happened to NFs and chains.",
        "onvm_core.cli.manager.logs:events",
        panel="Traffic",
    ),
    CliCommand("flow", "List flows.", "onvm_core.cli.manager.flow:app", panel="Traffic"),
    CliCommand(
        "send", "Send a message to an NF.", "onvm_core.cli.manager.send:send", panel="Traffic"
    ),
    CliCommand("nf", "Install, write, test, run and stop NFs.", "onvm_core.cli.nf.app:app"),
    CliCommand(
        "capture",
        "Capture packets at a port or an NF, while traffic runs.",
        "onvm_core.cli.manager.capture:capture",
        panel="Traffic",
    ),
    CliCommand(
        "bench",
        "Measure this host.",
        "onvm_core.cli.host.bench:bench",
        panel="Host",
    ),
    CliCommand(
        "doctor",
        "Show what this host can do, and how to fix what it cannot.",
        "onvm_core.cli.host.doctor:doctor",
        panel="Host",
    ),
    CliCommand(
        "version",
        "Print the versions of onvm, DPDK and Python.",
        "onvm_core.cli.host.version:version",
        panel="Host",
    ),
)


@hookimpl
def onvm_cli_commands() -> Sequence[CliCommand]:
    """The commands of this package."""
    return _COMMANDS


@hookimpl
def onvm_classifiers() -> Sequence[Offer]:
    """The classifiers of this package."""
    return _CLASSIFIERS


@hookimpl
def onvm_host_policies() -> Sequence[Offer]:
    """The host policies of this package."""
    return _HOST_POLICIES


@hookimpl
def onvm_port_kinds() -> Sequence[Offer]:
    """The port kinds of this package."""
    return _PORT_KINDS


@hookimpl
def onvm_placement_policies() -> Sequence[Offer]:
    """The placement policies of this package."""
    return _PLACEMENT_POLICIES


@hookimpl
def onvm_launchers() -> Sequence[Offer]:
    """The launchers of this package."""
    return _LAUNCHERS


@hookimpl
def onvm_scaling_policies() -> Sequence[Offer]:
    """The scaling policies of this package."""
    return _SCALING_POLICIES


@hookimpl
def onvm_stats_exporters() -> Sequence[Offer]:
    """The exporters of this package."""
    return _STATS_EXPORTERS
