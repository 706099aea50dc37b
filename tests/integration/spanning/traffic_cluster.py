"""A cluster of three hosts in namespaces, with real traffic through firewall, NAT and balancer.

```
 client ── a ══╗               ╔══ c ── server
               ╠═ b, ZooKeeper ╣
```

Managers and agents are those of the command line, ZooKeeper is real, TCP is the kernel's. The
firewall drops what it has not let in, the NAT what it does not know; the balancer has four
backends. They are those of `plugins`, under names whose manifests want a quarter of a core, so that
a machine with two has room for what is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from commands import ONVM
from namespaces import end
from talk import TALK
from up_host import install_nf

from onvm_core.cluster.credentials import Credentials, write_secret
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble
from onvm_core.cluster.dev.namespaces import Spaces, make_spaces
from onvm_core.cluster.errors import NoEnsembleError
from onvm_core.cluster.status import ClusterStatus, read_snapshot, read_status
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster
from onvm_core.cluster.tree.nodes import AppliedNode, Paths, unpack
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.client import Client

HOSTS = ("a", "b", "c")
NET = "net"
CLUSTER = "traffic"
DATA = "172.29.0"
VIP, EXTERNAL = "198.51.100.10", "192.0.2.1"
BACKENDS = [f"203.0.113.{number}" for number in range(1, 5)]
ECHO_PORT, BLOB_PORT = 7007, 7008
CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
TIMEOUT_S = 60.0
CONFIG = """
[dataplane]
flows = 65536
buffers = 8192
[nfs.guard]
instances = {guard}
[nfs.guard.config]
default = "drop"
rules = [{{ action = "accept", src = "10.9.0.0/24" }}]
[nfs.translator]
instances = {translator}
[nfs.translator.config]
external = "{external}"
ports = "{ports}"
blocks = 8
max_per_subscriber = 65535
[nfs.balancer]
instances = {balancer}
[nfs.balancer.config]
vips = [{{ address = "{vip}", protocol = "tcp", backends = [{backends}] }}]
"""
PLACES = {"a": "guard", "b": "translator", "c": "balancer"}
PLUGINS = {"guard": "firewall", "translator": "nat", "balancer": "lb"}
NAT_PORTS = {"a": "1024-20000", "b": "20001-40000", "c": "40001-65000"}


class Talk:
    """The clients' process."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("wb"), text=True
        )

    def tell(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class TrafficCluster:
    """Makes all of it; a context manager.

    Args:
        servers: of ZooKeeper.
    """

    def __init__(self, servers: int = 1, session_s: float = 2.0) -> None:
        self._n_servers = servers
        self.session_s = session_s
        self._stack = ExitStack()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> TrafficCluster:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- making ----

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onvm-tc-"))
        self.spaces: Spaces = self._stack.enter_context(
            make_spaces([NET, *HOSTS, "client", "server"], self.folder)
        )
        self._connect()
        for name, plugin in PLUGINS.items():
            _install_small(self.folder / "site", name, plugin)
        install_nf(self.folder / "site", "dot", manifest="memory_mib = 16\ncores = 0.01\n")
        credentials = Credentials.make()
        write_secret(self.folder / "credentials", credentials.line)
        self.servers = LocalEnsemble(
            self.folder,
            self._n_servers,
            credentials=credentials,
            address=f"{DATA}.254",
            ports=range(2181, 2181 + 3 * self._n_servers),
        )
        self._stack.callback(self.servers.stop)
        self.spaces.inside(NET, self.servers.start)
        self.ensemble = self._stack.enter_context(
            Ensemble(self.servers.hosts, credentials, session_s=8.0)
        )
        self.spaces.inside(NET, self._make_cluster)
        for name in HOSTS:
            self.start_host(name)
        self.wait(lambda: self.is_whole(3), "three hosts that know each other")
        self.onvm(
            "cluster",
            "chain",
            "add",
            "web",
            "--in",
            "a:client",
            "--out",
            "c:server",
            "--services",
            ",".join(PLUGINS),
        )
        self.wait(lambda: self.is_whole(3), "a chain that all know")
        self._spawn("server", "servers", *TALK, "serve", str(ECHO_PORT), str(BLOB_PORT))
        log = self.folder / "servers.log"
        self.wait(lambda: "ready" in log.read_text(), "servers")
        self.talk = Talk(
            self.spaces.command("client", *TALK, "talk", VIP, str(ECHO_PORT), str(BLOB_PORT)),
            self.folder / "clients.log",
        )
        self._stack.callback(self.talk.close)

    def _make_cluster(self) -> None:
        self.ensemble.connect()  # kazoo's thread has to begin in the namespace
        make_cluster(self.ensemble, CLUSTER)

    def _connect(self) -> None:
        ip = self.spaces.ip
        ip(NET, "link", "add", "br0", "type", "bridge")
        ip(NET, "addr", "add", f"{DATA}.254/24", "dev", "br0")
        ip(NET, "link", "set", "br0", "up")
        for number, name in enumerate(HOSTS, 1):
            ip(
                NET,
                "link",
                "add",
                f"to-{name}",
                "mtu",
                "1700",
                "type",
                "veth",
                "peer",
                "name",
                "data0",
                "mtu",
                "1700",
                "netns",
                self.spaces.name(name),
            )
            ip(NET, "link", "set", f"to-{name}", "master", "br0", "up")
            ip(name, "addr", "add", f"{DATA}.{number}/24", "dev", "data0")
            ip(name, "link", "set", "data0", "up")
        macs = {"client": "02:00:00:00:00:01", "server": "02:00:00:00:00:02"}
        for role, host, address in (("client", "a", CLIENT), ("server", "c", SERVER)):
            ip(
                role,
                "link",
                "add",
                "e0",
                "address",
                macs[role],
                "type",
                "veth",
                "peer",
                "name",
                f"{role}0",
                "netns",
                self.spaces.name(host),
            )
            # A veth leaves checksums to a NIC that is not there.
            self.run(role, "ethtool", "-K", "e0", "tx", "off", "tso", "off", "gso", "off")
            for where, interface in ((host, f"{role}0"), (role, "e0")):
                self.run(where, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
                ip(where, "link", "set", interface, "up")
            ip(role, "addr", "add", f"{address}/24", "dev", "e0")
        # Only the chain is between them: no ARP, which would be packets without a flow.
        for role, other, targets in (
            ("client", "server", [VIP]),
            ("server", "client", [EXTERNAL]),
        ):
            for target in targets:
                ip(role, "route", "add", f"{target}/32", "dev", "e0")
                ip(role, "neigh", "add", target, "lladdr", macs[other], "dev", "e0")
        for backend in BACKENDS:
            ip("server", "addr", "add", f"{backend}/32", "dev", "e0")

    def run(self, role: str, *command: str) -> str:
        done = subprocess.run(
            self.spaces.command(role, *command),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ONVM_RUNTIME_DIR": str(self.folder / "r"),
            "ONVM_STATE_DIR": str(self.folder / "state"),
            "ONVM_CLUSTER_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "ONVM_ENSEMBLE": self.servers.hosts,
            "ONVM_CLUSTER": CLUSTER,
            "PYTHONPATH": str(self.folder / "site"),
        }

    def _spawn(self, role: str, label: str, *command: str) -> None:
        with (self.folder / f"{label}.log").open("ab") as output:
            process = subprocess.Popen(
                self.spaces.command(role, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )
        self.processes[label] = process
        self._stack.callback(end, process)

    # ---- hosts ----

    def start_host(self, name: str) -> None:
        """A manager and its agent, in the host's namespace."""
        self.start_manager(name)
        self.start_agent(name)

    def start_manager(self, name: str) -> None:
        counts = {service: int(PLACES[name] == service) for service in PLACES.values()}
        backends = ", ".join(f'{{ address = "{address}" }}' for address in BACKENDS)
        text = CONFIG.format(
            **counts, external=EXTERNAL, ports=NAT_PORTS[name], vip=VIP, backends=backends
        )
        for role, host in (("client", "a"), ("server", "c")):
            if host == name:
                text += f'[ports.{role}]\nuri = "af_packet:{role}0"\n'
        (self.folder / f"{name}.toml").write_text(text)
        self._spawn(
            name,
            f"{name}-manager",
            *ONVM,
            "up",
            "--name",
            name,
            "-f",
            str(self.folder / f"{name}.toml"),
        )

    def start_agent(self, name: str) -> None:
        self._spawn(
            name,
            f"{name}-agent",
            *ONVM,
            "cluster",
            "join",
            "--manager",
            name,
            "--name",
            name,
            "--data-address",
            f"{DATA}.{HOSTS.index(name) + 1}",
            "--session-timeout",
            f"{self.session_s:g}",
            "--no-measure-cpu",
        )

    def state(self, name: str) -> str:
        """Of a host: up, away, …; "" when the cluster does not know it."""
        return next((one.state for one in self.status().hosts if one.name == name), "")

    @contextlib.contextmanager
    def cut(self, name: str, *addresses: str) -> Iterator[None]:
        """Packets from a host to some addresses go nowhere."""
        for action in ("add", "del"):
            for address in addresses:
                self.spaces.ip(name, "route", action, "blackhole", f"{address}/32")
            if action == "add":
                yield

    @contextlib.contextmanager
    def server_gone(self, role: str, fault: str) -> Iterator[None]:
        """A server of ZooKeeper, a follower or the leader, is killed or frozen for a while."""
        roles = self.spaces.inside(
            NET, lambda: [self.servers.role(one) for one in range(self._n_servers)]
        )
        index = roles.index(role)
        (self.servers.kill if fault == "kill" else self.servers.freeze)(index)
        yield
        if fault == "kill":
            self.spaces.inside(NET, lambda: self.servers.start_member(index))
            self.spaces.inside(NET, lambda: self.servers.wait_member(index))
        else:
            self.servers.thaw(index)

    def kill_host(self, name: str) -> None:
        """kill -9 of everything that runs there: manager, NFs, agent."""
        for pid in self.run_outside("ip", "netns", "pids", self.spaces.name(name)).split():
            os.kill(int(pid), signal.SIGKILL)
        for label in (f"{name}-manager", f"{name}-agent"):
            self.processes[label].wait(10)

    @staticmethod
    def run_outside(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    # ---- commands and looking ----

    def onvm(self, *arguments: str, is_ok: bool = True) -> str:
        done = subprocess.run(
            self.spaces.command(NET, *ONVM, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=TIMEOUT_S,
        )
        assert (done.returncode == 0) is is_ok, (arguments, done.stdout, done.stderr, self.logs())
        return done.stdout

    def ask(self, name: str, request: m.Request) -> Any:
        with Client(self.folder / "r" / name) as client:
            return msgspec.to_builtins(client.ask(request, object))

    def report(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(name, m.StatusRequest())["report"]
        return found

    def status(self) -> ClusterStatus:
        return read_status(self.ensemble, Paths(CLUSTER))

    def instances(self) -> set[str]:
        """NF hosts that all managers have launched, as NAME@HOST."""
        return {
            f"{one['instances'][0]}@{name}"
            for name in HOSTS
            if self.processes[f"{name}-manager"].poll() is None
            for one in self.ask(name, m.InstancesRequest())["launched"]
        }

    def nf_processes(self) -> list[int]:
        """Processes of NFs in the hosts' namespaces, known to an agent or not."""
        pids = [
            int(pid)
            for name in HOSTS
            for pid in self.run_outside("ip", "netns", "pids", self.spaces.name(name)).split()
        ]
        return [pid for pid in pids if b"onvm_sdk.runtime" in _command_line(pid)]

    def seen(self) -> set[str]:
        """NF hosts that the cluster knows, likewise."""
        snapshot = read_snapshot(self.ensemble, Paths(CLUSTER))
        return {
            f"{one.name}@{host}"
            for host, node in snapshot.instances.items()
            for one in node.instances
        }

    def serving(self, service: str) -> set[str]:
        """Hosts with instances of a service that get new flows."""
        found = [one for one in self.status().services if one.name == service]
        return set(found[0].instances) if found else set()

    def arrange(self, **places: str) -> None:
        """Have one instance of each service at each of the hosts that are named by letters."""
        for service, hosts in places.items():
            for host in sorted(set(hosts) - self.serving(service)):
                self.onvm("cluster", "scale", "out", service, "--prefer", host)
            for host in sorted(self.serving(service) - set(hosts)):
                self.onvm("cluster", "scale", "in", service, "--host", host)
        wanted = {service: set(hosts) for service, hosts in places.items()}
        count = sum(map(len, places.values()))
        self.wait(
            lambda: (
                {one: self.serving(one) for one in places} == wanted
                and len(self.instances()) == count
                and self.instances() == self.seen()
                and self.is_whole(len(HOSTS))
            ),
            f"instances {places}",
        )

    def flows(self) -> dict[tuple[int, int], set[str]]:
        """NF hosts that the clients' connections lead through, by the ports of both ends."""
        found: dict[tuple[int, int], set[str]] = {}
        for flow in self.ask("a", m.FlowListRequest(limit=10_000))["flows"]:
            if flow["src"] == CLIENT and flow["dst"] == VIP:
                found[flow["src_port"], flow["dst_port"]] = {
                    one if "@" in one else f"{one}@a" for one in flow["instances"]
                }
        return found

    def is_whole(self, hosts: int) -> bool:
        """Whether so many hosts are up, with equal views and equal tables."""
        shown = self.status()
        up = [one.name for one in shown.hosts if one.state in ("up", "draining")]
        return (
            len(up) == hosts
            and shown.is_equal
            and not any(one.missing for one in shown.hosts)
            and len(set(self.digests(up).values())) == 1
        )

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Of the managers' tables, as their agents have told and as they are."""
        told = {}
        with self.ensemble.call("look") as client:
            for name in names:
                path = f"{Paths(CLUSTER).applied}/{name}"
                if client.exists(path):
                    told[name] = unpack(client.get(path)[0], AppliedNode).view
        is_equal = len(set(told.values())) == 1
        tables = {name: self.ask(name, m.ClusterLocalRequest())["digest"] for name in names}
        return tables if is_equal else {name: name for name in names}

    def wait(
        self, condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S
    ) -> float:
        begin = time.monotonic()
        while not self._holds(condition):
            if time.monotonic() - begin > timeout_s:
                drops = {name: self.report(name)["drops"] for name in PLACES}
                raise AssertionError(f"{what}: not within {timeout_s:g} s\n{drops}\n{self.logs()}")
            time.sleep(0.05)
        return time.monotonic() - begin

    @staticmethod
    def _holds(condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except NoEnsembleError:  # its server has gone; another one is looked for
            return False

    def logs(self) -> str:
        texts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            texts.append(f"--- {path.name}\n" + "\n".join(lines[-25:]))
        return "\n".join(texts)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def _install_small(site: Path, name: str, plugin: str) -> None:
    """An NF of `plugins` under another name, that wants less."""
    (entry,) = entry_points(group="onvm.nf", name=plugin)
    install_nf(site, name, f"from {entry.module} import {entry.attr} as Nf\n")
    manifest = Path(find_spec(entry.module).origin).with_name("onvm-nf.toml").read_text()  # type: ignore
    for old, new in (
        (f'name = "{plugin}"', f'name = "{name}"'),
        (f'service = "{plugin}"', f'service = "{name}"'),
        ("cores = 1\n", "cores = 0.25\n"),
    ):
        assert manifest.count(old) == 1
        manifest = manifest.replace(old, new)
    (site / f"onvm_nf_{name}" / "onvm-nf.toml").write_text(manifest)
