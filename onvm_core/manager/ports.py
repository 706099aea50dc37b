"""Ports by URI: ``scheme:target?option=value&…``.

Each scheme is a `PortKind` that plugins may add through the hook ``onvm_port_kinds``; the ones
here register through it too. Options are read into a struct of the kind, so that a wrong one is
refused with its name, its value and what was expected.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec

from onvm_core.dataplane.interface import DataplaneError, PortPlane
from onvm_core.dataplane.values import DevicePort, GeneratorPort, NullPort, PcapPort
from onvm_core.manager.startup.numa import device_node
from onvm_core.plugins import PluginManager
from onvm_sdk.errors import ConfigError

__all__ = ["Direction", "PortKind", "PortUri", "open_port", "parse_uri", "port_kinds"]

Direction = Literal["in", "out", "both"]

Count = Annotated[int, msgspec.Meta(ge=0)]
Queues = Annotated[int, msgspec.Meta(ge=1, le=16)]
_device_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class PortUri:
    """A port URI in parts; `text` is what the user wrote."""

    text: str
    scheme: str
    target: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PortKind:
    """A scheme.

    Attributes:
        options: struct that the options are read into.
        open: opens the port in a data plane and gives its ID; gets the port's name, the target,
            the options and the direction in which the user named it.
        needs_pci: the environment must look for PCI devices.
    """

    options: type[msgspec.Struct]
    open: Callable[[PortPlane, str, str, Any, Direction], int]
    needs_pci: bool = False


def port_kinds(plugins: PluginManager) -> dict[str, PortKind]:
    """Port kinds of all plugins, by scheme."""
    return {name: offer.load() for name, offer in plugins.offers("onvm_port_kinds").items()}


def parse_uri(text: str, *, file: str | None = None, field: str | None = None) -> PortUri:
    """Take a port URI apart.

    Raises:
        ConfigError: it is none.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or not scheme:
        raise ConfigError(
            "expected SCHEME:TARGET, as in pcap:FILE or af_packet:eth0",
            file=file,
            field=field,
            value=text,
        )
    target, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError(
            "expected options as ?name=value&name=value", file=file, field=field, value=text
        ) from None
    return PortUri(text, scheme, target, dict(pairs))


def open_port(
    plane: PortPlane,
    uri: PortUri,
    name: str,
    direction: Direction,
    kinds: Mapping[str, PortKind],
    *,
    file: str | None = None,
    field: str | None = None,
) -> int:
    """Open a port; its ID.

    Raises:
        ConfigError: the URI names what is not there or asks for what cannot be.
    """
    place = field or f"port {name}"
    kind = kinds.get(uri.scheme)
    if kind is None:
        raise ConfigError(
            f"expected one of {', '.join(sorted(kinds))}",
            file=file,
            field=place,
            value=uri.scheme,
        )
    try:
        options = msgspec.convert(dict(uri.options), kind.options, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"option {_option_error(error, kind.options)}", file=file, field=place, value=uri.text
        ) from None
    try:
        return kind.open(plane, name, uri.target, options, direction)
    except DataplaneError as error:
        line = str(error).removeprefix(f"port {name}: ")
        raise ConfigError(line, file=file, field=place, value=uri.text) from None


def _option_error(error: msgspec.ValidationError, options: type[msgspec.Struct]) -> str:
    text = str(error)
    if "unknown field" in text:
        names = ", ".join(options.__struct_fields__) or "none"
        return f"{text.split('`')[1]} is unknown: expected one of {names}"
    what, _, path = text.partition(" - at `$.")
    return f"{path.rstrip('`')}: {what[:1].lower()}{what[1:]}"


# ---- the kinds that come with onvm ----


class NullOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of ``null:``."""

    size: Annotated[int, msgspec.Meta(ge=64, le=65000)] = 64
    flows: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    random: bool = False
    queues: Queues = 1
    rate: Count = 0
    count: Count = 0


def _open_null(
    plane: PortPlane, name: str, target: str, options: NullOptions, direction: Direction
) -> int:
    del target
    return plane.open_port(
        name,
        NullPort(
            size=options.size,
            n_flows=options.flows,
            is_random=options.random,
            n_queues=options.queues,
            rate_pps=options.rate,
            count=options.count,
            is_source=direction != "out",
        ),
    )


class PcapOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of ``pcap:``."""

    loop: Count = 1
    rate: Count = 0
    count: Count = 0
    write: str = ""
    """Where packets that leave through this port are written, when it is read from."""


def _open_pcap(
    plane: PortPlane, name: str, target: str, options: PcapOptions, direction: Direction
) -> int:
    if not target:
        raise ConfigError("expected a file", field=f"port {name}", value="pcap:")
    if direction != "out" and not Path(target).is_file():
        raise ConfigError(
            "no such file" if not Path(target).exists() else "expected a file",
            field=f"port {name}",
            value=target,
        )
    sink = target if direction == "out" else options.write or None
    if sink is not None and not Path(sink).absolute().parent.is_dir():
        raise ConfigError("its folder does not exist", field=f"port {name}", value=sink)
    return plane.open_port(
        name,
        PcapPort(
            rx_path=None if direction == "out" else target,
            tx_path=sink,
            loop=options.loop,
            rate_pps=options.rate,
            count=options.count,
        ),
    )


Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class GenOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of ``gen:``."""

    role: Literal["client", "server", ""] = ""
    """Which end of connections it plays; left out, the entry is the client."""
    flows: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1024
    seed: Count = 1
    rate: Count = 0
    count: Count = 0
    ipv6: Percent = 20
    tcp: Percent = 70
    udp: Percent = 25
    size: Annotated[int, msgspec.Meta(ge=0, le=9018)] = 0
    timeout_ms: Count = 0
    answer: bool = True
    vip: str = "198.51.100.10"
    vip_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 80
    vip_percent: Percent = 30


def _open_gen(
    plane: PortPlane, name: str, target: str, options: GenOptions, direction: Direction
) -> int:
    del target
    role = options.role or ("server" if direction == "out" else "client")
    return plane.open_port(
        name,
        GeneratorPort(
            role=role,
            flows=options.flows,
            seed=options.seed,
            rate_pps=options.rate,
            count=options.count,
            ipv6_percent=options.ipv6,
            tcp_percent=options.tcp,
            udp_percent=options.udp,
            size=options.size,
            timeout_ms=options.timeout_ms,
            answer=options.answer,
            vip=options.vip or None,
            vip_port=options.vip_port,
            vip_percent=options.vip_percent,
        ),
    )


class DeviceOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of ports over DPDK drivers."""

    queues: Queues = 1
    mtu: Annotated[int, msgspec.Meta(ge=0, le=9600)] = 0
    promiscuous: bool = True


def _open_device(
    plane: PortPlane,
    name: str,
    device: str,
    options: DeviceOptions,
    *,
    needs_copy: bool = False,
    numa_node: int | None = None,
) -> int:
    return plane.open_port(
        name,
        DevicePort(
            device=device,
            n_queues=options.queues,
            mtu=options.mtu,
            needs_copy=needs_copy,
            is_promiscuous=options.promiscuous,
            numa_node=numa_node,
        ),
    )


def _interface(name: str, target: str) -> str:
    if not target or not Path("/sys/class/net", target).exists():
        raise ConfigError(
            "expected the name of a network interface", field=f"port {name}", value=target
        )
    return target


def _open_tap(
    plane: PortPlane, name: str, target: str, options: DeviceOptions, direction: Direction
) -> int:
    del direction
    if not target or len(target) > 15:
        raise ConfigError(
            "expected an interface name of 1 to 15 characters", field=f"port {name}", value=target
        )
    number = next(_device_numbers)
    return _open_device(plane, name, f"net_tap{number},iface={target}", options)


def _open_af_packet(
    plane: PortPlane, name: str, target: str, options: DeviceOptions, direction: Direction
) -> int:
    del direction
    interface = _interface(name, target)
    # A frame holds the packet and up to 98 bytes beside it. It must fit into a packet buffer, and a
    # block, which is whole pages, must hold nothing but whole frames.
    frame = 2048 if options.mtu <= 1900 else -(-(options.mtu + 98) // 1024) * 1024
    sizes = f"framesz={frame},blocksz={frame * 4},framecnt={512 if frame == 2048 else 256}"
    device = (
        f"net_af_packet{next(_device_numbers)},iface={interface},qpairs={options.queues},{sizes}"
    )
    # The driver would take any frame that fits, but says that it takes none above 1,518 bytes.
    numa_node = device_node("af_packet", interface)
    with _mtu(name, interface, options.mtu):
        return _open_device(
            plane, name, device, msgspec.structs.replace(options, mtu=0), numa_node=numa_node
        )


@contextmanager
def _mtu(name: str, interface: str, mtu: int) -> Iterator[None]:
    """Give an interface an MTU, 0: the one it has; it gets its own back when the block raises."""
    file = Path("/sys/class/net", interface, "mtu")
    before = file.read_text(encoding="ascii")
    try:
        if mtu not in (0, int(before)):
            file.write_text(str(mtu), encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"expected an MTU that {interface} can be given: {error.strerror}",
            field=f"port {name}: mtu",
            value=mtu,
        ) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.write_text(before, encoding="ascii")
        raise


def _open_af_xdp(
    plane: PortPlane, name: str, target: str, options: DeviceOptions, direction: Direction
) -> int:
    del direction
    interface = _interface(name, target)
    device = (
        f"net_af_xdp{next(_device_numbers)},iface={interface},start_queue=0,"
        f"queue_count={options.queues}"
    )
    # The driver keeps packets behind their mbufs: they are copied into packet memory.
    numa_node = device_node("af_xdp", interface)
    return _open_device(plane, name, device, options, needs_copy=True, numa_node=numa_node)


class MemifOptions(DeviceOptions):
    """Options of ``memif:``."""

    role: Literal["server", "client"] = "client"
    id: Count = 0


def _open_memif(
    plane: PortPlane, name: str, target: str, options: MemifOptions, direction: Direction
) -> int:
    del direction
    if not target:
        raise ConfigError("expected the path of a socket", field=f"port {name}", value="memif:")
    device = (
        f"net_memif{next(_device_numbers)},role={options.role},id={options.id},"
        f"socket={target},socket-abstract=no"
    )
    return _open_device(plane, name, device, options)


def _open_pci(
    plane: PortPlane, name: str, target: str, options: DeviceOptions, direction: Direction
) -> int:
    del direction
    if not Path("/sys/bus/pci/devices", target).exists():
        raise ConfigError(
            "expected the address of a PCI device, as in 0000:01:00.0",
            field=f"port {name}",
            value=target,
        )
    return _open_device(plane, name, target, options)


GEN = PortKind(GenOptions, _open_gen)
NULL = PortKind(NullOptions, _open_null)
PCAP = PortKind(PcapOptions, _open_pcap)
TAP = PortKind(DeviceOptions, _open_tap)
AF_PACKET = PortKind(DeviceOptions, _open_af_packet)
AF_XDP = PortKind(DeviceOptions, _open_af_xdp)
MEMIF = PortKind(MemifOptions, _open_memif)
PCI = PortKind(DeviceOptions, _open_pci, needs_pci=True)
