"""Attach messages as bytes: the Python side of ``onvm/wire.h``; a test compares the two.

Everything an NF host sends is untrusted: parsing checks lengths, magic, version and strings, and
raises `WireError` with a line that goes back to the sender.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import msgspec

from onvm_core.dataplane.values import Affinity, Fragments
from onvm_sdk.errors import OnvmError
from onvm_sdk.flow_lifetimes import LIFETIME_MAX_S
from onvm_sdk.limits import (
    ADDRESS_BYTES,
    COUNTERS_MAX,
    ERROR_LENGTH,
    MESSAGE_MAX,
    NAME_LENGTH,
    REASONS_MAX,
    SECRET_LENGTH,
    STAGES_MAX,
)
from onvm_sdk.manifest import FLOW_CLASSES

__all__ = [
    "Claim",
    "Hello",
    "Message",
    "PortEntry",
    "PortLink",
    "StageHello",
    "Steering",
    "VlanLink",
    "WireError",
    "pack_addresses",
    "pack_links",
    "pack_message",
    "pack_ports",
    "pack_refusal",
    "pack_reply",
    "unpack_hello",
    "unpack_message",
]

MAGIC = 0x4D564E4F
VERSION = 4

_HEAD = struct.Struct(f"=7I{SECRET_LENGTH}s")
_STAGE = struct.Struct(
    f"={NAME_LENGTH}s{NAME_LENGTH}s{REASONS_MAX * NAME_LENGTH}s{COUNTERS_MAX * NAME_LENGTH}sI"
)
_REPLY = struct.Struct(f"=IIiIIIIIIIQQII{STAGES_MAX}H{ERROR_LENGTH}s")
_MESSAGE = struct.Struct(f"=III{NAME_LENGTH}s")
_CLAIM = struct.Struct(f"={ADDRESS_BYTES}sBBHII")
_PORT = struct.Struct(f"={NAME_LENGTH}sII6s2x")

ADDRESSES_MAX = 256
"""Addresses of NFs, so that one message holds them."""
HELLO_BYTES = _HEAD.size + STAGES_MAX * _STAGE.size

READY, STOP, DRAIN, DRAINED, USER, DETACH, CLAIM, UNCLAIM, RESUME = range(1, 10)
OFFER, SNAPSHOT, RESTORE, STATE, RESTORED, REFUSED, RELEASED = range(10, 17)
PORTS = 17
CONFIG, PREPARED, APPLY, APPLIED, DECLINED, CANCEL = range(18, 24)
LINK, OWN_ADDRESSES, ADDRESSES = range(24, 27)
RELEASE, SERVICES, ASK, REPLY = range(27, 31)
QUESTION, ANSWER = range(31, 33)
STEERING = 33
STATE_MESSAGES = frozenset({OFFER, STATE, RESTORED, REFUSED, RELEASED})
"""Messages of NF hosts about the handover of state."""
CONFIG_MESSAGES = frozenset({PREPARED, APPLIED, DECLINED})
"""Messages of NF hosts about new configurations."""


class WireError(OnvmError):
    """The peer sent bytes that the layout does not allow."""


@dataclass(frozen=True, slots=True)
class StageHello:
    """One NF of a host that attaches."""

    service: str
    instance: str
    reasons: tuple[str, ...]
    counters: tuple[str, ...]
    fragments: Fragments = Fragments.PASS


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of an NF host."""

    stages: tuple[StageHello, ...]
    n_loaned: int
    burst_size: int
    pid: int
    secret: str
    wire_sized: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message after the attach; `peer` is the service or instance at the other end."""

    kind: int
    stage: int
    peer: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """Ports [first, end) of an address that belong to the sender alone."""

    address: bytes
    protocol: int
    first_port: int
    end_port: int


@dataclass(frozen=True, slots=True)
class Steering:
    """An NF's message about its flows.

    Attributes:
        affinity: what decides which instance gets a flow.
        lifetimes_ms: how long it holds idle flows, by `FLOW_CLASSES`; None: it does not say.
    """

    affinity: Affinity
    lifetimes_ms: tuple[int, ...] | None


class VlanLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses of a VLAN of a port, with the lengths of their prefixes."""

    addresses: tuple[str, ...] = ()


class PortLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """The link behind a port, for NFs that answer there.

    Attributes:
        addresses: with the lengths of their prefixes.
        vlans: by their identifiers.
        mac: "": the NF makes one; "interface": that of the interface.
        slow_path: name of the port that leads to the host, which has the same addresses; "": none.
    """

    addresses: tuple[str, ...] = ()
    vlans: dict[str, VlanLink] = {}
    mac: str = ""
    slow_path: str = ""


@dataclass(frozen=True, slots=True)
class PortEntry:
    """A port as NFs are told of it; `mtu` 0 and `mac` b"": its interface is unknown."""

    name: str
    number: int
    mtu: int = 0
    mac: bytes = b""
    link: PortLink | None = None


def _text(raw: bytes, what: str) -> str:
    end = raw.find(b"\0")
    if end < 0:
        raise WireError(f"{what} does not end with 0")
    try:
        text = raw[:end].decode("ascii")
    except UnicodeDecodeError:
        raise WireError(f"{what} is not ASCII") from None
    if not text.isprintable():
        raise WireError(f"{what} has unprintable characters")
    return text


def _names(raw: bytes, what: str) -> tuple[str, ...]:
    names = [_text(raw[i : i + NAME_LENGTH], what) for i in range(0, len(raw), NAME_LENGTH)]
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def unpack_hello(data: bytes) -> Hello:
    """Read an attach hello.

    Raises:
        WireError: it is not a hello, or has another layout version.
    """
    if len(data) < 8:
        raise WireError(f"attach message of {len(data)} bytes: expected {HELLO_BYTES}")
    magic, version = struct.unpack_from("=II", data)
    if magic != MAGIC:
        raise WireError("attach message without the magic number")
    if version != VERSION:
        raise WireError(f"NF host has layout version {version}, this manager version {VERSION}")
    if len(data) != HELLO_BYTES:
        raise WireError(f"attach message of {len(data)} bytes: expected {HELLO_BYTES}")
    _, _, n_stages, n_loaned, burst_size, pid, wire_sized, secret = _HEAD.unpack_from(data)
    if not 1 <= n_stages <= STAGES_MAX:
        raise WireError(f"{n_stages} stages: expected 1 to {STAGES_MAX}")
    stages = []
    for index in range(n_stages):
        service, instance, reasons, counters, fragments = _STAGE.unpack_from(
            data, _HEAD.size + index * _STAGE.size
        )
        name = _text(service, "service name")
        if not name:
            raise WireError(f"stage {index} has no service name")
        if fragments not in list(Fragments):
            raise WireError(f"stage {index} wants fragments in the form {fragments}")
        stages.append(
            StageHello(
                service=name,
                instance=_text(instance, "instance name"),
                reasons=_names(reasons, "drop reason"),
                counters=_names(counters, "counter name"),
                fragments=Fragments(fragments),
            )
        )
    return Hello(tuple(stages), n_loaned, burst_size, pid, _text(secret, "secret"), wire_sized != 0)


def pack_reply(
    *,
    n_workers: int,
    ring_length: int,
    n_buffers: int,
    buffer_stride: int,
    first_large: int,
    large_bytes: int,
    instance_id: int,
    memory_bytes: int,
    area_bytes: int,
    idle_policy: int,
    n_loaned: int,
    service_ids: tuple[int, ...],
) -> bytes:
    """Write the reply that goes with the file descriptors."""
    ids = [*service_ids, *([0] * (STAGES_MAX - len(service_ids)))]
    return _REPLY.pack(
        MAGIC,
        VERSION,
        0,
        n_workers,
        ring_length,
        n_buffers,
        buffer_stride,
        first_large,
        large_bytes,
        instance_id,
        memory_bytes,
        area_bytes,
        idle_policy,
        n_loaned,
        *ids,
        b"",
    )


def pack_refusal(number: int, reason: str) -> bytes:
    """Write a reply that refuses; `number` is a positive errno."""
    line = reason.encode("ascii", "replace")[: ERROR_LENGTH - 1]
    return _REPLY.pack(MAGIC, VERSION, -number, *([0] * (11 + STAGES_MAX)), line)


def pack_message(kind: int, *, stage: int = 0, peer: str = "", payload: bytes = b"") -> bytes:
    """Write a message; the payload has at most `MESSAGE_MAX` bytes."""
    if len(payload) > MESSAGE_MAX:
        raise WireError(f"message of {len(payload)} bytes: expected at most {MESSAGE_MAX}")
    name = peer.encode("ascii", "replace")[: NAME_LENGTH - 1]
    return _MESSAGE.pack(kind, len(payload), stage, name) + payload


def pack_ports(ports: Iterable[PortEntry]) -> bytes:
    """Write the message about all ports."""
    payload = b"".join(
        _PORT.pack(port.name.encode()[: NAME_LENGTH - 1], port.number, port.mtu, port.mac)
        for port in ports
    )
    return pack_message(PORTS, payload=payload)


def pack_links(ports: Iterable[PortEntry]) -> list[bytes]:
    """Write a message for each port with a link; they go before the one about all ports."""
    return [
        pack_message(LINK, peer=port.name, payload=msgspec.json.encode(port.link))
        for port in ports
        if port.link is not None
    ]


def pack_addresses(addresses: Iterable[str]) -> bytes:
    """Write the message about the addresses of all NFs."""
    return pack_message(ADDRESSES, payload="\n".join(addresses).encode())


def pack_services(ids: Mapping[str, int]) -> bytes:
    """Write the message about the IDs of all services."""
    text = "\n".join(f"{number} {name}" for name, number in ids.items())
    return pack_message(SERVICES, payload=text.encode())


def unpack_addresses(payload: bytes) -> list[str]:
    """Read the addresses that an NF answers for."""
    try:
        return [str(ip_address(line)) for line in payload.decode("ascii").splitlines()]
    except ValueError as error:
        raise WireError(f"own address: {error}") from None


def unpack_message(data: bytes) -> Message:
    """Read a message of an attached host."""
    if len(data) < _MESSAGE.size:
        raise WireError(f"message of {len(data)} bytes: expected {_MESSAGE.size} or more")
    kind, length, stage, peer = _MESSAGE.unpack_from(data)
    payload = data[_MESSAGE.size :]
    if length != len(payload) or length > MESSAGE_MAX:
        raise WireError(f"message says {length} bytes and has {len(payload)}")
    return Message(kind, stage, _text(peer, "peer name"), payload)


def unpack_claim(payload: bytes) -> Claim:
    """Read the payload of a claim."""
    if len(payload) != _CLAIM.size:
        raise WireError(f"claim of {len(payload)} bytes: expected {_CLAIM.size}")
    address, version, protocol, _, first, end = _CLAIM.unpack(payload)
    if version not in (4, 6) or not 0 <= first < end <= 65536:
        raise WireError(f"claim of ports [{first}, {end}) of IPv{version}")
    return Claim(address[: 4 if version == 4 else ADDRESS_BYTES], protocol, first, end)


def unpack_steering(payload: bytes) -> Steering:
    """Read what an NF says of its flows."""
    words = payload.decode("ascii", "replace").split()
    numbers = words[1:]
    if (
        not words
        or words[0].upper() not in Affinity.__members__
        or len(numbers) not in (0, len(FLOW_CLASSES))
        or not all(number.isdecimal() and len(number) < 10 for number in numbers)
        or any(int(number) > LIFETIME_MAX_S * 1000 for number in numbers)
    ):
        raise WireError(f"steering: {payload[:100]!r}")
    return Steering(Affinity[words[0].upper()], tuple(map(int, numbers)) or None)
