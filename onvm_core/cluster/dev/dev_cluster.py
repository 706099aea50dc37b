"""A whole cluster on one machine, for trying out: `onvm cluster dev`.

```
 client ── h1 ══╗                ╔══ hN ── server
                ╠═ data network ═╣
       ZooKeeper ══ h2 … ════════╝
```

ZooKeeper is real, and so are the managers, the agents and the packets; each host is a network
namespace, and the data network is a bridge. Clients' packets enter at h1, pass the services of the
chain and leave at the last host: h2 runs the first service, h3 the second and so on. Everything is
made in one folder and in separate namespaces, and is removed when the cluster ends, however it
ends.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec

from onvm_core.cluster.credentials import Credentials, write_secret
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble, check_installed
from onvm_core.cluster.dev.namespaces import Spaces, check_spaces, make_spaces
from onvm_core.cluster.errors import ClusterError
from onvm_core.cluster.status import ClusterStatus, read_snapshot, read_status
from onvm_core.cluster.tree.definitions import Chains, check_chain
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.nodes import ChainNode, Paths
from onvm_core.manager.cluster_view.view import PortView
from onvm_sdk.errors import ConfigError

__all__ = ["CHAIN", "ECHO_PORT", "SERVER_ADDRESS", "SESSION_S", "DevCluster", "check_machine"]

CLUSTER = "dev"
CHAIN = "web"
NET = "net"
CLIENT, SERVER = "client", "server"
SERVER_ADDRESS = "10.9.0.2"
DATA = "172.30.0"
ECHO_PORT = 7
SESSION_S = 4.0
READY_TIMEOUT_S = 90.0
POLL_S = 0.1
ResultT = TypeVar("ResultT")

PLANE = "[dataplane]\nflows = 65536\n"


def check_machine() -> None:
    """Check that a cluster can be made here.

    Raises:
        ConfigError: this user may not make one, or a program is not installed.
    """
    check_spaces()
    check_installed()
    if shutil.which("ethtool") is None:
        raise ConfigError("expected ethtool; run: apt-get install ethtool", field="cluster dev")


class DevCluster:
    """Hosts, ZooKeeper, a chain, a client and a server; a context manager.

    Args:
        hosts: 2 to 16.
        services: services of the chain; they are started on the hosts in turn, from the second.
        servers: number of ZooKeeper servers.
        say: gets a line for each step.

    Raises:
        ConfigError: this user may not make one, or a program is not installed.
    """

    def __init__(
        self,
        hosts: int,
        services: Sequence[str],
        servers: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_machine()
        self.names = [f"h{number}" for number in range(1, hosts + 1)]
        self._services = list(services)
        self._n_servers = servers
        self._say = say
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, Path] = {}
        self.ensemble: Ensemble
        self.folder: Path
        self._spaces: Spaces

    def __enter__(self) -> DevCluster:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- starting ----

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onvm-dev-"))
        roles = [NET, *self.names, CLIENT, SERVER]
        self._spaces = self._stack.enter_context(make_spaces(roles, self.folder))
        self._stack.callback(self._end_processes)
        self._say(f"{len(self.names)} hosts as network namespaces, on a bridge")
        self._connect_hosts()
        self._connect_end(CLIENT, 1, self.names[0])
        self._connect_end(SERVER, 2, self.names[-1])
        credentials = Credentials.make()
        write_secret(self.folder / "credentials", credentials.line)
        self._say(f"ZooKeeper: {self._n_servers} server{'s' if self._n_servers > 1 else ''}")
        # This thread is in the bridge's namespace too while it starts them.
        self._servers = LocalEnsemble(
            self.folder,
            self._n_servers,
            credentials=credentials,
            address=f"{DATA}.254",
            ports=range(2181, 2181 + 3 * self._n_servers),
        )
        self._stack.callback(self._servers.stop)
        self._spaces.inside(NET, self._servers.start)
        self.ensemble = self._stack.enter_context(
            Ensemble(self._servers.hosts, credentials, session_s=SESSION_S)
        )
        self._spaces.inside(NET, self._make_cluster)
        self._write_script()
        self._say("managers and agents")
        self._start_hosts()
        self._wait(self._has_joined, "the hosts to join")
        self._say(f"chain {CHAIN}: client → {' → '.join(self._way())} → server")
        self._add_chain()
        self._wait(lambda: self.status().is_equal, "all managers to know the chain")
        threading.Thread(target=self._spaces.inside, args=(SERVER, _echo), daemon=True).start()
        self._wait(lambda: self.probe(1)[0] == 1, "packets to pass")

    def _make_cluster(self) -> None:
        # kazoo's thread opens connections; it must start in the namespace.
        self.ensemble.connect()
        make_cluster(self.ensemble, CLUSTER)

    def _connect_hosts(self) -> None:
        ip = self._spaces.ip
        ip(NET, "link", "add", "br0", "type", "bridge")
        ip(NET, "addr", "add", f"{DATA}.254/24", "dev", "br0")
        ip(NET, "link", "set", "br0", "up")
        for number, name in enumerate(self.names, 1):
            ip(
                NET,
                "link",
                "add",
                f"to-{name}",
                "type",
                "veth",
                "peer",
                "name",
                "data0",
                "netns",
                self._spaces.name(name),
            )
            ip(NET, "link", "set", f"to-{name}", "master", "br0", "up")
            ip(name, "addr", "add", f"{DATA}.{number}/24", "dev", "data0")
            ip(name, "link", "set", "data0", "up")

    def _connect_end(self, role: str, number: int, host: str) -> None:
        ip = self._spaces.ip
        ip(
            role,
            "link",
            "add",
            "e0",
            "type",
            "veth",
            "peer",
            "name",
            f"{role}0",
            "netns",
            self._spaces.name(host),
        )
        # A veth leaves checksums to a NIC that does not exist.
        subprocess.run(
            self._spaces.command(
                role, "ethtool", "-K", "e0", "tx", "off", "tso", "off", "gso", "off"
            ),
            check=True,
            capture_output=True,
        )
        ip(host, "link", "set", f"{role}0", "up")
        ip(role, "addr", "add", f"10.9.0.{number}/24", "dev", "e0")
        ip(role, "link", "set", "e0", "up")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes and of commands for it."""
        return {
            **os.environ,
            "ONVM_RUNTIME_DIR": str(self.folder / "r"),
            "ONVM_STATE_DIR": str(self.folder / "state"),
            "ONVM_CLUSTER_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "ONVM_ENSEMBLE": self._servers.hosts,
            "ONVM_CLUSTER": CLUSTER,
        }

    def _write_script(self) -> None:
        """``FOLDER/onvm`` is the command line for this cluster; ``FOLDER/in ROLE …`` runs a command
        in a namespace.
        """
        variables = " ".join(
            f"{name}={shlex.quote(self.environment[name])}"
            for name in (
                "ONVM_RUNTIME_DIR",
                "ONVM_STATE_DIR",
                "ONVM_CLUSTER_CREDENTIALS_FILE",
                "ONVM_ENSEMBLE",
                "ONVM_CLUSTER",
            )
        )
        # `onvm` may be in an environment that is not activated.
        variables += f' PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
        net, prefix = self._spaces.name(NET), self._spaces.prefix
        python = f"{shlex.quote(sys.executable)} -P -m onvm_core.cli"
        for name, line in (
            ("onvm", f'exec ip netns exec {net} env {variables} {python} "$@"'),
            ("in", f'role=$1; shift; exec ip netns exec {prefix}-"$role" env {variables} "$@"'),
        ):
            script = self.folder / name
            script.write_text(f"#!/bin/sh\n{line}\n")
            script.chmod(0o755)

    def _start_hosts(self) -> None:
        turns: dict[str, list[str]] = {name: [] for name in self.names}
        for service, name in zip(
            self._services, itertools.cycle([*self.names[1:], self.names[0]]), strict=False
        ):
            turns[name].append(service)
        for name in self.names:
            text = PLANE + "".join(f"[nfs.{service}]\n" for service in turns[name])
            for role, host in ((CLIENT, self.names[0]), (SERVER, self.names[-1])):
                if host == name:
                    text += f'[ports.{role}]\nuri = "af_packet:{role}0"\n'
            (self.folder / f"{name}.toml").write_text(text)
            self.start_manager(name)
            self.start_agent(name)

    def start_manager(self, name: str) -> None:
        """Start the manager of a host that has none; return at once."""
        config = str(self.folder / f"{name}.toml")
        self._spawn(name, f"{name}-manager", "up", "--name", name, "-f", config)

    def start_agent(self, name: str) -> None:
        """Start the agent of a host that has none; return at once."""
        number = self.names.index(name) + 1
        self._spawn(
            name,
            f"{name}-agent",
            "cluster",
            "join",
            "--manager",
            name,
            "--name",
            name,
            "--data-address",
            f"{DATA}.{number}",
            "--session-timeout",
            f"{SESSION_S:g}",
            "--no-measure-cpu",  # all hosts share one machine
        )

    def _spawn(self, role: str, label: str, *arguments: str) -> None:
        log = self._logs[label] = self.folder / f"{label}.log"
        with log.open("wb") as output:
            self._processes[label] = subprocess.Popen(
                self._spaces.command(role, sys.executable, "-P", "-m", "onvm_core.cli", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )

    def end_agent(self, name: str, timeout_s: float = 10.0) -> None:
        """Wait until the agent of a host that was removed has ended."""
        self._processes.pop(f"{name}-agent").wait(timeout_s)

    def kill(self, name: str) -> None:
        """Kill a host: manager, NFs and agent at once."""
        labels = [label for label in self._processes if label.partition("-")[0] == name]
        processes = [self._processes.pop(label) for label in labels]
        self._spaces.kill(name)
        for process in processes:
            process.wait()

    def cut(self, name: str, is_cut: bool = True) -> None:
        """Cut a host off from the data network, which also carries ZooKeeper's traffic; or
        reconnect it.
        """
        self._spaces.ip(NET, "link", "set", f"to-{name}", "down" if is_cut else "up")

    def _end_processes(self) -> None:
        processes = list(reversed(self._processes.values()))
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not condition():
            for label, process in self._processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"{label} has ended: {_last_line(self._logs[label])}")
            if time.monotonic() > deadline:
                raise ClusterError(f"waited {READY_TIMEOUT_S:g} s for {what}")
            time.sleep(POLL_S)

    def _has_joined(self) -> bool:
        shown = self.status()
        running = {one.name for one in shown.services if one.instances}
        up = [one for one in shown.hosts if one.state == "up"]
        return len(up) == len(self.names) and running >= set(self._services) and shown.is_equal

    def _way(self) -> list[str]:
        return [self.names[0], *self._services, self.names[-1]]

    def _add_chain(self) -> None:
        chains, paths = Chains(self.ensemble, Paths(CLUSTER)), Paths(CLUSTER)
        node = ChainNode(
            number=1,
            revision=1,
            near=PortView(host=self.names[0], port=CLIENT),
            far=PortView(host=self.names[-1], port=SERVER),
            services=self._services,
        )
        check_chain(read_snapshot(self.ensemble, paths), node)
        chains.put(CHAIN, msgspec.structs.replace(node, number=chains.new_number()), "dev")

    # ---- looking ----

    @property
    def paths(self) -> Paths:
        """Paths of the cluster in ZooKeeper."""
        return Paths(CLUSTER)

    def manager(self, name: str) -> Path:
        """The directory of a host's manager."""
        return self.folder / "r" / name

    def in_client(self, call: Callable[[], ResultT]) -> ResultT:
        """Call a function in the clients' namespace."""
        return self._spaces.inside(CLIENT, call)

    def command(self, role: str, *arguments: str) -> list[str]:
        """A command in the form that runs on a host, the client or the server."""
        return self._spaces.command(role, *arguments)

    def status(self) -> ClusterStatus:
        """The current state of the cluster."""
        return read_status(self.ensemble, Paths(CLUSTER))

    def stop_server(self, index: int) -> None:
        """Kill a server of ZooKeeper."""
        self._servers.kill(index)

    def start_server(self, index: int) -> None:
        """Start a server again."""
        self._spaces.inside(NET, lambda: self._servers.start_member(index))

    def probe(self, count: int = 20) -> tuple[int, float]:
        """Send datagrams through the chain; return how many came back, and their mean time in
        milliseconds.
        """
        return self._spaces.inside(CLIENT, lambda: _probe(count))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def _echo() -> None:
    """Answer datagrams, until the process ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SERVER_ADDRESS, ECHO_PORT))
        while True:
            data, sender = server.recvfrom(2048)
            server.sendto(data, sender)


def _probe(count: int) -> tuple[int, float]:
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect((SERVER_ADDRESS, ECHO_PORT))
        for index in range(count):
            begin = time.monotonic()
            client.send(f"probe {index}".encode())
            try:
                client.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            times.append(time.monotonic() - begin)
    return len(times), sum(times) / max(len(times), 1) * 1e3
