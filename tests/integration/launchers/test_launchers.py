"""The same NF under every launcher that works here: it serves, stops, dies, and is found again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import ONVM
from up_host import HOP_CONFIG, install_nf

from onvm_core.launch.engine import Found, find_engine
from onvm_core.launch.identity import ProcessId, children, find_by_environment, namespace_init
from onvm_core.launch.launcher import SECRET_VARIABLE, Launchers, LaunchSpec

if TYPE_CHECKING:
    from up_host import Host


isolated = pytest.mark.parametrize("launcher", ["sandbox", "container", "docker"], indirect=True)
CONFIG = HOP_CONFIG + "[nfs.hop.config]\nport = 99\n"
# An NF that tells what it sees, and one that starts a process.
CURIOUS = """
import ctypes, json, os, socket, subprocess, sys
from pathlib import Path
from onvm_sdk import NetworkFunction
from onvm_sdk._native.nf import Host, StageHello
from onvm_sdk._hosting.stage import build_stage
from onvm_sdk.errors import OnvmError


def attempt(function, *arguments):
    try:
        return str(function(*arguments))
    except OSError as error:
        return error.strerror


def attach_again(nf):
    # As another service, without a secret: so may who is started by hand.
    hello = StageHello("firewall", "", [], [])
    host, stage = Host(), build_stage(nf, print)
    host.set_stage(0, stage.function, stage.state)
    try:
        host.attach("/run/onvm/attach.sock", [hello], burst_size=1, loaned_buffers=0, secret="",
                    timeout_ms=500)
    except OnvmError as error:
        return str(error)
    return "attached"


class Nf(NetworkFunction):
    def setup(self, ctx):
        status = Path("/proc/self/status").read_text().splitlines()
        seen = {
            "port": ctx.config["port"],
            "status": dict(line.split(":\\t") for line in status if ":\\t" in line),
            "interfaces": [
                line.split(":")[0].strip()
                for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line
            ],
            "inet": attempt(socket.socket, socket.AF_INET),
            "write": attempt(Path(__file__).with_name("mine").write_text, ""),
            "tmp": attempt(Path("/tmp/mine").write_text, "x"),
            "manager": os.path.exists(OUTSIDE),
            "environment": sorted(os.environ),
            "processes": [name for name in os.listdir("/proc") if name.isdigit()],
            "attach": os.listdir("/run/onvm") if os.path.isdir("/run/onvm") else [],
        }
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(0x10000000)
        seen["unshare"] = os.strerror(ctypes.get_errno())
        seen["second"] = attach_again(self)
        print("SEEN " + json.dumps(seen), flush=True)

    def process_packet(self, pkt):
        pass

    def on_message(self, sender, payload):
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(300)"], stdin=subprocess.DEVNULL
        )
"""


def make_image(host: Host, *nfs: str) -> None:
    """An image of each; equal ones are made once for all tests."""
    host.do("nf", "image", *nfs)


def launched(host: Host) -> dict[str, Any]:
    one: dict[str, Any] = host.status()["launched"][0]
    return one


def test_serves_dies_is_restarted_and_stops(host: Host, launcher: str) -> None:
    host.configure(CONFIG.replace("LAUNCHER", launcher))
    host.do("up", "-d")
    first = launched(host)
    assert first["launcher"] == launcher
    assert "ONVM_ATTACH_SECRET" in str(Path(f"/proc/{first['pid']}/environ").read_bytes())
    host.wait(lambda: host.status()["report"]["tx"] > 200)

    assert "hop-2 serves" in host.do("nf", "run", "hop", "--launcher", launcher)
    pid = host.nf_pids()["hop-2"]
    assert "stopped hop-2" in host.do("nf", "stop", "hop-2")
    assert not Path(f"/proc/{pid}").exists()

    host.do("send", "hop", "die")
    host.wait(lambda: launched(host)["restarts"] == 1)
    assert "asked to die" in launched(host)["log_tail"][-1]
    host.wait(lambda: launched(host)["state"] == "active")
    os.kill(launched(host)["pid"], signal.SIGKILL)
    host.wait(lambda: launched(host)["restarts"] == 2)
    assert launched(host)["reason"].split("; ")[-1].startswith("NF hop was ended by signal 9: ")
    host.wait(lambda: launched(host)["state"] == "active")
    tx = host.status()["report"]["tx"]
    host.wait(lambda: host.status()["report"]["tx"] > tx + 200)

    left = host.processes()
    assert left
    report = host.json("down")["report"]
    assert report["rx"] == report["tx"] + sum(report["drops"].values())
    assert report["buffers"]["free"] == report["buffers"]["total"]
    assert not any(process.is_alive for process in left)


def test_next_manager_adopts_what_a_killed_one_left(host: Host, launcher: str) -> None:
    host.configure(CONFIG.replace("LAUNCHER", launcher))
    host.do("up", "-d")
    pids = host.nf_pids()
    os.kill(host.manager_pid(), signal.SIGKILL)
    host.do("up", "-d")
    assert host.nf_pids() == pids  # it has attached to the new socket
    tx = host.status()["report"]["tx"]
    host.wait(lambda: host.status()["report"]["tx"] > tx + 200)
    # A manager that was killed before it knew the PID: the secret leads to the process.
    os.kill(host.manager_pid(), signal.SIGKILL)
    path = host.runtime / "main" / "nfs.json"
    path.write_text(
        json.dumps([{**r, "pid": 0, "start_time": 0} for r in json.loads(path.read_text())])
    )
    host.do("up", "-d")
    assert host.nf_pids() == pids
    left = host.processes()
    assert [process.pid for process in left] == list(pids.values())
    host.do("down")
    assert not any(process.is_alive for process in left)


def test_next_manager_ends_what_is_no_longer_wanted(host: Host, launcher: str) -> None:
    """And with it what it has started, and what is left of one that has died meanwhile."""
    install_nf(host.site, "fork", CURIOUS.replace("OUTSIDE", "''"))
    if launcher == "container":
        make_image(host, "fork")
    host.configure(CONFIG.replace("LAUNCHER", launcher).replace("hop", "fork"))
    host.do("up", "-d")
    host.do("send", "fork", "now")
    host.wait(lambda: len(host.processes()) == 2)
    left = host.processes()
    assert left[0].pid == host.nf_pids()["fork-1"]
    os.kill(host.manager_pid(), signal.SIGKILL)
    if launcher == "process":
        left[0].send(signal.SIGKILL)  # in a namespace the child's parent would have gone as well
    host.configure(CONFIG.replace("LAUNCHER", launcher))
    host.do("up", "-d")
    host.wait(lambda: not any(process.is_alive for process in left))
    assert list(host.nf_pids()) == ["hop-1"]
    host.do("down")


def test_next_run_removes_what_killed_ones_left(host: Host) -> None:
    """Folders with their sockets; not those of runs that live."""
    options = ("--in", "null:?rate=1000", "--out", "null:", "--chain", "hop")

    def start() -> subprocess.Popen[bytes]:
        known = set(host.runtime.glob("run-*/attach/attach.sock"))
        run = subprocess.Popen(
            [*ONVM, "run", *options],
            env=host.environment,
            cwd=host.folder,
            stdout=subprocess.DEVNULL,
        )
        host.wait(lambda: bool(set(host.runtime.glob("run-*/attach/attach.sock")) - known))
        return run

    runs: list[subprocess.Popen[bytes]] = []
    try:
        runs.append(start())
        (abandoned,) = host.runtime.glob("run-*")
        runs.append(start())
        (other,) = set(host.runtime.glob("run-*")) - {abandoned}
        runs[0].kill()
        runs[0].wait()
        host.do("run", *options, "--count", "10")
        assert list(host.runtime.glob("run-*")) == [other]
    finally:
        for run in runs:
            run.terminate()
            run.wait()


def test_killed_run_takes_its_nfs_along(host: Host, launcher: str) -> None:
    with subprocess.Popen(
        [
            *ONVM,
            "run",
            "--in",
            "null:?rate=1000",
            "--out",
            "null:",
            "--chain",
            "hop",
            "--launcher",
            launcher,
        ],
        env=host.environment,
        cwd=host.folder,
        stdout=subprocess.DEVNULL,
    ) as manager:
        found: list[ProcessId] = []

        def inside() -> bool:
            for child in children(manager.pid):
                found[:] = [child, *(grand for grand in children(child.pid))]
            if launcher == "container":
                found[1:] = contained()
            else:
                found.extend(host_of(found[-1]) if found else [])
            return bool(found) and "onvm_sdk.runtime" in command_of(found[-1])

        try:
            host.wait(inside)
        finally:
            manager.kill()
    # As a process it may be on its way to attach, which it gives up after 5 s.
    host.wait(lambda: not any(process.is_alive for process in found), timeout_s=30)
    host.wait(lambda: launcher != "container" or not contained_names())


@isolated
def test_killed_outer_process_takes_the_inside_along(host: Host, launcher: str) -> None:
    host.configure(CONFIG.replace("LAUNCHER", launcher))
    host.do("up", "-d")
    inside = ProcessId.of(launched(host)["pid"])
    assert inside is not None
    first = namespace_init(inside)
    assert first is not None
    (outer,) = children(host.manager_pid())
    outer.send(signal.SIGKILL)
    host.wait(lambda: launched(host)["restarts"] == 1)
    assert not first.is_alive
    assert not inside.is_alive
    host.wait(lambda: launched(host)["state"] == "active")
    host.do("down")


@isolated
def test_host_that_is_ended_while_it_is_made_leaves_nothing(
    host: Host, launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever that is. The folder of their socket tells its processes from others, and
    those of a container's engine the container's name.
    """
    monkeypatch.syspath_prepend(host.site)
    name = f"gone-{os.getpid()}"
    (tmp_path / name).mkdir()

    def left() -> list[str]:
        found = (folder.name for folder in Path("/proc").iterdir() if folder.name.isdigit())
        there = [
            pid
            for pid in found
            if any(mark in command_of(ProcessId(int(pid), 0)) for mark in marks)
        ]
        for secret in secrets:
            there += [str(one.pid) for one in find_by_environment(SECRET_VARIABLE, secret)]
        return there + ([one.name for one in contained_names()] if launcher == "container" else [])

    launchers = Launchers()
    secrets = [f"{name}-{number}" for number in range(12)]
    marks = [name]
    step_s = 0.001 if launcher == "sandbox" else 0.03
    for number, secret in enumerate(secrets):
        spec = LaunchSpec(
            nfs=("hop",),
            attach_path=tmp_path / name / "attach.sock",
            secret=secret,
            log_path=tmp_path / "log",
            survives_manager=True,
        )
        marks.append(spec.label)
        handle = launchers.get(launcher).launch(spec)
        time.sleep(number * step_s)
        handle.stop() if number % 2 else handle.kill()
        assert handle.wait(10) is not None
        assert handle.poll() is not None
    deadline = time.monotonic() + 20
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left() == []


def contained_names() -> list[Found]:
    """NF hosts' containers, in whatever state."""
    return find_engine().containers()


def contained() -> list[ProcessId]:
    """The processes of NF hosts in containers; docker does not list their PIDs."""
    there = (ProcessId.of(int(one.name)) for one in Path("/proc").iterdir() if one.name.isdigit())
    return [
        process
        for process in there
        if process is not None and "onvm_sdk.runtime" in command_of(process) and is_inside(process)
    ]


def is_inside(process: ProcessId) -> bool:
    """Whether it is in a PID namespace below ours."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and len(line.split()) > 2 for line in lines)


def host_of(process: ProcessId) -> list[ProcessId]:
    """What the first process of a PID namespace runs."""
    return children(process.pid)


def command_of(process: ProcessId) -> str:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


@isolated
def test_isolated_nf_sees_nothing_of_the_host(host: Host, launcher: str) -> None:
    outside = str(host.folder / "onvm.toml")
    install_nf(host.site, "peek", CURIOUS.replace("OUTSIDE", repr(outside)))
    if launcher == "container":
        make_image(host, "peek")
    host.configure(CONFIG.replace("LAUNCHER", launcher).replace("hop", "peek"))
    host.do("up", "-d")
    log = (host.runtime / "main" / "logs" / "peek-1.log").read_text()
    seen = json.loads(next(line for line in log.splitlines() if line.startswith("SEEN"))[5:])
    status = seen.pop("status")
    assert {key: set(status[key]) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {
        "CapEff": {"0"},
        "CapPrm": {"0"},
        "CapBnd": {"0"},
        "CapAmb": {"0"},
    }
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {"PYTHONPATH", SECRET_VARIABLE} <= set(seen.pop("environment"))
    assert seen == {
        "port": 99,
        "interfaces": ["lo"],
        "inet": "Address family not supported by protocol",
        "write": "Read-only file system",
        "tmp": "1",
        "manager": False,
        "processes": ["1", "2"] if launcher == "sandbox" else ["1"],
        "attach": ["attach.sock"],
        "second": "attach to /run/onvm/attach.sock: "
        "an NF host in a sandbox attaches with its secret, once",
        "unshare": "Operation not permitted",
    }
    # Of the three processes only the one inside knows the secret, and no command line has it.
    process = ProcessId.of(host.nf_pids()["peek-1"])
    assert process is not None
    first = namespace_init(process)
    assert first is not None
    secret = json.loads((host.runtime / "main" / "nfs.json").read_text())[0]["secret"]
    assert find_by_environment(SECRET_VARIABLE, secret) == [process]
    assert secret not in command_of(first) + command_of(process)
    host.do("down")
    host.wait(lambda: not first.is_alive)


REACHES = """
import json, os, socket
from onvm_sdk import NetworkFunction

def result(function):
    try:
        return function()
    except OSError as error:
        return error.strerror

class Nf(NetworkFunction):
    def setup(self, ctx):
        address = ("127.0.0.1", PORT)
        result(lambda: open(FILE, "w").close())
        seen = result(lambda: socket.create_connection(address, 5).close())
        print("SEEN", json.dumps(seen), flush=True)

    def process_packet(self, pkt):
        pass
"""


@pytest.mark.parametrize(
    ("launcher", "permission"),
    [("sandbox", "network"), ("sandbox", "files"), ("container", "network"), ("docker", "network")],
    indirect=["launcher"],
)
def test_network_and_files_are_permissions(host: Host, launcher: str, permission: str) -> None:
    file = host.folder / "written"
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = REACHES.replace("PORT", str(server.getsockname()[1]))
        install_nf(host.site, "reach", source.replace("FILE", repr(str(file))))
        manifest = host.site / "onvm_nf_reach" / "onvm-nf.toml"
        manifest.write_text(manifest.read_text().replace('["read"]', f'["{permission}"]'))
        if launcher == "container":
            make_image(host, "reach")
        arguments = ("--in", "null:?count=10", "--out", "null:", "--chain", "reach")
        done = host.onvm("run", *arguments, "--launcher", launcher)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stderr.split("SEEN")[1].splitlines()[0])
    denied = "Address family not supported by protocol"
    assert seen == (None if permission == "network" else denied)
    assert file.exists() == (permission == "files")


def test_plan_decides_as_up_does_and_refuses_before_anything_starts(host: Host) -> None:
    host.configure(CONFIG.replace("LAUNCHER", "process"))
    plan = host.json("plan")
    assert [nf["instances"] for nf in plan["nfs"]] == [["hop-1"]]
    host.do("up", "-d")
    assert launched(host)["cpus"] == plan["nfs"][0]["cpus"]
    host.do("down")

    install_nf(host.site, "greedy", manifest="memory_mib = 1048576\n")
    host.configure(CONFIG.replace("LAUNCHER", "process").replace("hop", "greedy"))
    reason = "it needs 1048576 MiB of memory, "
    planned = host.onvm("plan")
    assert planned.returncode == 1
    assert reason in " ".join(planned.stdout.split())
    done = host.onvm("up", "-d")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no resources for greedy-1: {reason}")
    assert done.stderr.count("\n") == 1
    assert not list(host.runtime.glob("main/*.json"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("run", "--in", "null:", "--out", "null:", "--chain", "hop", "--launcher", "boat"),
            "error: --launcher: 'boat': expected one of container, process, sandbox\n",
        ),
        (("up",), "error: onvm.toml: nfs.hop.launcher: 'LAUNCHER': expected one of container, pr"),
    ],
)
def test_unknown_launcher_is_one_line(host: Host, arguments: tuple[str, ...], line: str) -> None:
    host.configure(CONFIG)
    done = host.onvm(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
