"""ZooKeeper servers on this machine, from the distribution's package, for trials and tests.

The operator provides a permanent ensemble; see "A cluster" in docs/operating.md. This one lives in
one folder, listens on the given addresses and ends with its owner.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from onvm_core.cluster.credentials import Credentials
from onvm_core.cluster.errors import ClusterError
from onvm_sdk.errors import ConfigError

__all__ = ["LocalEnsemble", "check_installed"]

JARS = ("zookeeper.jar", "slf4j-simple.jar", "netty-codec.jar", "netty-resolver.jar")
JAVA = Path("/usr/share/java")
START_TIMEOUT_S = 60.0
POLL_S = 0.02
WORD_TIMEOUT_S = 0.5
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


def check_installed() -> None:
    """Check that ZooKeeper is installed.

    Raises:
        ConfigError: it is not.
    """
    if not (JAVA / JARS[0]).exists():
        raise ConfigError(
            "expected to be installed; run: apt-get install zookeeper", field="ZooKeeper"
        )


class LocalEnsemble:
    """One server, or several that form an ensemble; a context manager.

    Args:
        folder: folder for data and logs; the caller removes it.
        members: number of servers.
        credentials: the user that SASL accepts; None: clients need no credentials.
        address: address at which all listen.
        tick_ms: sessions last from 2 to 20 of them.
        is_enforced: True if a client without credentials may do nothing at all, not even look for
            nodes that are open to all.
        settings: further lines of ``zoo.cfg``; "{folder}" stands for the server's folder.
        ports: three for each server; None: any free ports.
        netty: True to serve clients with Netty, which TLS needs.
    """

    def __init__(
        self,
        folder: Path,
        members: int = 1,
        *,
        credentials: Credentials | None = None,
        address: str = "127.0.0.1",
        tick_ms: int = 500,
        is_enforced: bool = False,
        settings: Sequence[str] = (),
        heap_mib: int = 128,
        netty: bool = False,
        ports: Sequence[int] | None = None,
    ) -> None:
        check_installed()
        self._folder = folder
        self._address = address
        self._credentials = credentials
        self._heap_mib = heap_mib
        self._netty = netty
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * members
        taken = list(ports or _free_ports(address, 3 * members))
        self.ports, peers = taken[:members], taken[members:]
        quorum = [
            f"server.{index + 1}={address}:{peers[2 * index]}:{peers[2 * index + 1]}"
            for index in range(members)
        ]
        for index in range(members):
            self._configure(index, tick_ms, quorum if members > 1 else [], is_enforced, settings)

    def _configure(
        self,
        index: int,
        tick_ms: int,
        quorum: Sequence[str],
        is_enforced: bool,
        settings: Sequence[str],
    ) -> None:
        home = self._home(index)
        (home / "data").mkdir(parents=True)
        lines = [
            f"dataDir={home}/data",
            f"clientPort={self.ports[index]}",
            f"clientPortAddress={self._address}",
            f"tickTime={tick_ms}",
            "initLimit=20",
            "syncLimit=10",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "autopurge.purgeInterval=0",
            *quorum,
        ]
        if quorum:
            (home / "data" / "myid").write_text(str(index + 1))
        if self._credentials is not None:
            lines.append(
                "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
            )
            jaas = home / "jaas.conf"
            jaas.touch(mode=0o600)
            jaas.write_text(self._credentials.jaas)
        if is_enforced:
            lines += ["enforce.auth.enabled=true", "enforce.auth.schemes=sasl"]
        lines += [line.replace("{folder}", str(home)) for line in settings]
        (home / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def _home(self, index: int) -> Path:
        return self._folder / f"zookeeper-{index + 1}"

    def __enter__(self) -> LocalEnsemble:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def hosts(self) -> str:
        """The address list that clients use."""
        return ",".join(f"{self._address}:{port}" for port in self.ports)

    def start(self) -> None:
        """Start all and wait until they serve.

        Raises:
            ClusterError: they do not serve within a minute.
        """
        for index in range(len(self.ports)):
            self.start_member(index)
        for index in range(len(self.ports)):
            self.wait_member(index)

    def start_member(self, index: int) -> None:
        """Start a server; return at once."""
        home = self._home(index)
        command = [
            # It must not outlive a killed test or trial. The kernel watches the thread that started
            # it, so that thread must stay alive.
            "setpriv",
            "--pdeathsig",
            "KILL",
            "java",
            f"-Xmx{self._heap_mib}m",
            "-Xms32m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-XX:-UsePerfData",
            "-Dzookeeper.forceSync=no",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dcom.sun.management.jmxremote=false",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]
        if self._credentials is not None:
            command.append(f"-Djava.security.auth.login.config={home}/jaas.conf")
        if self._netty:
            command.append(
                "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory"
            )
        command += ["-cp", ":".join(str(JAVA / jar) for jar in JARS), MAIN, f"{home}/zoo.cfg"]
        with (home / "log").open("ab") as log:
            self.processes[index] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_member(self, index: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until a server serves.

        Raises:
            ClusterError: it does not in time, or has ended.
        """
        deadline = time.monotonic() + timeout_s
        while self.role(index) is None:
            process = self.processes[index]
            if process is None or process.poll() is not None or time.monotonic() > deadline:
                log = self._home(index) / "log"
                lines = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise ClusterError(f"ZooKeeper {index + 1} does not serve: {' / '.join(lines)}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End all."""
        for index, process in enumerate(self.processes):
            if process is not None and process.poll() is None:
                self.kill(index)

    def kill(self, index: int) -> None:
        """End a server, as a crash would."""
        process = self.processes[index]
        assert process is not None
        process.kill()
        process.wait()

    def freeze(self, index: int) -> None:
        """Suspend a server; `thaw` resumes it."""
        process = self.processes[index]
        assert process is not None
        process.send_signal(signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """Resume a server."""
        process = self.processes[index]
        assert process is not None
        process.send_signal(signal.SIGCONT)

    def word(self, index: int, command: str) -> str:
        """The answer to a four-letter command; "" if there is none."""
        try:
            with socket.create_connection(
                (self._address, self.ports[index]), WORD_TIMEOUT_S
            ) as connection:
                connection.settimeout(WORD_TIMEOUT_S)
                connection.sendall(command.encode())
                parts = list(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return ""
        return b"".join(parts).decode(errors="replace")

    def role(self, index: int) -> str | None:
        """leader, follower or standalone; None if it does not serve."""
        for line in self.word(index, "srvr").splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ")
        return None

    def leader(self) -> int | None:
        """Index of the server that leads."""
        return next((i for i in range(len(self.ports)) if self.role(i) == "leader"), None)


def _free_ports(address: str, count: int) -> list[int]:
    """Ports that are free now; held open together so that they differ."""
    sockets = []
    try:
        for _ in range(count):
            one = socket.socket()
            sockets.append(one)
            one.bind((address, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
