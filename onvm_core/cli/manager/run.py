"""``onvm run``: packets through a chain of NFs, once."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from onvm_core.cli import names
from onvm_core.cli.installed import plugins_of_process
from onvm_core.cli.manager.nf_output import NfOutput
from onvm_core.cli.manager.report import print_report
from onvm_core.cli.options import with_option_groups
from onvm_core.cli.output import OutputFile, TableOptions
from onvm_core.cli.signals import stop_on_signals
from onvm_core.cli.table import make_console
from onvm_core.cli.watch import Watch
from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.export.report import Report
from onvm_core.launch.launcher import DEFAULT_LAUNCHER, Launchers
from onvm_core.launch.limits import LimitMode
from onvm_core.manager.api.directory import runtime_directory, temporary_directory
from onvm_core.manager.capture_port import STANDARD
from onvm_core.manager.captures.capture import Capture, CapturePoint
from onvm_core.manager.config.sections import FaultsConfig
from onvm_core.manager.deployment import Deployment
from onvm_core.manager.interfaces import INTERFACES, PortInterfaces, check_ports
from onvm_core.manager.nf_failure import NfFailed
from onvm_core.manager.nf_hosts.codec import PortLink
from onvm_core.manager.placement.allocator import load_policy
from onvm_core.manager.placement.busy import busy_notes
from onvm_core.manager.placement.policy import DEFAULT_POLICY
from onvm_core.manager.placement.topology import port_node
from onvm_core.manager.ports import Direction, PortKind, cards_of, check_uris, parse_uri, port_kinds
from onvm_core.manager.startup.environment import (
    BUFFER_SIZE_MAX,
    BUFFER_SIZE_MIN,
    BUFFERS_MAX,
    BUFFERS_MIN,
    DEFAULTS,
    idle_policy,
    split_cpus,
    worker_nodes,
)
from onvm_core.manager.startup.numa import memory_nodes
from onvm_core.manager.supervision.hang import HangWatch
from onvm_core.plugins import discover, find
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import NAME_LENGTH, WORKERS_MAX
from onvm_sdk.source import is_source, source_name

__all__ = ["RunRequest", "run", "run_once"]

POLL_S = 0.05
PROGRESS_EVERY_S = 0.2
HELD_S = 2.0
"""Seconds without a packet after which the run ends, and NFs must release what they hold."""
END_TIMEOUT_S = 5.0
"""The longest wait for the process of an NF that has failed."""
FAILED = ".failed"
"""The folder for logs of NFs that have failed, among the directories of managers."""
_FIELDS = {"in": "--in", "out": "--out"}
"""Options that name the ports."""


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of `run_once`."""

    near: str
    """URI of the port that packets come from."""
    far: str
    """URI of the port behind the chain."""
    nfs: tuple[str, ...]
    configs: dict[str, Path] = {}
    writes: dict[str, str] = {}
    """Files that the caller writes, by the option that names them; no port may have them."""
    links: dict[str, PortLink] = {}
    """Addresses of the ports ``in`` and ``out``, for NFs that answer there."""
    is_fused: bool = False
    duration_s: float | None = None
    count: int | None = None
    """Packets to receive: exactly this many from a source that can count, else at least."""
    track_flows: bool = False
    is_bidirectional: bool = True
    is_busy: bool = False
    n_workers: int = DEFAULTS.n_workers
    n_buffers: int = DEFAULTS.n_buffers
    buffer_bytes: int = DEFAULTS.data_bytes
    ring_length: int = DEFAULTS.ring_length
    output: Path | None = None
    """Folder for the output folders of NFs."""
    watch: Watch | None = None
    """Replace NFs of files when their files change."""
    wants_progress: bool = False
    """Show a bar on stderr."""
    instances: int = 1
    launcher: str = DEFAULT_LAUNCHER
    limits: LimitMode = LimitMode.AVAILABLE
    capture: Path | None = None
    """File for the packets that leave through the far port, as pcapng."""
    capture_limit: int = 0
    shows_output: bool = False
    """Show on stderr what NFs print and log."""
    has_colour: bool = True


@with_option_groups
def run(
    near: Annotated[
        str,
        typer.Option(
            "--in", metavar="URI", help="Port at which packets enter.", autocompletion=names.uris
        ),
    ],
    far: Annotated[
        str,
        typer.Option(
            "--out", metavar="URI", help="Port at which they leave.", autocompletion=names.uris
        ),
    ],
    chain: Annotated[
        str,
        typer.Option(
            "--chain",
            metavar="NF,…",
            help="NFs in order, also FILE.py:Class; empty for none.",
            autocompletion=names.nfs_in_list,
        ),
    ],
    nf_config: Annotated[
        list[str] | None,
        typer.Option(
            "--nf-config",
            metavar="NAME=FILE",
            help="Configuration of an NF; may be repeated.",
            show_default="none",
        ),
    ] = None,
    fuse: Annotated[bool, typer.Option("--fuse", help="Run all NFs in one process.")] = False,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", min=1, metavar="N", help="Packets to receive.", show_default="no limit"
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration", min=0.001, metavar="S", help="Seconds to run.", show_default="no limit"
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option("--instances", min=1, max=64, metavar="N", help="Instances of each NF.")
    ] = 1,
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="NAME", help="Launcher of the NFs.")
    ] = DEFAULT_LAUNCHER,
    limits: Annotated[
        LimitMode,
        typer.Option("--limits", help="Whether NFs are kept within their CPUs and memory."),
    ] = LimitMode.AVAILABLE,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=WORKERS_MAX, metavar="N", help="Worker lcores.")
    ] = DEFAULTS.n_workers,
    buffers: Annotated[
        int,
        typer.Option(
            "--buffers",
            min=BUFFERS_MIN,
            max=BUFFERS_MAX,
            metavar="N",
            help="Packet buffers on each NUMA node that has workers or ports.",
        ),
    ] = DEFAULTS.n_buffers,
    buffer_size: Annotated[
        int,
        typer.Option(
            "--buffer-size",
            min=BUFFER_SIZE_MIN,
            max=BUFFER_SIZE_MAX,
            metavar="N",
            help="Bytes of the largest packet.",
        ),
    ] = DEFAULTS.data_bytes,
    busy: Annotated[
        bool, typer.Option("--busy", help="Never sleep; NFs that share a CPU do.")
    ] = False,
    track_flows: Annotated[
        bool, typer.Option("--track-flows", help="Look up flows even if only one path is possible.")
    ] = False,
    nf_output: Annotated[
        Path | None,
        typer.Option(
            "--nf-output",
            metavar="FOLDER",
            help="Folder in which each NF finds one for its files.",
            show_default="none",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Replace an NF when its file FILE.py changes.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write the report as JSON; - for stdout.",
            show_default="a table",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not show what NFs print and log.")
    ] = False,
    *,
    look: TableOptions,
) -> None:
    """Send packets through a chain of NFs, then report what happened.

    It ends when the source has no more packets, after --count packets or --duration seconds, or
    with Ctrl-C.

    Examples:
        onvm run --in pcap:in.pcap --out pcap:out.pcap --chain firewall
        onvm run --in gen:?count=1000000 --out gen: --chain firewall,nat
        onvm run --in gen:?rate=50000 --out gen: --chain nat --duration 10
    """
    names = tuple(_whole(name.strip()) for name in chain.split(",") if name.strip())
    watched = Watch(names) if watch else None  # before the start: a change while NFs load counts
    if watch and fuse:
        raise ConfigError("expected only one of --watch and --fuse", field="--watch")
    with ExitStack() as stack:
        output, writes = None, {}
        if json_file is not None:
            writes = {"--json": str(json_file)} if str(json_file) != STANDARD else {}
            output = stack.enter_context(OutputFile(json_file, "--json"))
        report = _report_of(
            RunRequest(
                near=near,
                count=count,
                far=far,
                nfs=names,
                configs=_configs(nf_config or [], names),
                writes=writes,
                is_fused=fuse,
                duration_s=duration,
                track_flows=track_flows or instances > 1,
                is_busy=busy,
                n_workers=workers,
                n_buffers=buffers,
                buffer_bytes=buffer_size,
                instances=instances,
                launcher=launcher,
                limits=limits,
                output=nf_output,
                watch=watched,
                wants_progress=sys.stderr.isatty(),
                shows_output=not quiet,
                has_colour=not look.no_color,
            )
        )
        if output is not None:
            output.write(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if output is None or not output.is_standard:
        print_report(report, look.console(to_stderr=parse_uri(far).target == STANDARD))
    faults = [
        f"{_FIELDS[port.name]}: {port.uri!r}: {port.fault}" for port in report.ports if port.fault
    ]
    if faults:
        raise SystemExit(f"error: {'; '.join(faults)}")


def _whole(name: str) -> str:
    """The NF of a file with the path of the file; the name of an installed one as it is."""
    return source_name(name) if is_source(name) else name


def _report_of(request: RunRequest) -> Report:
    """Run it; an NF that fails is no mistake of the user's, except in its configuration."""
    try:
        return run_once(request)
    except NfFailed as error:
        if error.is_mistake:
            raise
        raise SystemExit(f"error: {error}") from None


@contextmanager
def _kept_log() -> Iterator[None]:
    """Keep the log of an NF that fails; the directory of the run is removed."""
    try:
        yield
    except NfFailed as error:
        if error.log is None or not error.log.exists():
            raise
        folder = runtime_directory() / FAILED
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = folder / error.log.name
        shutil.copyfile(error.log, kept)
        text = str(error).replace(str(error.log), str(kept))
        raise NfFailed(text, kept, is_mistake=error.is_mistake) from None


def _counting(request: RunRequest, kinds: Mapping[str, PortKind]) -> RunRequest:
    """Let the source count the packets itself, if it can."""
    kind = kinds.get(parse_uri(request.near, field="--in").scheme)
    if request.count is None or kind is None or "count" not in kind.options.__struct_fields__:
        return request
    joint = "&" if "?" in request.near else "?"
    near = f"{request.near}{joint}count={request.count}"
    return msgspec.structs.replace(request, near=near, count=None)


def _configs(entries: list[str], names: tuple[str, ...]) -> dict[str, Path]:
    configs = {}
    for entry in entries:
        name, equals, file = entry.partition("=")
        name = next((one for one in names if name and name == _short(one)), name)
        if not equals or name not in names:
            known = ", ".join(map(_short, names))
            raise ConfigError(
                f"expected NAME=FILE with a NAME of the chain ({known})",
                field="--nf-config",
                value=entry,
            )
        path = Path(file)
        if not path.is_file():
            raise ConfigError(
                "expected a file that exists", field=f"--nf-config {name}", value=file
            )
        configs[name] = path.absolute()  # a sandbox has another working directory
    return configs


def _short(name: str) -> str:
    """The name of an NF for people: of a file's, its class in lower case."""
    return name.rpartition(":")[2].lower() if is_source(name) else name


def run_once(request: RunRequest) -> Report:
    """Set up a chain, let the packets through and take the chain down again.

    Raises:
        ConfigError: the request names something that does not exist.
        NfFailed: an NF ended or was never ready.
    """
    kinds = port_kinds(plugins_of_process())
    request = _counting(request, kinds)
    packages = discover()
    installed = {name: find(name, packages) for name in request.nfs}
    services = {name: package.service or name for name, package in installed.items()}
    launchers = Launchers(limits=request.limits)
    launchers.get(request.launcher, field="--launcher")
    worker_cpus, nf_cpus = split_cpus(request.n_workers, ports=(request.near, request.far))
    settings = DataplaneSettings(
        n_workers=request.n_workers,
        worker_nodes=(nodes := worker_nodes(worker_cpus)),
        memory_nodes=memory_nodes(nodes, map(port_node, (request.near, request.far))),
        n_buffers=request.n_buffers,
        data_bytes=request.buffer_bytes,
        ring_length=request.ring_length,
        idle_policy=idle_policy(request.is_busy, worker_cpus, nf_cpus),
    )
    uris = {"--in": request.near, "--out": request.far}
    cards = cards_of(uris, kinds, settings)
    interfaces = PortInterfaces(runtime_directory() / INTERFACES, kinds)
    directions: dict[str, tuple[str, Direction]] = {
        "--in": (request.near, "in"),
        "--out": (request.far, "out"),
    }
    check_uris(directions, kinds, outputs=request.writes)
    for warning in check_ports(uris, kinds, [("--in", "--out")]):
        print(f"warning: {warning}", file=sys.stderr)
    with (
        temporary_directory() as directory,
        _kept_log(),
        stop_on_signals() as stop,
        Deployment(
            Path(directory),
            settings,
            kinds=kinds,
            package=installed.get,
            launchers=launchers,
            placement=load_policy(DEFAULT_POLICY),
            worker_cpus=worker_cpus,
            output=request.output,
            cards=cards,
            interfaces=interfaces,
        ) as deployment,
        ExitStack() as stack,
    ):
        deployment.plane.pause_sources(True)  # they can wait until there is a chain
        links = request.links
        deployment.open_port("in", request.near, "in", link=links.get("in"), field="--in")
        deployment.open_port("out", request.far, "out", link=links.get("out"), field="--out")
        for name in request.nfs:  # numbers, and so tables, are in the order of the chain
            deployment.manager.registry.service_id(services[name])
        once = tuple(dict.fromkeys(request.nfs))  # a router stands at both ends of its chain
        console = make_console(to_stderr=True, has_colour=request.has_colour)
        output = stack.enter_context(_shown_output(Path(directory), request, console))
        for number in range(1, request.instances + 1):
            for group in [once] if request.is_fused and request.nfs else [(one,) for one in once]:
                deployment.launch(
                    group,
                    configs=request.configs,
                    instances=_instances([services[name] for name in group], number),
                    launcher=request.launcher,
                )
        for note in busy_notes(deployment.resources) if request.is_busy else ():
            print(f"note: {note}", file=sys.stderr)
        deployment.wait_ready([services[name] for name in request.nfs])
        deployment.begin()
        deployment.chains.add(
            "main",
            "in",
            "out",
            [services[name] for name in request.nfs],
            is_bidirectional=request.is_bidirectional,
            track_flows=request.track_flows,
        )
        deployment.plane.pause_sources(False)
        with _captured(deployment, request) as capture:
            _let_through(deployment, request, stop, capture, output, console)
            seconds = deployment.elapsed_s
            deployment.drain()
            deployment.check_ended(END_TIMEOUT_S)
        report = deployment.finish(seconds)
        deployment.end_nfs()
        return report


@contextmanager
def _captured(deployment: Deployment, request: RunRequest) -> Iterator[Capture | None]:
    if request.capture is None:
        yield None
        return
    point = CapturePoint("out", deployment.port_number("out"), is_in=False, is_out=True)
    with Capture(
        deployment.plane, request.capture, [point], limit=request.capture_limit
    ) as capture:
        yield capture


def _instances(services: Sequence[str], number: int) -> list[str]:
    """Names of instances; empty, so that the manager chooses them, if they are too long."""
    names = [f"{service}-{number}" for service in services]
    return names if all(len(name) < NAME_LENGTH for name in names) else []


@contextmanager
def _shown_output(
    directory: Path, request: RunRequest, console: Console
) -> Iterator[Callable[[], None]]:
    """Show what NFs write: whenever it is called, and all of it in the end."""
    if not request.shows_output:
        yield lambda: None
        return
    output = NfOutput(directory / "logs", console)
    try:
        yield output.turn
    except NfFailed as error:
        if not error.is_mistake:  # the line of a mistake says it all
            output.finish()
        raise
    output.finish()


def _end_hung(deployment: Deployment, hangs: HangWatch) -> None:
    """End the first NF host that hangs.

    Raises:
        NfFailed: one hangs; names the author's line.
    """
    for host, reason in hangs.turn():
        raise deployment.end_hung(host, reason)


def _is_enough(deployment: Deployment, request: RunRequest) -> bool:
    return request.count is not None and deployment.received() >= request.count


def _let_through(
    deployment: Deployment,
    request: RunRequest,
    stop: list[int],
    capture: Capture | None,
    output: Callable[[], None],
    console: Console,
) -> None:
    begin = time.monotonic()
    last_sent, moved_s = 0, 0.0
    manager = deployment.manager
    hangs = HangWatch(manager.registry, manager.meters, FaultsConfig().hang_ms / 1000)
    with _progress(request, console) as show:
        shown = 0.0
        while not stop:
            deployment.poll(POLL_S if capture is None else POLL_S / 10)
            output()
            deployment.check_launched()
            _end_hung(deployment, hangs)
            if capture is not None:
                capture.drain()
            for name in () if request.watch is None else request.watch.changed():
                _replace(deployment, request, name)
            elapsed = time.monotonic() - begin
            is_time = request.duration_s is not None and elapsed >= request.duration_s
            if (is_time or _is_enough(deployment, request)) and not hangs.has_suspects:
                return
            if deployment.has_fault():
                return
            if deployment.sources_finished():
                # NFs may hold the last packets, and release them in their time; or never. Of one
                # that makes no turn it is not known yet whether it hangs.
                is_over = elapsed - moved_s > HELD_S and not hangs.has_suspects
                if deployment.is_drained() or is_over:
                    return
                if (sent := deployment.sent()) != last_sent:
                    last_sent, moved_s = sent, elapsed
            else:
                moved_s = elapsed
            if elapsed - shown >= PROGRESS_EVERY_S:
                shown = elapsed
                show(elapsed, deployment.received())


def _replace(deployment: Deployment, request: RunRequest, name: str) -> None:
    """Let the NF of a file that has changed take over."""
    try:
        find(name)  # a mistake that can be seen without running it
        why = deployment.replace(name, configs=request.configs, launcher=request.launcher)
    except ConfigError as error:
        why = str(error)
    text = f"the old one goes on: {why}" if why else "the new one serves"
    print(f"{_short(name)}: {text}", file=sys.stderr)


class _Silent:
    def __call__(self, elapsed: float, n_received: int) -> None:
        pass


class _Bar:
    def __init__(self, progress: Progress, request: RunRequest) -> None:
        self._progress = progress
        count = parse_uri(request.near).options.get("count", "0")
        self._count = request.count or (int(count) if count.isdigit() else 0)
        self._duration_s = request.duration_s
        total = self._duration_s or (self._count or None)
        self._task = progress.add_task("packets", total=total)

    def __call__(self, elapsed: float, n_received: int) -> None:
        done = elapsed if self._duration_s else n_received
        rate = n_received / elapsed / 1e6
        self._progress.update(
            self._task, completed=done, description=f"{n_received:,} packets, {rate:.2f} Mpps"
        )


@contextmanager
def _progress(request: RunRequest, console: Console) -> Iterator[_Bar | _Silent]:
    if not request.wants_progress:
        yield _Silent()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        yield _Bar(progress, request)
