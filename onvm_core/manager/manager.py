"""The manager: connects the data plane, the attach socket and the registry.

Threads: everything here belongs to the thread that created the manager and calls `poll`. The
data plane's workers are C threads that never wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from onvm_core.dataplane.interface import StartDataPlane
from onvm_core.dataplane.values import Affinity, ChainSpec, DataplaneSettings, Fragments, IdlePolicy
from onvm_core.launch.identity import is_in_other_namespace
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.attach import AttachServer, Connection
from onvm_core.manager.nf_hosts.cpu_shares import cpus_of, sharing
from onvm_core.manager.nf_hosts.meters import Meters
from onvm_core.manager.nf_hosts.questions import Questions
from onvm_core.manager.nf_hosts.registry import HostState, NfHost, Registry
from onvm_core.manager.startup import early_start, times
from onvm_core.manager.startup.cards import needs_physical
from onvm_core.manager.startup.environment import eal_arguments
from onvm_core.manager.startup.numa import cpu_nodes, process_node
from onvm_sdk.errors import OnvmError

__all__ = ["Manager"]

log = logging.getLogger("onvm.manager")

LEAVE_TIMEOUT_S = 2.0
LOGGED_BYTES_MAX = 200
FAULTS = {
    1: "it broke the rules of its rings or descriptors",
    2: 'it dropped packets without the permission "drop"',
    3: 'it changed packets without the permission "rewrite"',
}
"""The reason for detaching a host, by its fault."""


class Manager:
    """One host's manager. A context manager; `poll` drives it.

    Args:
        directory: directory of its sockets; made if it is missing.
        settings: sizes of the data plane.
        worker_cpus: one CPU for each worker lcore.
        cards: PCI addresses of its network cards; see `eal_arguments`.
        start_plane: makes the data plane.

    Attributes:
        plane: the data plane; its calls belong to the manager's thread.
    """

    def __init__(
        self,
        directory: Path,
        settings: DataplaneSettings,
        worker_cpus: Sequence[int],
        *,
        cards: Sequence[str] | None = None,
        start_plane: StartDataPlane = early_start.start_plane,
    ) -> None:
        self.settings = settings
        self.worker_cpus = tuple(worker_cpus)
        self.registry = Registry()
        self.selector = selectors.DefaultSelector()
        self.secrets: dict[str, tuple[str, ...]] = {}
        self.on_host_change: Callable[[NfHost], None] = lambda host: None
        self.on_notice: Callable[[], None] = lambda: None
        self.on_state_message: Callable[[NfHost, codec.Message], None] = lambda host, message: None
        self.on_answer: Callable[[NfHost, codec.Message], None] = lambda host, message: None
        self.on_config_message: Callable[[NfHost, codec.Message], None] = lambda host, message: None
        self.questions = Questions(self.send)
        self._by_slot: dict[int, NfHost] = {}
        self._leaving: dict[int, float] = {}
        self._held: set[str] = set()
        self._fragments: dict[str, Fragments] = {}
        self._own_fragments: dict[str, Fragments] = {}
        self._ports: tuple[codec.PortEntry, ...] = ()
        self._addresses: dict[str, list[str]] = {}
        self._affinities: dict[str, Affinity] = {}
        # In its own folder, which outlives this manager: launchers show it to NF hosts that see
        # nothing else of the file system, and that must find the next manager's socket.
        folder = directory / "attach"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.attach = AttachServer(folder / "attach.sock", self.selector, self)
        try:
            times.lap("wiring")
            is_physical = needs_physical(cards or ())
            arguments = eal_arguments(worker_cpus, cards=cards, is_physical=is_physical)
            self.plane = start_plane(settings, arguments)
            self.plane.start()
            times.lap("data plane")
        except BaseException:
            self.attach.close()
            raise
        self._permissions: dict[str, tuple[Collection[str] | None, ...]] = {}
        self._memory_reader: int | None = None
        self.meters = Meters(self.registry, settings, self.plane)
        self.selector.register(self.plane.notice_fd(), selectors.EVENT_READ, self._on_notice)

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and detach all NF hosts."""
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self.plane.fini)
            cleanup.callback(self.selector.close)
            cleanup.callback(self.selector.unregister, self.plane.notice_fd())
            cleanup.callback(self.attach.close)
            if self._memory_reader is not None:
                cleanup.callback(os.close, self._memory_reader)
            self.plane.stop()
            for host in list(self.registry.living()):
                self.attach.detach(host.slot, "the manager stops")

    @property
    def attach_path(self) -> Path:
        """Path of the socket where NF hosts attach."""
        return self.attach.path

    def poll(self, timeout_s: float) -> None:
        """Handle events within `timeout_s`; return after the first one."""
        for key, mask in self.selector.select(timeout_s):
            key.data(mask)
        self.attach.expire()
        self._let_leave()
        self.meters.turn()

    # ---- chains ----

    def set_chain(
        self,
        chain_id: int,
        near_port: int,
        far_port: int,
        services: Sequence[str],
        *,
        is_bidirectional: bool = True,
        track_flows: bool = True,
        by_rules: bool = False,
        waits: bool = False,
        cluster_number: int = 0,
        is_unbound: bool = False,
    ) -> None:
        """Set a chain of services between two ports; packets take it at once.

        With `by_rules`, only flows that match a rule of the port take it; with `waits`, its entry
        waits while a service has no instance; with `is_unbound`, packets from peers alone take it.
        """
        ids = tuple(self.registry.service_id(service) for service in services)
        self.plane.set_chain(
            chain_id,
            ChainSpec(
                near_port,
                far_port,
                ids,
                is_bidirectional,
                track_flows,
                by_rules,
                waits=waits,
                number=cluster_number,
                is_unbound=is_unbound,
            ),
        )

    # ---- hosts ----

    def show_ports(self, ports: Sequence[codec.PortEntry]) -> None:
        """Tell NFs of all ports there are now: those that serve, and others before they do."""
        self._ports = tuple(ports)
        for host in self._by_slot.values():
            if host.state is not HostState.ATTACHED:
                self._tell_ports(host)

    def use_fragments(self, fragments: Mapping[str, Fragments]) -> None:
        """Let services see datagrams in fragments in these forms; others as their manifests say."""
        self._fragments = dict(fragments)
        for service in self._own_fragments:
            self._set_fragments(service)

    def _set_fragments(self, service: str) -> None:
        form = self._fragments.get(service, self._own_fragments[service])
        self.plane.set_fragments(self.registry.service_id(service), form)

    def _tell_ports(self, host: NfHost) -> None:
        if self._addresses:
            self.send(host, self._packed_addresses())
        for link in codec.pack_links(self._ports):
            self.send(host, link)
        self.send(host, codec.pack_services(self.registry.service_ids))
        self.send(host, codec.pack_ports(self._ports))

    def _tell_services(self) -> None:
        for host in self._by_slot.values():
            if host.state is not HostState.ATTACHED:
                self.send(host, codec.pack_services(self.registry.service_ids))

    def _packed_addresses(self) -> bytes:
        every = {address for told in self._addresses.values() for address in told}
        return codec.pack_addresses(sorted(every))

    def _take_addresses(self, host: NfHost, message: codec.Message) -> None:
        """Tell NFs of the addresses of a service; they stay while its instances come and go."""
        if message.stage >= len(host.instances):
            raise codec.WireError(f"message of stage {message.stage}")
        service = host.instances[message.stage].service
        told = codec.unpack_addresses(message.payload)
        others = sum(len(n) for name, n in self._addresses.items() if name != service)
        if others + len(told) > codec.ADDRESSES_MAX:
            raise codec.WireError(f"expected at most {codec.ADDRESSES_MAX} addresses of NFs")
        if told != self._addresses.get(service, []):
            self._addresses[service] = told
            for one in self._by_slot.values():
                if one.state is not HostState.ATTACHED:
                    self.send(one, self._packed_addresses())

    def set_affinities(self, affinities: Mapping[str, Affinity]) -> None:
        """Set what decides the instance of a flow, by service, in place of what its NFs say."""
        for service in {*self._affinities, *affinities}:
            told = self._told(service)
            wanted = affinities.get(service, told[-1].affinity if told else Affinity.FLOW)
            self.plane.set_affinity(self.registry.service_id(service), wanted)
        self._affinities = dict(affinities)

    def longest_idle_s(self, services: Collection[str]) -> float:
        """The longest time for which an idle flow of some of these services is remembered."""
        told = [one for service in services for one in self._told(service)]
        known = [max(one.lifetimes_ms) for one in told if one.lifetimes_ms is not None]
        return max(self.settings.flow_idle_ms, *known, 0) / 1000

    def _told(self, service: str) -> list[codec.Steering]:
        """The messages of the NFs of a service about their flows."""
        return [
            host.steering[stage]
            for host, stage in self.registry.find(service)
            if stage in host.steering and host.instances[stage].service == service
        ]

    def _take_steering(self, host: NfHost, message: codec.Message) -> None:
        """Steer the flows of a service as its NFs say; the longest lifetimes of all count."""
        if message.stage >= len(host.instances):
            raise codec.WireError(f"message of stage {message.stage}")
        host.steering[message.stage] = steering = codec.unpack_steering(message.payload)
        service = host.instances[message.stage].service
        number = self.registry.service_id(service)
        self.plane.set_affinity(number, self._affinities.get(service, steering.affinity))
        told = [one.lifetimes_ms for one in self._told(service)]
        known = [one for one in told if one is not None]
        if len(known) == len(told):
            self.plane.set_lifetimes(number, [max(held) for held in zip(*known, strict=True)])

    def expect(
        self,
        secret: str,
        services: Sequence[str],
        permissions: Sequence[Collection[str] | None] = (),
    ) -> None:
        """Let the process that knows `secret` attach as these services, once.

        Args:
            permissions: of each NF; None, or none at all: it may do all.
        """
        self.secrets[secret] = tuple(services)
        self._permissions = {
            known: given for known, given in self._permissions.items() if known in self.secrets
        }
        self._permissions[secret] = tuple(permissions)

    def hold(self, secret: str) -> None:
        """Keep the host that attaches with `secret` on standby until `activate_host`."""
        self._held &= self.secrets.keys()  # without secrets that were never used
        self._held.add(secret)

    def host_of(self, slot: int) -> NfHost:
        """The living host in a slot."""
        return self._by_slot[slot]

    def activate_host(self, host: NfHost) -> None:
        """Send new flows to a host that is ready."""
        self.meters.assume_capacity(host)
        self.plane.activate_host(host.slot)
        host.state = HostState.ACTIVE
        self.on_host_change(host)

    def drain_host(self, host: NfHost) -> None:
        """Send no new flows to an active host; its running flows stay."""
        if not host.is_kept_back:
            self.plane.drain_host(host.slot)
        host.state = HostState.DRAINING
        host.drained.clear()
        for stage in range(len(host.instances)):
            self.send(host, codec.pack_message(codec.DRAIN, stage=stage))
        self.on_host_change(host)

    def resume_host(self, host: NfHost) -> None:
        """Send new flows to a draining host again."""
        if not host.is_kept_back:
            self.plane.activate_host(host.slot)
        host.state = HostState.ACTIVE
        for stage in range(len(host.instances)):
            self.send(host, codec.pack_message(codec.RESUME, stage=stage))
        self.on_host_change(host)

    def keep_back(self, host: NfHost, is_kept_back: bool) -> None:
        """Stop new flows to an active host because its cluster wants that, or allow them again; the
        NFs are not told.
        """
        if is_kept_back == host.is_kept_back:
            return
        host.is_kept_back = is_kept_back
        if host.state is HostState.ACTIVE:
            (self.plane.drain_host if is_kept_back else self.plane.activate_host)(host.slot)

    def stop_host(self, host: NfHost, successor: int = 0) -> None:
        """Send a host's flows elsewhere; when it holds no packet any more, let it leave.

        Args:
            successor: slot of the host, here or at a peer, that takes all its flows; 0: they are
                shared out.
        """
        host.is_asked_to_end = True
        if host.slot in self._leaving:
            return
        if host.state in (HostState.ACTIVE, HostState.DRAINING):
            self.plane.leave_host(host.slot, successor)
            self.send(host, codec.pack_message(codec.RELEASE))
            host.state = HostState.DRAINING
            self._leaving[host.slot] = time.monotonic() + LEAVE_TIMEOUT_S
        else:
            self.send(host, codec.pack_message(codec.STOP))

    def _let_leave(self) -> None:
        """Ask hosts to stop that hold no packet, or have held some for too long."""
        now = time.monotonic()
        for slot, deadline in list(self._leaving.items()):
            if self.plane.read_host(slot).reserved == 0 or now > deadline:
                del self._leaving[slot]
                self.send(self._by_slot[slot], codec.pack_message(codec.STOP))

    def send_user(self, name: str, payload: bytes) -> int:
        """Send a message to instance or service `name`; return how many hosts got it."""
        targets = self.registry.find(name)
        for host, stage in targets:
            self.send(host, codec.pack_message(codec.USER, stage=stage, payload=payload))
        return len(targets)

    def release_held(self) -> None:
        """Let NFs release the packets that they hold."""
        for host in self.registry.living():
            self.send(host, codec.pack_message(codec.RELEASE))

    def send(self, host: NfHost, message: bytes) -> None:
        """Send a message of the attach socket to a host."""
        self.attach.send(host.slot, message)
        if host.slot in self._by_slot:
            self.plane.raise_attention(host.slot)

    # ---- the attach socket's events ----

    def on_hello(
        self, connection: Connection, hello: codec.Hello
    ) -> tuple[bytes, tuple[int, ...], int]:
        """Make a host for an NF host that attaches."""
        services = tuple(stage.service for stage in hello.stages)
        if hello.secret:
            if self.secrets.get(hello.secret) != services:
                raise _refused(errno.EPERM, f"the secret is not for {','.join(services)}")
            del self.secrets[hello.secret]
        elif is_in_other_namespace(connection.pid):
            raise _refused(errno.EPERM, "an NF host in a sandbox attaches with its secret, once")
        if not 0 <= hello.n_loaned <= self.settings.ring_length // 2:
            raise _refused(errno.EINVAL, f"{hello.n_loaned} loaned buffers are too many")
        known = len(self.registry.service_ids)
        ids = tuple(self.registry.service_id(service) for service in services)
        if len(self.registry.service_ids) != known:
            self._tell_services()
        slot, handover = self.plane.add_host(ids, hello.n_loaned, self._node_of(connection.pid))
        memory_fd = self._limit(slot, hello.secret, handover.memory_fd)
        if hello.wire_sized:
            for service in ids:
                self.plane.set_wire_sized(service)
        for stage in hello.stages:
            self._own_fragments[stage.service] = stage.fragments
            self._set_fragments(stage.service)
        host = self.registry.add(slot, hello)
        host.pid = connection.pid
        host.secret = hello.secret
        host.is_held = hello.secret in self._held
        self._held.discard(hello.secret)
        self._by_slot[slot] = host
        host.cpus = cpus_of(host.pid)
        self._share_cpus()
        reply = codec.pack_reply(
            n_workers=self.settings.n_workers,
            ring_length=self.settings.ring_length,
            n_buffers=handover.n_buffers,
            buffer_stride=handover.buffer_stride,
            first_large=handover.first_large,
            large_bytes=handover.large_bytes,
            instance_id=slot,
            memory_bytes=handover.memory_bytes,
            area_bytes=handover.area_bytes,
            idle_policy=self.settings.idle_policy,
            n_loaned=hello.n_loaned,
            service_ids=ids,
        )
        descriptors = (memory_fd, handover.area_fd, *handover.event_fds)
        return reply, descriptors, slot

    def _limit(self, slot: int, secret: str, memory_fd: int) -> int:
        """Limit a host to what its NFs may do; return its descriptor of packet memory."""
        permissions = self._permissions.pop(secret, ()) if secret else ()
        no_drops = sum(
            1 << stage
            for stage, given in enumerate(permissions)
            if given is not None and "drop" not in given
        )
        is_fixed = [given is not None and "rewrite" not in given for given in permissions]
        reads_only = bool(is_fixed) and all(is_fixed)
        if reads_only or no_drops:
            self.plane.limit_host(slot, reads_only=reads_only, no_drops=no_drops)
        makes_none = all(given is not None and "originate" not in given for given in permissions)
        return self._readable(memory_fd) if reads_only and makes_none else memory_fd

    def _readable(self, memory_fd: int) -> int:
        """Packet memory as a descriptor that cannot be mapped for writing, nor opened again so."""
        if self._memory_reader is None:
            os.fchmod(memory_fd, 0o400)
            self._memory_reader = os.open(f"/proc/self/fd/{memory_fd}", os.O_RDONLY | os.O_CLOEXEC)
        return self._memory_reader

    def _share_cpus(self) -> None:
        """Let the hosts sleep that have no CPU of their own; others never do if that is wished."""
        if self.settings.idle_policy != IdlePolicy.BUSY:
            return
        cpus = {slot: host.cpus for slot, host in self._by_slot.items()}
        found = sharing(cpus, self.worker_cpus)
        for slot, host in self._by_slot.items():
            if host.shares_cpu != (slot in found):
                host.shares_cpu = slot in found
                self.plane.share_cpu(slot, host.shares_cpu)

    def _node_of(self, pid: int) -> int | None:
        """NUMA node on which an NF host runs, if that makes a difference."""
        if len(self.settings.memory_nodes) == 1:
            return None
        return process_node(pid, cpu_nodes())

    def on_message(self, connection: Connection, message: codec.Message) -> None:
        """Handle a message from a host."""
        host = self._by_slot[connection.slot]
        if message.kind == codec.READY:
            if host.state is HostState.ATTACHED and self._ports:
                self._tell_ports(host)
            if host.state is HostState.ATTACHED and host.is_held:
                host.state = HostState.STANDBY
                self.on_host_change(host)
            elif host.state is HostState.ATTACHED:
                self.activate_host(host)
        elif message.kind == codec.CLAIM:
            claim = codec.unpack_claim(message.payload)
            self.plane.claim(
                host.slot, claim.address, claim.protocol, claim.first_port, claim.end_port
            )
            host.claims.append(claim)
        elif message.kind == codec.STEERING:
            self._take_steering(host, message)
        elif message.kind == codec.OWN_ADDRESSES:
            self._take_addresses(host, message)
        elif message.kind == codec.USER:
            self._route(host, message)
        elif message.kind == codec.REPLY:
            self.questions.take(host, message)
        elif message.kind == codec.UNCLAIM:
            claim = codec.unpack_claim(message.payload)
            self.plane.unclaim(
                host.slot, claim.address, claim.protocol, claim.first_port, claim.end_port
            )
            host.claims = [known for known in host.claims if known != claim]
        elif message.kind == codec.DRAINED:
            host.drained.add(message.stage)
        elif message.kind in codec.STATE_MESSAGES:
            self.on_state_message(host, message)
        elif message.kind == codec.ANSWER:
            self.on_answer(host, message)
        elif message.kind in codec.CONFIG_MESSAGES:
            self.on_config_message(host, message)
        else:
            raise codec.WireError(f"message type {message.kind}")

    def _route(self, sender: NfHost, message: codec.Message) -> None:
        if message.stage >= len(sender.instances):
            raise codec.WireError(f"message of stage {message.stage}")
        name = sender.instances[message.stage].name
        if not message.peer:
            log.info("%s says: %r", name, message.payload[:LOGGED_BYTES_MAX])
            return
        for host, stage in self.registry.find(message.peer):
            self.send(
                host,
                codec.pack_message(codec.USER, stage=stage, peer=name, payload=message.payload),
            )

    def on_flushed(self, connection: Connection) -> None:
        """Let a host look at messages that had to wait for space in its socket."""
        if connection.slot in self._by_slot:
            self.plane.raise_attention(connection.slot)

    def on_gone(self, connection: Connection, reason: str) -> None:
        """A host's socket is closed: take everything back from the host."""
        host = self._by_slot.pop(connection.slot)
        self.meters.forget(host)
        self._leaving.pop(host.slot, None)
        self.questions.forget(host)
        host.last = self.plane.remove_host(host.slot)
        host.state = HostState.DEAD
        host.reason = reason
        self._share_cpus()
        self.on_host_change(host)

    def _on_notice(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):  # another turn has seen it
            os.read(self.plane.notice_fd(), 8)
        for slot in list(self._by_slot):
            counters = self.plane.read_host(slot)
            if counters.fault:
                self.attach.detach(slot, FAULTS[counters.fault])
        self.on_notice()


def _refused(number: int, reason: str) -> OnvmError:
    error = OnvmError(reason)
    error.errno = number  # type: ignore[attr-defined]
    return error
