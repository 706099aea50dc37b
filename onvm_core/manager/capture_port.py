"""Port ``pcap:``: captures that are read or written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from onvm_core.dataplane.interface import PortPlane
from onvm_core.dataplane.values import PcapPort
from onvm_core.manager.ports import COUNT, RATE, Count, Direction, PortKind
from onvm_core.plugins.port_kind import PortOptions
from onvm_sdk.errors import ConfigError

__all__ = ["PCAP", "STANDARD", "PcapOptions"]

STANDARD = "-"
"""The name of standard input and output."""
_DEFAULTS = PcapPort()


class PcapOptions(PortOptions):
    """Options of ``pcap:``."""

    loop: Annotated[
        Count,
        msgspec.Meta(description="How often to read it; 0: endlessly."),
    ] = _DEFAULTS.loop
    rate: Annotated[Count, msgspec.Meta(description=RATE)] = _DEFAULTS.rate_pps
    count: Annotated[Count, msgspec.Meta(description=COUNT)] = _DEFAULTS.count
    pace: Annotated[
        Literal["", "recorded"],
        msgspec.Meta(description="Read at the pace of the capture; empty: at `rate`."),
    ] = ""
    speed: Annotated[
        float,
        msgspec.Meta(ge=0, description="Times the pace of the capture; 0: at `rate`."),
    ] = _DEFAULTS.speed
    truncated: Annotated[
        Literal["error", "ok"],
        msgspec.Meta(description="A capture that ends within a packet: an error, or fine."),
    ] = "error"
    write: Annotated[
        str,
        msgspec.Meta(description="File for packets sent to a port that reads a capture."),
    ] = ""
    format: Annotated[
        Literal["", "pcap", "pcapng"],
        msgspec.Meta(description="Format to write; empty: as the name ends, or pcap."),
    ] = ""
    compression: Annotated[
        Literal["", "none", "gzip"],
        msgspec.Meta(description="Compression to write; empty: gzip if the name ends in .gz."),
    ] = ""


def _files(target: str, options: PcapOptions, direction: Direction) -> list[tuple[str, bool]]:
    """Files of a port, and whether each is written; checked."""
    if not target:
        raise ConfigError("expected a file, or - for standard input or output", value="pcap:")
    if options.rate and (options.pace or options.speed):
        raise ConfigError("expected rate or the pace of the capture, not both")
    if options.write and direction == "out":
        raise ConfigError("expected write at a port that reads", value=options.write)
    files = []
    if direction != "out" and target != STANDARD:
        if not Path(target).exists():
            raise ConfigError("expected a file that exists", value=target)
        if Path(target).is_dir():
            raise ConfigError("expected a file", value=target)
        files.append((target, False))
    sink = target if direction == "out" else options.write
    if sink and sink != STANDARD:
        _check_sink(sink)
        files.append((sink, True))
    return files


def _check_sink(path: str) -> None:
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ConfigError("expected a file in an existing folder", value=path)
    if Path(path).is_dir():
        raise ConfigError("expected a file", value=path)
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise ConfigError("expected a file that can be written", value=path)
    name = Path(path).name.removesuffix(".gz")
    for ending in (".zst", ".xz", ".bz2", ".lz4"):
        if name.endswith(ending):
            raise ConfigError(f"expected a name in .pcap, .pcapng or .gz, not {ending}", value=path)


def _open(
    plane: PortPlane, name: str, target: str, options: PcapOptions, direction: Direction
) -> int:
    try:
        _files(target, options, direction)
    except ConfigError as error:
        raise ConfigError(
            error.expected, field=f"port {name}", value=error.value or target
        ) from None
    sink = target if direction == "out" else options.write or None
    plain = (sink or "").removesuffix(".gz")
    return plane.open_port(
        name,
        PcapPort(
            rx_path=None if direction == "out" else target,
            tx_path=sink,
            loop=options.loop,
            rate_pps=options.rate,
            count=options.count,
            speed=options.speed or float(options.pace == "recorded"),
            may_be_cut=options.truncated == "ok",
            is_pcapng=(options.format or Path(plain).suffix[1:]) == "pcapng",
            is_gzip=(options.compression or (sink or "")[-3:]) in ("gzip", ".gz"),
        ),
    )


PCAP = PortKind(options=PcapOptions, open=_open, files=_files)
