"""The spare capacity of each instance, sent from agent to agent several times a second.

Such figures change too fast for ZooKeeper, which is for facts that must be agreed on. Each agent
publishes the figures of its own instances on a ZeroMQ socket over TCP, and subscribes to those of
the others. The connections are CURVE's: both ends know each other's public key from ZooKeeper,
where only members may write. An agent without a known key gets no connection, and there is nothing
else on this port. After a key is removed, it opens no new connection; an open connection lasts
until it breaks.

The figures are hints for weights. When none arrive, the last one is used for `STALE_S`, and after
that the capacity in ZooKeeper. For decisions on the number of instances the last one counts for
longer (`last_loads`), because an instance whose agent is not heard is not idle.

Threads: one; the authenticator has another one, which only reads the set of keys.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import zmq
import zmq.auth.thread

from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["Peer", "PeerLoad", "PeerNetwork", "interval_s"]

log = logging.getLogger("onvm.cluster.peers")

STALE_S = 5.0
KEPT_S = 3600.0
SILENT_S = 2.0
"""After this time without a message from a peer, the connection is made again: a peer that did not
know our key yet has refused us, and ZeroMQ does not try again.
"""
MESSAGE_BYTES_MAX = 1 << 20
QUEUE_LENGTH = 64
HEARTBEAT_MS = 2000
DOMAIN = "onvm"
MESSAGES_PER_TURN = 1000


class PeerLoad(msgspec.Struct, frozen=True, array_like=True):
    """One instance's load."""

    number: int
    spare_pps: int
    utilisation: float | None = None
    capacity_pps: int = 0
    demand: float | None = None
    sheds: int = 0


class _Message(msgspec.Struct, frozen=True, array_like=True):
    host: str
    loads: list[PeerLoad]


class Peer(msgspec.Struct, frozen=True):
    """The address of another agent."""

    endpoint: str
    key: str


class _KnownKeys:
    """The set of known keys that the authenticator asks."""

    def __init__(self) -> None:
        self.keys: frozenset[bytes] = frozenset()

    def callback(self, _domain: str, key: bytes) -> bool:
        return key in self.keys


class PeerNetwork:
    """The connections of one agent; a context manager.

    Args:
        name: name of the host.
        address: address to listen at; "": none.
        port: TCP port; 0: any.
        key, key_secret: CURVE keys.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, name: str, address: str, key: str, key_secret: str, port: int = 0) -> None:
        self._name = name
        self._peers: dict[str, Peer] = {}
        self._heard_s: dict[str, float] = {}
        self._news_s: dict[str, float] = {}
        """Times of the last messages, or of the first attempt to hear one."""
        self._known = _KnownKeys()
        self._loads: dict[int, tuple[PeerLoad, float]] = {}
        self._decoder = msgspec.msgpack.Decoder(_Message)
        self._keys = key, key_secret
        self._address = address
        self._port = port
        self.endpoint = ""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: Any = zmq.auth.thread.ThreadAuthenticator(
            self._context, log=logging.getLogger("onvm.cluster.zap")
        )
        self._authenticator.log.setLevel(logging.ERROR)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, self._known)
        self._publisher = self._socket(zmq.PUB)
        self._publisher.curve_server = True
        self._publisher.zap_domain = DOMAIN.encode()
        self.subscriber = self._socket(zmq.SUB)
        self.subscriber.subscribe(b"")
        try:
            if address:
                self._bind(self._publisher, port)
                self.endpoint = self.endpoint_of(self._publisher)
        except BaseException:
            self.close()
            raise

    def _socket(self, kind: int, bytes_max: int = MESSAGE_BYTES_MAX) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.SNDHWM, QUEUE_LENGTH)
        socket.setsockopt(zmq.RCVHWM, MESSAGES_PER_TURN)
        socket.setsockopt(zmq.MAXMSGSIZE, bytes_max)
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in self._keys)
        return socket

    @property
    def _host(self) -> str:
        return f"[{self._address}]" if ":" in self._address else self._address

    def _bind(self, socket: zmq.Socket[bytes], port: int) -> None:
        try:
            socket.bind(f"tcp://{self._host}:{port or '*'}")
        except zmq.ZMQError as error:
            raise ConfigError(
                f"expected an address at which an agent can listen ({error.strerror})",
                field="--control-address",
                value=f"{self._host}:{port}",
            ) from None

    # ---- further sockets with the same keys; each belongs to the thread that uses it ----

    def listen(self, kind: int, bytes_max: int) -> zmq.Socket[bytes]:
        """Make a socket for hosts with known keys, on the next port.

        Raises:
            ConfigError: it cannot listen there.
        """
        socket = self._socket(kind, bytes_max)
        socket.curve_server = True
        socket.zap_domain = DOMAIN.encode()
        try:
            if self._address:
                self._bind(socket, self._port and self._port + 1)
        except BaseException:
            socket.close(linger=0)
            raise
        return socket

    def endpoint_of(self, socket: zmq.Socket[bytes]) -> str:
        """The address at which a socket listens; "": none."""
        last = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(last, bytes)
        bound = last.rstrip(b"\0").decode().rpartition(":")[2]
        return f"tcp://{self._host}:{bound}" if bound else ""

    def connect(self, kind: int, peer: Peer, bytes_max: int) -> zmq.Socket[bytes]:
        """Make a socket connected to another agent's socket."""
        socket = self._socket(kind, bytes_max)
        socket.curve_serverkey = peer.key.encode()
        try:
            socket.connect(peer.endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise OnvmError(f"{peer.endpoint}: {error.strerror}") from None
        return socket

    def __enter__(self) -> PeerNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._publisher.close(linger=0)
        self.subscriber.close(linger=0)
        self._authenticator.stop()
        self._context.destroy(linger=0)

    def set_peers(self, peers: Mapping[str, Peer]) -> None:
        """Listen to these agents, and let only these listen; unchanged ones are not disturbed."""
        self._known.keys = frozenset(peer.key.encode() for peer in peers.values() if peer.key)
        wanted = {
            name: peer for name, peer in peers.items() if peer.endpoint and len(peer.key) == 40
        }
        for name, peer in set(self._peers.items()) - set(wanted.items()):
            self._disconnect(name, peer)
        for name, peer in set(wanted.items()) - set(self._peers.items()):
            self._connect(name, peer)
        self._peers = wanted
        now = time.monotonic()
        self._news_s = {name: self._news_s.get(name, now) for name in wanted}

    def _connect(self, name: str, peer: Peer) -> None:
        self.subscriber.curve_serverkey = peer.key.encode()
        try:
            self.subscriber.connect(peer.endpoint)
        except zmq.ZMQError as error:
            log.warning("%s at %s: %s", name, peer.endpoint, error.strerror)
        self._heard_s[name] = time.monotonic()

    def _disconnect(self, name: str, peer: Peer) -> None:
        with contextlib.suppress(zmq.ZMQError):  # ZeroMQ has given it up by itself
            self.subscriber.disconnect(peer.endpoint)
        self._heard_s.pop(name, None)

    def _try_silent(self) -> None:
        silent_s = max(SILENT_S, 4 * interval_s(len(self._peers)))
        for name, peer in self._peers.items():
            if time.monotonic() - self._heard_s.get(name, 0.0) > silent_s:
                self._disconnect(name, peer)
                self._connect(name, peer)

    def publish(self, loads: Iterable[PeerLoad]) -> None:
        """Send the figures to the others; call it every `interval_s`."""
        data = msgspec.msgpack.encode(_Message(self._name, list(loads)))
        with contextlib.suppress(zmq.Again):
            self._publisher.send(data, zmq.NOBLOCK)
        self._try_silent()

    def receive(self) -> int:
        """Take the messages that have come; return how many there were."""
        now = time.monotonic()
        for count in range(MESSAGES_PER_TURN):
            try:
                data = self.subscriber.recv(zmq.NOBLOCK)
            except zmq.Again:
                return count
            try:
                message = self._decoder.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # of another version
            if message.host in self._heard_s:
                self._heard_s[message.host] = self._news_s[message.host] = now
            for load in message.loads:
                self._loads[load.number] = (load, now)
        return MESSAGES_PER_TURN

    def loads(self) -> dict[int, PeerLoad]:
        """The last load of each instance, by number, if it is not too old."""
        now = time.monotonic()
        return {
            number: load for number, (load, at_s) in self._loads.items() if now - at_s < STALE_S
        }

    def last_loads(self) -> dict[int, PeerLoad]:
        """The last load of each instance, by number, however old; kept for an hour."""
        now = time.monotonic()
        self._loads = {number: one for number, one in self._loads.items() if now - one[1] < KEPT_S}
        return {number: load for number, (load, _) in self._loads.items()}

    def unheard(self) -> list[str]:
        """Names of peers of which nothing has been heard for long."""
        late_s = time.monotonic() - max(STALE_S, 10 * interval_s(len(self._peers)))
        return sorted(name for name, at_s in self._news_s.items() if at_s < late_s)


def interval_s(peers: int) -> float:
    """The interval between messages among so many peers: each agent reads all others' messages."""
    return max(0.15, 0.005 * peers)
