"""Ports by URI: ``scheme:target?option=value&…``.

Each scheme is a `PortKind` that plugins may add through the hook ``onvm_port_kinds``; the ones here
register through it too. Options are read into a struct of the kind, so that a wrong one is refused
with its name, its value and the expected value.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec

from onvm_core.dataplane.interface import DataplaneError, PortPlane
from onvm_core.dataplane.values import (
    DataplaneSettings,
    EthdevPort,
    GenPort,
    NullPort,
    PacketPort,
    TapPort,
)
from onvm_core.interfaces.use import InterfaceUse
from onvm_core.manager.startup.cards import cards_obstacle, pci_address
from onvm_core.manager.startup.environment import packet_memory_bytes
from onvm_core.manager.startup.numa import device_node
from onvm_core.plugins import PluginManager
from onvm_core.plugins.port_kind import (
    MTU,
    QUEUES,
    Device,
    DeviceOptions,
    Direction,
    PortKind,
    PortOptions,
    PortRequest,
)
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import WORKERS_MAX
from onvm_sdk.spelling import one_of

__all__ = [
    "COUNT",
    "RATE",
    "Count",
    "Direction",
    "PortKind",
    "PortUri",
    "cards_of",
    "check_uris",
    "open_port",
    "parse_uri",
    "port_kinds",
]

Count = Annotated[int, msgspec.Meta(ge=0)]
RATE = "Packets per second; 0: as fast as possible."
_NULL, _GENERATOR = NullPort(), GenPort(role="client")
"""Their defaults are those of the options."""
COUNT = "Packets after which the source ends; 0: it does not end."
_device_numbers = itertools.count()
_SOCKET_PATH_BYTES = 108
"""unix(7), with the byte that ends it."""


@dataclass(frozen=True, slots=True)
class PortUri:
    """A port URI in parts; `text` is what the user wrote."""

    text: str
    scheme: str
    target: str
    options: Mapping[str, str]


def port_kinds(plugins: PluginManager) -> dict[str, PortKind]:
    """Port kinds of all plugins, by scheme."""
    return {name: offer.load() for name, offer in plugins.offers("onvm_port_kinds").items()}


def parse_uri(text: str, *, file: str | None = None, field: str | None = None) -> PortUri:
    """Take a port URI apart.

    Raises:
        ConfigError: it is not a port URI.
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
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigError("expected each option once", file=file, field=field, value=text)
    return PortUri(text, scheme, target, options)


def check_uris(
    uris: Mapping[str, tuple[str, Direction]],
    kinds: Mapping[str, PortKind],
    *,
    file: str | None = None,
    outputs: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check kinds, options and files of ports before any is opened.

    Args:
        uris: URIs of ports with the way each is used, by the fields in which they stand.
        outputs: files that are written besides, by the options that name them.

    Raises:
        ConfigError: a kind or an option does not exist, or a file that is written is in use as
            another port's.
    """
    used = [(path, option, True) for option, path in outputs.items()]
    for field, (text, direction) in uris.items():
        uri = parse_uri(text, file=file, field=field)
        kind, options = _options_of(uri, kinds, file=file, field=field)
        try:
            if kind.check is not None:
                kind.check(uri.target, options)
            files = [] if kind.files is None else kind.files(uri.target, options, direction)
        except ConfigError as error:
            raise ConfigError(
                error.expected, file=file, field=field, value=error.value or text
            ) from None
        for path, is_written in files:
            for other, other_field, is_other_written in used:
                if (is_written or is_other_written) and _is_same_file(path, other):
                    place = "this port" if other_field == field else other_field
                    raise ConfigError(
                        f"expected a file of its own: {place} uses it already",
                        file=file,
                        field=field,
                        value=path,
                    )
            used.append((path, field, is_written))


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one does not exist yet
        return os.path.realpath(one) == os.path.realpath(other)


def _options_of(
    uri: PortUri, kinds: Mapping[str, PortKind], *, file: str | None, field: str
) -> tuple[PortKind, Any]:
    kind = kinds.get(uri.scheme)
    if kind is None:
        raise ConfigError(
            f"expected {one_of(sorted(kinds), uri.scheme)}",
            file=file,
            field=field,
            value=uri.scheme,
        )
    try:
        return kind, kind.read_options(uri.options)
    except ConfigError as error:
        raise ConfigError(
            error.expected, file=file, field=f"{field}: option {error.field}", value=error.value
        ) from None


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
    """Open a port; return its ID.

    Raises:
        ConfigError: the URI names something that does not exist or asks for something that is not
            possible.
    """
    place = field or f"port {name}"
    kind, options = _options_of(uri, kinds, file=file, field=place)
    try:
        if kind.open is not None:
            return kind.open(plane, name, uri.target, options, direction)
        assert kind.device is not None
        device = kind.device(PortRequest(name, uri.target, options, direction))
        return _open_device(plane, name, device, options)
    except DataplaneError as error:
        raise ConfigError(
            f"expected a port that can be opened: {error}", file=file, field=place, value=uri.text
        ) from None


def cards_of(
    uris: Mapping[str, str],
    kinds: Mapping[str, PortKind],
    settings: DataplaneSettings,
    *,
    file: str | None = None,
) -> list[str] | None:
    """PCI addresses of the cards that ports need; None: no port needs PCI devices.

    DPDK takes hold of cards when it starts, so the list must be known and checked before that.

    Args:
        uris: URIs of ports, by the fields in which they stand.

    Raises:
        ConfigError: a card that cannot be used.
    """
    needs_pci = False
    fields: dict[str, str] = {}
    for field, text in uris.items():
        uri = parse_uri(text, file=file, field=field)
        if uri.scheme not in kinds or not kinds[uri.scheme].needs_pci:
            continue
        needs_pci = True
        if kinds[uri.scheme] is not PCI:  # a kind from a plugin: any device
            continue
        address = _card_address(uri.target, field, file)
        if address in fields:
            raise ConfigError(
                f"expected a card of its own, {fields[address]} has this one",
                file=file,
                field=field,
                value=text,
            )
        fields[address] = field
    address, line = cards_obstacle(list(fields), packet_memory_bytes(settings))
    if line:
        field = fields[address]
        raise ConfigError(line, file=file, field=field, value=uris[field])
    return list(fields) if needs_pci else None


# ---- the kinds that come with onvm ----


class NullOptions(PortOptions):
    """Options of ``null:``."""

    size: Annotated[
        int,
        msgspec.Meta(ge=64, le=65000, description="Bytes of each packet."),
    ] = _NULL.size
    flows: Annotated[
        int,
        msgspec.Meta(ge=0, le=0xFFFFFFFF, description="Number of flows; 0: one packet, repeated."),
    ] = _NULL.n_flows
    random: Annotated[
        bool,
        msgspec.Meta(description="Take flows in random order."),
    ] = _NULL.is_random
    queues: Annotated[
        int,
        msgspec.Meta(ge=1, le=WORKERS_MAX, description="Receive queues."),
    ] = _NULL.n_queues
    rate: Annotated[Count, msgspec.Meta(description=RATE)] = _NULL.rate_pps
    count: Annotated[Count, msgspec.Meta(description=COUNT)] = _NULL.count


def _check_no_target(target: str, options: PortOptions) -> None:
    """Raise ConfigError for a forgotten question mark."""
    del options
    if target:
        raise ConfigError("expected nothing, or options behind a ?", value=target)


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


Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class GenOptions(PortOptions):
    """Options of ``gen:``."""

    role: Annotated[
        Literal["client", "server", ""],
        msgspec.Meta(
            description="End of the connections to play; empty: client where packets enter."
        ),
    ] = ""
    flows: Annotated[
        int, msgspec.Meta(ge=1, le=1 << 20, description="Connections at the same time.")
    ] = _GENERATOR.n_flows
    seed: Annotated[
        Count,
        msgspec.Meta(description="Seed of the random numbers."),
    ] = _GENERATOR.seed
    rate: Annotated[Count, msgspec.Meta(description=RATE)] = _GENERATOR.rate_pps
    count: Annotated[Count, msgspec.Meta(description=COUNT)] = _GENERATOR.count
    ipv6: Annotated[
        Percent,
        msgspec.Meta(description="Percentage of connections over IPv6."),
    ] = _GENERATOR.ipv6_percent
    tcp: Annotated[
        Percent,
        msgspec.Meta(description="Percentage of TCP connections."),
    ] = _GENERATOR.tcp_percent
    udp: Annotated[
        Percent, msgspec.Meta(description="Percentage of UDP; the rest is ICMP echo.")
    ] = _GENERATOR.udp_percent
    size: Annotated[
        int, msgspec.Meta(ge=0, le=9018, description="Bytes of frames with data; 0: IMIX.")
    ] = _GENERATOR.size
    timeout_ms: Annotated[
        Count,
        msgspec.Meta(
            description="Milliseconds of silence until a connection fails; 0: from the RTT."
        ),
    ] = _GENERATOR.timeout_ms
    answer: Annotated[
        bool, msgspec.Meta(description="Servers answer; if false, clients go on without answers.")
    ] = _GENERATOR.answer
    vip: Annotated[
        str, msgspec.Meta(description="IPv4 address of a load balancer; empty: none.")
    ] = _GENERATOR.vip or ""
    vip_port: Annotated[
        int, msgspec.Meta(ge=1, le=65535, description="Port of the load balancer.")
    ] = _GENERATOR.vip_port
    vip_percent: Annotated[
        Percent,
        msgspec.Meta(description="Percentage of IPv4 TCP connections to the load balancer."),
    ] = _GENERATOR.vip_percent


def _open_gen(
    plane: PortPlane, name: str, target: str, options: GenOptions, direction: Direction
) -> int:
    del target
    role = options.role or ("server" if direction == "out" else "client")
    return plane.open_port(
        name,
        GenPort(
            role=role,
            n_flows=options.flows,
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


def _open_device(plane: PortPlane, name: str, device: Device, options: DeviceOptions) -> int:
    return plane.open_port(
        name,
        EthdevPort(
            device=device.arguments,
            n_queues=options.queues,
            mtu=options.mtu,
            needs_copy=device.needs_copy,
            is_promiscuous=options.promiscuous,
            numa_node=device.numa_node,
        ),
    )


def _interface(name: str, target: str) -> str:
    if not target or not Path("/sys/class/net", target).exists():
        raise ConfigError(
            "expected the name of a network interface", field=f"port {name}", value=target
        )
    return target


class TapOptions(PortOptions):
    """Options of ``tap:``."""

    queues: QUEUES = 1
    mtu: MTU = 0


def _check_tap(target: str, options: TapOptions) -> None:
    del options
    if not 1 <= len(target) <= 15:
        raise ConfigError("expected an interface name of 1 to 15 characters", value=target)
    from onvm_core.interfaces.checks import (
        with_capabilities,
    )  # a tap is rare, and a start must be quick
    from onvm_core.interfaces.facts import capabilities

    if "CAP_NET_ADMIN" not in capabilities():
        raise ConfigError(
            "expected the capability CAP_NET_ADMIN, to make an interface (as root has, or a "
            "systemd unit with AmbientCapabilities=CAP_NET_ADMIN); run: "
            + with_capabilities(["CAP_NET_ADMIN"])
        )


def _open_tap(
    plane: PortPlane, name: str, target: str, options: TapOptions, direction: Direction
) -> int:
    del direction
    if not 1 <= len(target) <= 15:
        raise ConfigError(
            "expected an interface name of 1 to 15 characters", field=f"port {name}", value=target
        )
    return plane.open_port(
        name, TapPort(interface=target, n_queues=options.queues, mtu=options.mtu)
    )


class PacketOptions(DeviceOptions):
    """Options of ``af_packet:``."""

    buffer: Annotated[
        int,
        msgspec.Meta(ge=1, le=1024, description="MiB of memory for packets that wait, per queue."),
    ] = 16
    qdisc: Annotated[
        bool, msgspec.Meta(description="Send through the traffic control of the interface.")
    ] = True


def _open_packet(
    plane: PortPlane, name: str, target: str, options: PacketOptions, direction: Direction
) -> int:
    del direction
    interface = _interface(name, target)
    with _mtu(name, interface, options.mtu):
        return plane.open_port(
            name,
            PacketPort(
                interface=interface,
                n_queues=options.queues,
                receive_bytes=options.buffer << 20,
                is_promiscuous=options.promiscuous,
                skips_qdisc=not options.qdisc,
                numa_node=device_node("af_packet", interface),
            ),
        )


@contextmanager
def _mtu(name: str, interface: str, mtu: int) -> Iterator[None]:
    """Set an interface's MTU (0: leave it); restore the old MTU if the block raises."""
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


def _af_xdp(port: PortRequest) -> Device:
    interface = _interface(port.name, port.target)
    # The driver keeps packets behind their mbufs: they are copied into packet memory.
    return Device(
        f"net_af_xdp{next(_device_numbers)},iface={interface},start_queue=0,"
        f"queue_count={port.options.queues}",
        needs_copy=True,
        numa_node=device_node("af_xdp", interface),
    )


class MemifOptions(DeviceOptions):
    """Options of ``memif:``."""

    role: Annotated[
        Literal["server", "client"],
        msgspec.Meta(description="The end of the socket to play; the server makes the socket."),
    ] = "client"
    id: Annotated[Count, msgspec.Meta(description="Number of the interface on the socket.")] = 0


def _check_memif(target: str, options: MemifOptions) -> None:
    """Raise ConfigError for a path that DPDK would refuse without its reason."""
    if not target:
        raise ConfigError("expected the path of a socket", value="memif:")
    path = Path(target).absolute()
    if len(bytes(path)) >= _SOCKET_PATH_BYTES:
        raise ConfigError(f"expected fewer than {_SOCKET_PATH_BYTES} bytes", value=str(path))
    if "," in str(path):
        raise ConfigError("expected a path without commas", value=str(path))
    needed = os.X_OK if options.role == "client" else os.W_OK | os.X_OK
    if not path.parent.is_dir():
        raise ConfigError("expected a socket in an existing folder", value=target)
    if not os.access(path.parent, needed):
        raise ConfigError("expected a socket in a folder that this user may use", value=target)


def _memif(port: PortRequest) -> Device:
    try:
        _check_memif(port.target, port.options)
    except ConfigError as error:
        raise ConfigError(error.expected, field=f"port {port.name}", value=error.value) from None
    return Device(
        f"net_memif{next(_device_numbers)},role={port.options.role},id={port.options.id},"
        f"socket={Path(port.target).absolute()},socket-abstract=no"
    )


def _pci(port: PortRequest) -> Device:
    return Device(_card_address(port.target, f"port {port.name}"))


def _card_address(target: str, field: str, file: str | None = None) -> str:
    address = pci_address(target)
    if not address:
        raise ConfigError(
            "expected the address of a network card, as in pci:0000:01:00.0; run: lspci -D",
            file=file,
            field=field,
            value=f"pci:{target}",
        )
    return address


GEN = PortKind(options=GenOptions, open=_open_gen, check=_check_no_target)
NULL = PortKind(options=NullOptions, open=_open_null, check=_check_no_target)
TAP = PortKind(options=TapOptions, open=_open_tap, check=_check_tap)
AF_PACKET = PortKind(options=PacketOptions, open=_open_packet, interface=InterfaceUse.PACKETS)
AF_XDP = PortKind(_af_xdp, interface=InterfaceUse.FRAMES)
MEMIF = PortKind(_memif, MemifOptions, check=_check_memif)
PCI = PortKind(_pci, needs_pci=True)
