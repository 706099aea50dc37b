"""The connection to ZooKeeper: our user, its states, and errors as one line.

A session is CONNECTED, SUSPENDED or LOST, as kazoo names them:

* SUSPENDED: no server answers. The session may still live, so our ephemeral nodes may still stand.
  The agent continues with the known state and decides nothing: it gives out no number, makes and
  takes no request, and does not lead.
* LOST: the session is gone, and all our ephemeral nodes with it. kazoo makes a new one when it can;
  then the agent registers again, with a new node in the election. Writes of a former leader fail,
  because each of them checks that the old election node still exists.
* CONNECTED after one of them: watches are gone, and everything is read again.

kazoo gives up for good when a server closes the connection while SASL is negotiated. A server that
is just dying does the same, so `revive` begins a new session then, a second later. Servers refuse
clients without the right credentials in the same way; `connect` says so after two refusals.

TLS: a server's certificate must be of the given CA, and of no other that the system trusts, and for
the host name or address by which the server is given.

Threads: any thread may use `KazooClient`. Listeners are called by kazoo's threads and must only
record the event.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from typing import Any

from kazoo.client import CLOSED_STATES, KazooClient, KazooState
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    OperationTimeoutError,
    RolledBackError,
    RuntimeInconsistency,
    SessionClosedRequireSaslError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import ACL, Id, Permissions

from onvm_core.cluster.credentials import Credentials, Tls
from onvm_core.cluster.errors import ClusterError, ConflictError, NoEnsembleError
from onvm_sdk.errors import ConfigError, PluginError

__all__ = ["Ensemble", "Session", "check_hosts"]

log = logging.getLogger("onvm.cluster")

DEFAULT_SESSION_S = 6.0
REVIVE_S = 1.0
REFUSALS_MAX = 2
"""Time limit of one attempt to connect: a single failure may be a server that is just dying."""
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,/\[\]]+):(\d{1,5})")
REFUSED = (AuthFailedError, SessionClosedRequireSaslError)
LOG_S = 0.2
TRANSIENT = (
    ConnectionLoss,
    SessionExpiredError,
    OperationTimeoutError,
    ConnectionClosedError,
    KazooTimeoutError,
    AuthFailedError,
)


class Session(Enum):
    """The states of our session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


_STATES = {
    KazooState.CONNECTED: Session.CONNECTED,
    KazooState.SUSPENDED: Session.SUSPENDED,
    KazooState.LOST: Session.LOST,
}


def check_sasl() -> None:
    """Raise PluginError if the package is missing with which kazoo sends credentials."""
    if find_spec("puresasl") is None:
        raise PluginError(
            "expected the package pure-sasl; run: pip install 'onvm[cluster]'", field="onvm cluster"
        )


class Ensemble:
    """A session with an ensemble; a context manager.

    Args:
        hosts: ``host:port,host:port``.
        credentials: credentials of our user; None if the ensemble needs none.
        session_s: lifetime of a session without a sign of us.
        tls: files for TLS; None: no TLS.
        on_change: called with each state, by a thread of kazoo.

    Raises:
        ConfigError: `hosts` is no list of addresses.
    """

    def __init__(
        self,
        hosts: str,
        credentials: Credentials | None = None,
        *,
        session_s: float = DEFAULT_SESSION_S,
        tls: Tls | None = None,
        on_change: Callable[[Session], None] | None = None,
    ) -> None:
        check_hosts(hosts)
        self.hosts = hosts
        self.session_s = session_s
        self.acl = _acl(credentials)
        self._on_change = on_change
        self._revive_at = 0.0
        self._connected_at_s = time.monotonic()
        self._is_connecting = False
        self._logged_at_s = 0.0
        options: dict[str, Any] = {}
        if credentials is not None:
            check_sasl()
            options["sasl_options"] = {
                "mechanism": "DIGEST-MD5",
                "username": credentials.user,
                "password": credentials.password,
            }
        if tls is not None:
            options |= {
                "use_ssl": True,
                "ca": str(tls.ca),
                "certfile": str(tls.certificate),
                "keyfile": str(tls.key),
                "verify_certs": True,
                "check_hostname": True,
                "handler": _Handler(tls),
            }
        quiet = logging.getLogger("onvm.cluster.kazoo")  # it warns of events that we report
        quiet.setLevel(logging.CRITICAL)
        self._has_credentials = credentials is not None
        self.client: Any = _Client(
            hosts=hosts,
            timeout=session_s,
            default_acl=self.acl,
            logger=quiet,
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=1.5, max_delay=1.0),
            command_retry=KazooRetry(max_tries=0),
            **options,
        )
        self.client.add_listener(self._changed)

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, timeout_s: float = 10.0) -> None:
        """Open a session.

        Raises:
            NoEnsembleError: no server answers in time, or it does not accept us.
        """
        self._revive_at = time.monotonic() + REVIVE_S
        self.client.start_async()
        deadline = time.monotonic() + timeout_s
        self._is_connecting = True
        while time.monotonic() < deadline and self.client.refusals < REFUSALS_MAX:
            if self.client.connected and self._answers():
                self._is_connecting = False
                log.info("ZooKeeper: connected")
                return
            self.revive()
            time.sleep(0.01)
        self.close()
        untrusted = self.client.handler.untrusted if self.client.use_ssl else ""
        if self.client.refusals and self._has_credentials:
            raise NoEnsembleError(f"ZooKeeper at {self.hosts} does not accept our credentials")
        if self.client.refusals:
            raise NoEnsembleError(
                f"ZooKeeper at {self.hosts} accepts nobody without credentials; give them with "
                "--credentials FILE"
            )
        if untrusted:
            raise NoEnsembleError(f"ZooKeeper at {self.hosts} is not trusted: {untrusted}")
        raise NoEnsembleError(f"ZooKeeper at {self.hosts} does not answer within {timeout_s:g} s")

    def _answers(self) -> bool:
        """True if SASL has succeeded: kazoo reports CONNECTED before that."""
        try:
            self.client.exists("/")
        except KazooException as error:
            if isinstance(error, REFUSED):
                self.client.refusals += 1
            return False
        return True

    def close(self) -> None:
        """End the session; our ephemeral nodes disappear at once."""
        self.client.remove_listener(self._changed)
        self.client.stop()
        self.client.close()

    def abandon(self) -> None:
        """Stop without ending the session: our nodes stay until it expires.

        So a newer agent can replace this one without other hosts noticing.
        """
        self.client.remove_listener(self._changed)
        # kazoo has no call for this. Without its connection the loop only tries to reconnect, and
        # with this flag set it does not even do that.
        self.client._stopped.set()
        connection = self.client._connection
        sock = connection._socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it has just been closed
                sock.shutdown(2)
        connection.stop(5)
        self.client.handler.stop()
        connection.close()

    @property
    def session(self) -> Session:
        """Its state now."""
        return _STATES[self.client.state]

    @property
    def is_connected(self) -> bool:
        """True if decisions may be made."""
        return bool(self.client.connected) and self.session is Session.CONNECTED

    @property
    def session_id(self) -> int | None:
        """ID of the session that owns our ephemeral nodes; None without a session."""
        client_id = self.client.client_id
        return None if client_id is None else int(client_id[0])

    def revive(self) -> None:
        """Start again where kazoo has given up; call it from time to time."""
        now = time.monotonic()
        if self.client.connected:
            self._connected_at_s = now
        elif now - self._connected_at_s > self.session_s + REVIVE_S and self.client.last_zxid:
            # Servers whose data was restored from a backup, or lost, refuse those who have seen
            # later data. If the session lives, it goes on; otherwise a new one begins.
            log.info("no answer for longer than a session; connecting as if for the first time")
            self.client.last_zxid = 0
        if self.client.client_state != KeeperState.CLOSED:
            self._revive_at = now + REVIVE_S
        elif now >= self._revive_at:
            self._revive_at = now + REVIVE_S
            if not self._is_connecting:
                log.info("ZooKeeper has refused us; trying again")
            # Do not call stop() first: on a client that has ended, it would stay queued and close
            # the session that begins here.
            self.client.start_async()

    def _changed(self, state: str) -> None:
        session = _STATES[state]
        if self.client.client_state == KeeperState.AUTH_FAILED:
            self.client.refusals += 1
        now = time.monotonic()
        # Servers that refuse us would fill the log.
        if not self._is_connecting and now - self._logged_at_s > LOG_S:
            self._logged_at_s = now
            log.info("ZooKeeper: %s", session.value)
        if self._on_change is not None:
            self._on_change(session)

    # ---- calls ----

    @contextmanager
    def call(self, what: str) -> Iterator[Any]:
        """The client, for calls that `what` names; their exceptions become one line.

        Raises:
            NoEnsembleError: no server answers, or the session is gone.
            ConflictError: another process has changed, made or removed a node.
            ClusterError: any other error of ZooKeeper.
        """
        try:
            yield self.client
        except TRANSIENT as error:
            raise NoEnsembleError(f"{what}: ZooKeeper at {self.hosts}: {_name(error)}") from error
        except (BadVersionError, NodeExistsError, NoNodeError) as error:
            raise ConflictError(
                f"{what}: changed by another user or agent ({_name(error)})"
            ) from error
        except NoAuthError:
            raise ClusterError(
                f"{what}: ZooKeeper does not let us; are the credentials those of this cluster?"
            ) from None
        except KazooException as error:
            raise ClusterError(f"{what}: ZooKeeper: {_name(error)}") from error

    def commit(self, what: str, build: Callable[[Any], None]) -> list[Any]:
        """Do everything that `build` adds to a transaction, or nothing; return the results.

        Raises:
            ConflictError: one operation cannot be done; its line names it.
            NoEnsembleError: it is not known if the transaction was done.
        """
        with self.call(what) as client:
            transaction = client.transaction()
            build(transaction)
            results: list[Any] = transaction.commit()
            for result in results:
                if isinstance(result, RolledBackError | RuntimeInconsistency):
                    continue
                if isinstance(result, Exception):
                    raise result
        return results


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """Connects with TLS; kazoo would trust every CA of the system as well.

    Attributes:
        untrusted: the reason why a server was not trusted; "": none was met.
    """

    def __init__(self, tls: Tls) -> None:
        super().__init__()
        self._tls = tls
        self.untrusted = ""

    def create_connection(
        self, address: tuple[str, int], hostname: str, timeout: float, **_: object
    ) -> ssl.SSLSocket:
        """Connect to a server; called by kazoo."""
        context = ssl.create_default_context(cafile=str(self._tls.ca))
        context.load_cert_chain(str(self._tls.certificate), str(self._tls.key))
        connection = socket.create_connection(address, timeout)
        try:
            return context.wrap_socket(connection, server_hostname=hostname)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            self.untrusted = f"{error.verify_message} ({hostname})"
            raise
        except BaseException:
            connection.close()
            raise


class _Client(KazooClient):  # type: ignore[misc]
    """A client that answers requests which are made while a session ends.

    kazoo fails all waiting requests, then drops its queue: a request made between the two would
    wait forever.

    Attributes:
        refusals: number of times that servers have refused our credentials.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.refusals = 0
        self._connection.zk_loop = self._run_loop

    def _run_loop(self) -> None:
        try:
            type(self._connection).zk_loop(self._connection)
        except REFUSED:  # its thread would print a traceback
            self.refusals += 1

    def _call(self, request: Any, async_object: Any) -> Any:
        queue = self._queue
        result = super()._call(request, async_object)
        has_ended = self._state in CLOSED_STATES or self._queue is not queue
        if has_ended and not async_object.ready():
            async_object.set_exception(ConnectionLoss())
        return result


def check_hosts(hosts: str) -> None:
    """Check a list of addresses.

    Raises:
        ConfigError: it is not valid.
    """
    for address in hosts.split(","):
        match = ADDRESS.fullmatch(address.strip())
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise ConfigError(
                "expected host:port,host:port,…", field="ensemble", value=address or hosts
            )


def _acl(credentials: Credentials | None) -> list[Any]:
    """All rights for our user and none for others; without a user, all rights for all."""
    who = Id("world", "anyone") if credentials is None else Id("sasl", credentials.user)
    return [ACL(Permissions.ALL, who)]


def _name(error: BaseException) -> str:
    return str(error) or type(error).__name__.removesuffix("Error")
