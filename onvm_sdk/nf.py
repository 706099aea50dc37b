"""NetworkFunction: the base class of every NF.

A subclass defines exactly one of four methods. It decides how packets reach the NF, and how fast:

* ``process(self, burst)``: columns, the header fields of a burst as NumPy arrays;
* ``process_packet(self, pkt)``: one packet at a time; the easiest way, and the slowest;
* ``@kernel def process_packet(pkt, state)``: the same, compiled by numba;
* ``native(self)``: a C function from the NF's own cffi module.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import COUNTERS_MAX

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, ClassVar

    from onvm_sdk.burst import Burst
    from onvm_sdk.held import HeldPackets
    from onvm_sdk.packet import PacketView
    from onvm_sdk.verdict import Verdict

__all__ = ["Context", "Counters", "NativeKernel", "NetworkFunction", "Port"]


class NativeKernel:
    """A kernel in C: ``void f(struct onvm_ctx *, struct onvm_pkt *, uint32_t)``.

    Args:
        function: its address, as ``int(ffi.cast("uintptr_t", lib.f))``.
        state: the address that the kernel finds in ``ctx->state``, or 0.
        keep: objects that must stay alive as long as the kernel may be called (cffi, tables).
    """

    __slots__ = ("function", "keep", "state")

    def __init__(self, function: int, state: int = 0, keep: object = None) -> None:
        self.function = function
        self.state = state
        self.keep = keep


class Port:
    """A port of the manager.

    Args:
        name: its name in the manager's configuration.
        number: the number that packets have as `port`, and that `out` takes.
        mtu: the MTU of its interface; 0 if it has none, or the manager cannot see it.
        mac: the address of its interface, likewise; "" if there is none.
        link: the link behind it, as the manager's configuration has it: ``addresses``, ``vlans``
            and ``mac``, as far as they are set.
    """

    __slots__ = ("link", "mac", "mtu", "name", "number")

    def __init__(
        self,
        name: str,
        number: int,
        mtu: int = 0,
        mac: str = "",
        link: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.number = number
        self.mtu = mtu
        self.mac = mac
        self.link = {} if link is None else link


class Counters(Mapping[str, int]):
    """The counters of an NF, by the names in its manifest.

    Count with ``ctx.counters["hits"] += 1``. Operators read the counters while the NF runs. They
    hold 64 bits and wrap around.

    Threads: only the thread of the NF host writes them.
    """

    def __init__(self, names: Sequence[str], values: memoryview | None = None) -> None:
        self._index = {name: number for number, name in enumerate(names)}
        self._values = (
            memoryview(bytearray(8 * COUNTERS_MAX)).cast("Q") if values is None else values
        )

    def move(self, values: memoryview) -> None:
        """Continue in other memory, with the same counts: a manager has come back."""
        for number in range(len(self._index)):
            values[number] = self._values[number]
        self._values = values

    def keep(self) -> None:
        """Continue in private memory, before the memory shared with the manager is unmapped."""
        values = memoryview(bytearray(8 * COUNTERS_MAX)).cast("Q")
        self.move(values)

    def __getitem__(self, name: str) -> int:
        return self._values[self._number(name)]

    def __setitem__(self, name: str, value: int) -> None:
        self._values[self._number(name)] = value & 0xFFFF_FFFF_FFFF_FFFF

    def _number(self, name: str) -> int:
        try:
            return self._index[name]
        except KeyError:
            text = _unknown("counter", "counters", name, self._index)
            raise UnknownCounterError(text) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


class UnknownCounterError(KeyError):
    """A counter that the manifest does not name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError shows the repr of its text


def _unknown(what: str, key: str, name: object, known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f"{what} {name!r}: expected one of {key} in the manifest: {names or 'it has none'}"


def _nowhere(to: str, payload: bytes) -> None:
    raise ConfigError("expected an NF host with a manager", field=f"message to {to!r}")


def _no_claim(address: str, first_port: int, end_port: int, protocol: int) -> None:
    return None


def _no_addresses(addresses: Sequence[str]) -> None:
    return None


def _no_originate(packet: bytes, verdict: int, destination: int) -> bool:
    return False


def _number(what: str, name: str, known: Mapping[str, int] | None, method: str) -> int:
    if known is None:
        raise ConfigError(f"expected a {what} only after the first call of {method}", value=name)
    if name not in known:
        names = ", ".join(sorted(known)) or "there is none"
        raise ConfigError(f"expected a {what} of the manager: {names}", field=what, value=name)
    return known[name]


class Context:
    """The surroundings of an NF, passed to ``setup``.

    Args:
        name: name of the NF.
        instance: name of this instance; "" if the manager chooses it.
        config: the user's configuration, checked against the manifest, with all defaults.
        counters: the NF's counters, by the names in its manifest.
        reasons: names of the manifest's drop reasons, in order.
        send_message: ``send_message(to, payload)`` sends bytes to a service or an instance by name;
            "" is the manager.
        claim: ``claim(address, first_port, end_port, protocol)`` claims traffic to these ports of
            an address for this instance. The range is half-open. Protocol 0 covers TCP, UDP and
            ICMP identifiers.
        unclaim: gives a claim up; takes the same arguments.
        own_addresses: ``own_addresses(addresses)`` tells the NFs of the manager all IP addresses
            that this instance answers for, such as a VIP. A router on its chain answers ARP and
            NDP for them. Each call replaces the last.
        held: what `held` gives; None: it holds no packets.
        originate: makes a packet, with a verdict and its destination.
        clock: what `now_ns` reads.
        output_folder: a folder of this instance that it may write files into, and that stays
            when it ends; "" without a manager that gives it one.

    Lifetime: valid as long as the NF lives.
    """

    __slots__ = (
        "_clock",
        "_held",
        "_originate",
        "_ports",
        "_services",
        "claim",
        "config",
        "counters",
        "instance",
        "name",
        "output_folder",
        "own_addresses",
        "reasons",
        "send_message",
        "unclaim",
    )

    def __init__(
        self,
        name: str,
        instance: str = "",
        config: Mapping[str, Any] | None = None,
        counters: Counters | None = None,
        reasons: tuple[str, ...] = (),
        send_message: Callable[[str, bytes], None] = _nowhere,
        claim: Callable[[str, int, int, int], None] = _no_claim,
        unclaim: Callable[[str, int, int, int], None] = _no_claim,
        own_addresses: Callable[[Sequence[str]], None] = _no_addresses,
        held: HeldPackets | None = None,
        originate: Callable[[bytes, int, int], bool] = _no_originate,
        clock: Callable[[], int] = time.monotonic_ns,
        output_folder: str = "",
    ) -> None:
        self.name = name
        self.instance = instance
        self.config = {} if config is None else config
        self.counters = Counters(()) if counters is None else counters
        self.reasons = reasons
        self.send_message = send_message
        self.claim = claim
        self.unclaim = unclaim
        self.own_addresses = own_addresses
        self.output_folder = output_folder
        self._held = held
        self._originate = originate
        self._clock = clock
        self._ports: dict[str, int] | None = None
        self._services: dict[str, int] | None = None

    @property
    def held(self) -> HeldPackets:
        """The packets that this NF holds.

        Raises:
            PermissionError: the manifest has no ``held_packets``.
        """
        if self._held is None:
            raise PermissionError("expected held_packets in the manifest")
        return self._held

    def originate(self, packet: bytes, *, port: int | None = None) -> bool:
        """Create a packet, also from ``on_timer`` or ``on_message``.

        Args:
            packet: the whole frame.
            port: port to send it out of; None: send it to the next service, which only a packet
                made while one is processed has.

        Returns:
            False if no lent buffer is left, or if the packet is too long for one.

        Raises:
            PermissionError: the manifest has no permission ``originate``.
        """
        if port is None:
            return self._originate(packet, 0, 0)
        return self._originate(packet, 3, port)

    def port(self, name: str) -> int:
        """Return the number of a port by its name in the manager's configuration.

        Ports are known from the first call of ``on_ports`` on, so not in ``setup``.

        Raises:
            ConfigError: the manager has no such port.
        """
        return _number("port", name, self._ports, "on_ports")

    def service(self, name: str) -> int:
        """Return the ID of a service by its name, for ``to_service``.

        Services are known from the first call of ``on_ports`` on, so not in ``setup``.

        Raises:
            ConfigError: no NF of the manager provides the service.
        """
        return _number("service", name, self._services, "on_ports")

    def reason(self, name: str) -> int:
        """Return the index of a drop reason in the manifest.

        Raises:
            ValueError: the manifest has no such reason.
        """
        if name not in self.reasons:
            raise ValueError(_unknown("drop reason", "drop_reasons", name, self.reasons))
        return self.reasons.index(name)

    def counter(self, name: str) -> int:
        """Return the index of a counter in the manifest, for ``pkt.counters`` of a kernel.

        Raises:
            KeyError: the manifest has no such counter.
        """
        return self.counters._number(name)

    @property
    def now_ns(self) -> int:
        """The monotonic clock (CLOCK_MONOTONIC), in nanoseconds; in tests that of the runner."""
        return self._clock()


class NetworkFunction:
    """Base class of every network function.

    Define exactly one of `process`, `process_packet` and `native`. All other methods are optional.

    Threads: one thread calls all methods, never two at once; only `prepare` has its own.
    """

    manifest: ClassVar[Mapping[str, Any]] = {}
    """The content of ``onvm-nf.toml``, for an NF run as ``module:Class`` without that file."""
    commands: ClassVar[Mapping[str, str]] = {}
    """Commands for users, each ``module:function``: ``import`` and ``explain`` of ``onvm nf``. The
    function gets the arguments as a list of texts and returns the exit status."""
    lists: ClassVar[Mapping[str, str]] = {}
    """Names of the lists that `show` has, each with a line about it."""
    timer_interval_s: float = 0.0
    """Seconds between two calls of ``on_timer``; 0: never."""
    state: Any = None
    """Second argument of a ``@kernel``; set it in ``setup``."""

    @classmethod
    def check_config(cls, config: Mapping[str, Any], file: str | None) -> Sequence[str]:
        """Check a configuration without an instance, for ``onvm nf check`` and ``onvm up --check``.

        Args:
            config: as `Context.config`.
            file: the file it comes from, for messages.

        Returns:
            Warnings, one line each.

        Raises:
            ConfigError: it has a mistake.
        """
        return ()

    def setup(self, ctx: Context) -> None:
        """Prepare for packets. The first packet comes after this method has returned."""

    def process(self, burst: Burst) -> None:
        """Process a burst through its columns.

        Args:
            burst: valid until the method returns.
        """
        raise NotImplementedError

    def process_packet(self, pkt: PacketView) -> Verdict | int | None:
        """Process one packet.

        Args:
            pkt: valid until the method returns.

        Returns:
            A verdict. None leaves the verdict that ``pkt.drop()`` or the like has set, and is NEXT
            otherwise.
        """
        raise NotImplementedError

    def native(self) -> NativeKernel:
        """Return the C kernel. Called after ``setup``, and after each ``reconfigure``."""
        raise NotImplementedError

    def prepare(self, config: Mapping[str, Any]) -> Any:
        """Build what a new configuration needs, such as tables, and return it for `reconfigure`.

        Called while packets are processed, by a thread of its own: it must not change the NF. Its
        result may never be used. Without this method, `reconfigure` gets the configuration
        itself.

        Args:
            config: the new configuration, checked against the manifest, with all defaults.

        Raises:
            ConfigError: the configuration has a mistake; every instance keeps the old one.
        """
        return config

    def reconfigure(self, config: Any) -> None:
        """Use a new configuration from the next burst on.

        Called between two bursts, so it should take no longer than a few milliseconds: longer
        work belongs into `prepare`. Afterwards a ``@kernel`` gets the new `state`, and `native`
        is called again. An NF without this method is replaced by a new instance.

        Args:
            config: what `prepare` has returned.

        Raises:
            ConfigError: it cannot be used; the NF must be as before. Then every instance goes back
                to the old configuration.
        """
        raise NotImplementedError

    def on_message(self, sender: str, payload: bytes) -> bytes | None:
        """Receive a message.

        Args:
            sender: name of a service or an instance; "" is the manager.

        Returns:
            A reply, of at most 16 KiB, to the sender; None: no reply. ``onvm send`` prints it.
        """
        return None

    def on_ports(self, ports: Sequence[Port]) -> None:
        """Learn the ports of the manager. Called before the first packet, and at each change.

        Args:
            ports: all ports there are now.
        """

    def on_addresses(self, addresses: Sequence[str]) -> None:
        """Learn the addresses that NFs of the manager answer for, at each change.

        Args:
            addresses: all that any of them has given to ``ctx.own_addresses``.
        """

    def show(self, what: str) -> Iterable[Mapping[str, Any]]:
        """List parts of the NF's state, for ``onvm nf show``.

        Entries are taken a few at a time, between bursts, so write it as a generator. It may be
        left before its end, and packets may change the state meanwhile.

        Args:
            what: one of `lists`.

        Returns:
            Tables with texts, numbers and booleans, all with the same keys. Those that begin with
            "_" are not shown; they are for `kill`.
        """
        return ()

    def kill(self, what: str, entry: Mapping[str, Any]) -> bool:
        """Remove an entry that `show` has just given, for ``onvm nf kill``.

        Returns:
            True if there was such an entry; False for lists whose entries cannot be removed.
        """
        return False

    def on_timer(self, now_ns: int) -> None:
        """Do periodic work, every ``timer_interval_s``.

        After it a kernel in C is called without packets, and may make some.

        Args:
            now_ns: the monotonic clock, in nanoseconds.
        """

    def snapshot(self) -> bytes:
        """Return the state for the successor of this instance, at most 64 MiB.

        Called when a draining instance hands its flows over, and when an NF host that was started
        with ``--snapshot`` ends cleanly. No packets come meanwhile. If the successor does not take
        the state, packets come again as if nothing had happened. A subclass that overrides this
        method must also override ``restore``.
        """
        return b""

    def restore(self, snapshot: bytes) -> None:
        """Add the state of another instance with the same configuration.

        Called after ``setup``, before the first packet, or on an instance that serves; its own
        state stays. To refuse the state, raise an exception before anything is changed.

        Args:
            snapshot: the bytes that ``snapshot`` of the other instance returned.
        """

    def inherits(self) -> bool:
        """Return whether anything from another instance, taken over by ``restore``, is in use.

        Called about once a second after a ``restore``. As long as it returns True, no new instance
        gets the name of the former owner. For NFs whose instance name decides what they own.
        """
        return False

    def drain(self) -> bool:
        """Return whether the state may go. Called every 100 ms once no new flows come."""
        return True

    def teardown(self) -> None:
        """Release resources. No more packets come."""
