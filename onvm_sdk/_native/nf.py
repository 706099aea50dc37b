"""Mirror of ``native/nf/host.h``: an NF host attached to a manager."""

from __future__ import annotations

import errno
import os

from onvm_sdk._native._nf import ffi, lib
from onvm_sdk.errors import AttachError, check

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "Attached",
    "Event",
    "Host",
    "Message",
    "MessageType",
    "StageHello",
    "confine",
    "end_process",
    "unpack_ports",
]


class Event:
    """The reason why ``Host.run`` returned."""

    DEADLINE = lib.ONVM_EVENT_DEADLINE
    MESSAGE = lib.ONVM_EVENT_MESSAGE
    INTERRUPT = lib.ONVM_EVENT_INTERRUPT
    DETACHED = lib.ONVM_EVENT_DETACHED


class MessageType:
    """Kinds of messages on the attach socket."""

    READY = lib.ONVM_MSG_READY
    STOP = lib.ONVM_MSG_STOP
    DRAIN = lib.ONVM_MSG_DRAIN
    DRAINED = lib.ONVM_MSG_DRAINED
    USER = lib.ONVM_MSG_USER
    DETACH = lib.ONVM_MSG_DETACH
    CLAIM = lib.ONVM_MSG_CLAIM
    UNCLAIM = lib.ONVM_MSG_UNCLAIM
    RESUME = lib.ONVM_MSG_RESUME
    OFFER = lib.ONVM_MSG_OFFER
    SNAPSHOT = lib.ONVM_MSG_SNAPSHOT
    RESTORE = lib.ONVM_MSG_RESTORE
    STATE = lib.ONVM_MSG_STATE
    RESTORED = lib.ONVM_MSG_RESTORED
    REFUSED = lib.ONVM_MSG_REFUSED
    RELEASED = lib.ONVM_MSG_RELEASED
    PORTS = lib.ONVM_MSG_PORTS
    CONFIG = lib.ONVM_MSG_CONFIG
    PREPARED = lib.ONVM_MSG_PREPARED
    APPLY = lib.ONVM_MSG_APPLY
    APPLIED = lib.ONVM_MSG_APPLIED
    DECLINED = lib.ONVM_MSG_DECLINED
    CANCEL = lib.ONVM_MSG_CANCEL
    LINK = lib.ONVM_MSG_LINK
    OWN_ADDRESSES = lib.ONVM_MSG_OWN_ADDRESSES
    ADDRESSES = lib.ONVM_MSG_ADDRESSES
    RELEASE = lib.ONVM_MSG_RELEASE
    SERVICES = lib.ONVM_MSG_SERVICES
    ASK = lib.ONVM_MSG_ASK
    REPLY = lib.ONVM_MSG_REPLY
    QUESTION = lib.ONVM_MSG_QUESTION
    ANSWER = lib.ONVM_MSG_ANSWER
    STEERING = lib.ONVM_MSG_STEERING


class StageHello:
    """One NF of the host, as the manager is told of it."""

    __slots__ = ("counters", "fragments", "instance", "reasons", "service")

    def __init__(
        self,
        service: str,
        instance: str,
        reasons: Sequence[str],
        counters: Sequence[str],
        fragments: int = 0,
    ) -> None:
        self.service = service
        self.instance = instance
        self.reasons = reasons
        self.counters = counters
        self.fragments = fragments


class Attached:
    """The resources that the manager granted."""

    __slots__ = ("instance_id", "loaned_buffers", "service_ids")

    def __init__(self, instance_id: int, service_ids: tuple[int, ...], loaned_buffers: int) -> None:
        self.instance_id = instance_id
        self.service_ids = service_ids
        self.loaned_buffers = loaned_buffers


class Message:
    """A message from the attach socket."""

    __slots__ = ("kind", "payload", "peer", "stage")

    def __init__(self, kind: int, stage: int, peer: str, payload: bytes) -> None:
        self.kind = kind
        self.stage = stage
        self.peer = peer
        self.payload = payload


class Host:
    """A ``struct onvm_nf_host``.

    Threads: one for everything, except ``interrupt``.
    """

    def __init__(self) -> None:
        host = lib.onvm_nf_host_create()
        check(0 if host else -12, "create an NF host")
        self._host = ffi.gc(host, lib.onvm_nf_host_free)
        self._header = ffi.new("struct onvm_message_header *")
        self._payload = ffi.new("uint8_t[]", lib.ONVM_MESSAGE_MAX)

    def set_stage(self, stage: int, function: int, state: int) -> None:
        """Set the kernel of a stage by address."""
        kernel = ffi.cast("onvm_kernel", function)
        result = lib.onvm_nf_host_set_stage(self._host, stage, kernel, ffi.cast("void *", state))
        check(result, f"set stage {stage}")

    def allow(self, stage: int, *, may_originate: bool, held_packets: int) -> None:
        """Let a stage make packets, and hold some. The stage may be set later."""
        result = lib.onvm_nf_host_allow(self._host, stage, may_originate, held_packets)
        check(result, f"make room for the held packets of stage {stage}")

    def held(self, stage: int) -> int:
        """Address of the table of a stage's held packets; 0 if it may hold none."""
        return int(ffi.cast("uintptr_t", lib.onvm_nf_host_held(self._host, stage)))

    def context(self, stage: int) -> int:
        """Address of the context of a stage's kernel."""
        return int(ffi.cast("uintptr_t", lib.onvm_nf_host_ctx(self._host, stage)))

    def originate(self, stage: int, packet: bytes, verdict: int, destination: int) -> bool:
        """Make a packet outside of a burst; False when the loan is used up or it does not fit.

        Raises:
            PermissionError: the stage may make none.
        """
        ctx = lib.onvm_nf_host_ctx(self._host, stage)
        result: int = lib.onvm_originate(ctx, packet, len(packet), verdict, destination)
        if result == -errno.EPERM:
            raise PermissionError("expected the permission originate in the manifest")
        return result == 0

    def hold(self, is_allowed: bool) -> None:
        """Let NFs hold packets, or release all and hold no more."""
        lib.onvm_nf_host_hold(self._host, is_allowed)

    def permit(self, stage: int, permissions: Sequence[str]) -> None:
        """Limit what a stage may do to packets; before `attach`."""
        may_write = "rewrite" in permissions or "originate" in permissions
        bits = (lib.ONVM_MAY_WRITE if may_write else 0) | (
            lib.ONVM_MAY_DROP if "drop" in permissions else 0
        )
        check(lib.onvm_nf_host_permit(self._host, stage, bits), f"limit stage {stage}")

    @property
    def offender(self) -> int | None:
        """The stage that has dropped a packet and may not; None if there is none."""
        stage: int = lib.onvm_nf_host_offender(self._host)
        return None if stage < 0 else stage

    def attach(
        self,
        path: str,
        stages: Sequence[StageHello],
        *,
        burst_size: int,
        loaned_buffers: int,
        secret: str,
        timeout_ms: int,
        wire_sized: bool = False,
    ) -> Attached:
        """Attach to the manager that listens at `path`.

        Raises:
            AttachError: no manager listens, or it refused.
        """
        hello = ffi.new("struct onvm_attach_hello *")
        hello.nb_stages = len(stages)
        hello.nb_loaned = loaned_buffers
        hello.burst_size = burst_size
        hello.wire_sized = wire_sized
        hello.secret = secret.encode()[: lib.ONVM_SECRET_LENGTH - 1]
        for number, stage in enumerate(stages):
            hello.stage[number].service = _name(stage.service)
            hello.stage[number].instance = _name(stage.instance)
            hello.stage[number].fragments = stage.fragments
            for index, name in enumerate(stage.reasons):
                hello.stage[number].reasons[index] = _name(name)
            for index, name in enumerate(stage.counters):
                hello.stage[number].counters[index] = _name(name)
        result = lib.onvm_nf_host_attach(self._host, os.fsencode(path), hello, timeout_ms)
        if result < 0:
            reason = ffi.string(lib.onvm_nf_host_error(self._host)).decode(errors="replace")
            raise AttachError(f"attach to {path}: {reason or os.strerror(-result)}")
        reply = lib.onvm_nf_host_reply(self._host)
        ids = tuple(reply.service_id[number] for number in range(len(stages)))
        return Attached(reply.instance_id, ids, reply.nb_loaned)

    def ready(self) -> None:
        """Say that packets may come."""
        check(lib.onvm_nf_host_ready(self._host), "tell the manager that packets may come")

    def run(self, deadline_ns: int) -> int:
        """Receive, process and return bursts; gives an Event."""
        event: int = lib.onvm_nf_host_run(self._host, deadline_ns)
        return check(event, "run the NF host")

    def turn(self, stage: int) -> None:
        """Call the kernel of a stage without packets."""
        lib.onvm_nf_host_turn(self._host, stage)

    def give_way(self, gives_way: bool) -> None:
        """Leave all time without packets to another thread of this process, or no longer."""
        lib.onvm_nf_host_give_way(self._host, gives_way)

    def interrupt(self) -> None:
        """Make ``run`` come back soon; any thread and a signal handler may call it."""
        lib.onvm_nf_host_interrupt(self._host)

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT interrupt ``run``; ``is_stop_requested`` tells."""
        check(lib.onvm_stop_on_signals(self._host), "handle signals")

    @property
    def is_stop_requested(self) -> bool:
        """True if such a signal has come."""
        return bool(lib.onvm_stop_requested())

    def close(self) -> None:
        """Detach; nothing else may be called any more."""
        lib.onvm_stop_on_signals(ffi.NULL)
        ffi.release(self._host)

    def receive(self) -> Message | None:
        """Take a message; None when there is none, or the manager is gone."""
        result = lib.onvm_nf_host_receive(self._host, self._header, self._payload)
        if result < 0:
            return None
        return Message(
            kind=self._header.type,
            stage=self._header.stage,
            peer=ffi.string(self._header.peer).decode(errors="replace"),
            payload=bytes(ffi.buffer(self._payload, result)),
        )

    def send(self, kind: int, stage: int, peer: str = "", payload: bytes = b"") -> None:
        """Send a message."""
        header = ffi.new("struct onvm_message_header *")
        header.type = kind
        header.stage = stage
        header.peer = _name(peer)
        result = lib.onvm_nf_host_send(self._host, header, payload, len(payload))
        check(result, f"send a message to {peer or 'the manager'!r}")

    def send_claim(
        self,
        stage: int,
        address: str,
        first_port: int,
        end_port: int,
        protocol: int,
        *,
        is_given_up: bool = False,
    ) -> None:
        """Announce that a range of an address's ports belongs to an NF, or does no longer."""
        import socket

        claim = ffi.new("struct onvm_claim *")
        claim.ip_version = 6 if ":" in address else 4
        family = socket.AF_INET6 if claim.ip_version == 6 else socket.AF_INET
        packed = socket.inet_pton(family, address)
        ffi.memmove(claim.address, packed, len(packed))
        claim.protocol = protocol
        claim.first_port = first_port
        claim.end_port = end_port
        kind = MessageType.UNCLAIM if is_given_up else MessageType.CLAIM
        self.send(kind, stage, payload=bytes(ffi.buffer(claim)))

    def counters(self, stage: int) -> memoryview | None:
        """Counters of a stage, in memory shared with the manager until the next attach."""
        values: Any = lib.onvm_nf_host_counters(self._host, stage)
        if not values:
            return None
        count = lib.ONVM_COUNTERS_MAX
        return memoryview(ffi.buffer(ffi.cast("uint64_t *", values), 8 * count)).cast("Q")


def _name(text: str) -> bytes:
    raw = text.encode()
    if len(raw) >= lib.ONVM_NAME_LENGTH:
        raise ValueError(f"{text!r}: a name of up to {lib.ONVM_NAME_LENGTH - 1} bytes expected")
    return raw


def unpack_ports(payload: bytes) -> list[tuple[str, int, int, bytes]]:
    """Read the payload of a message about ports: name, number, MTU and MAC address of each."""
    count = len(payload) // ffi.sizeof("struct onvm_port_entry")
    entries = ffi.new("struct onvm_port_entry[]", count)
    ffi.memmove(entries, payload, ffi.sizeof(entries))
    return [
        (
            ffi.string(entry.name).decode(errors="replace"),
            entry.number,
            entry.mtu,
            bytes(entry.mac),
        )
        for entry in entries
    ]


def confine(program: bytes) -> None:
    """Let this process make only the system calls that a seccomp program allows, for good.

    Args:
        program: classic BPF over ``struct seccomp_data``, as linux/filter.h has it.

    Raises:
        NativeError: the kernel does not take it.
    """
    check(lib.onvm_confine(program, len(program)), "confine this process")


def end_process(status: int) -> None:
    """Write out the C streams, and end this process; nothing is freed."""
    lib.onvm_end_process(status)
