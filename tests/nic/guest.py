"""Runs in the machine: binds the cards, starts managers on them, sends traffic through.

``guest.py FOLDER`` does what ``FOLDER/plan.json`` says: a list of cases under ``cases``, each
with the ``name`` of a function here and its arguments. Each case tells one result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "@onvm "
DEVICES = Path("/sys/bus/pci/devices")
ONVM = str(Path(sys.executable).with_name("onvm"))
RUNTIME = Path("/run/onvm")
PORT = 5001


def run(*command: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    """A command with its output; it may fail."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, errors="replace"
    )


def onvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of onvm."""
    return run(ONVM, *arguments)


def in_host(number: int, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A command in the network namespace of a host at an end of the wire."""
    return run("ip", "netns", "exec", f"h{number}", *command, timeout=timeout)


def cards() -> list[str]:
    """PCI addresses of the cards; what stands for other hosts sits on the first bus."""
    return sorted(
        path.name
        for path in DEVICES.iterdir()
        if not path.name.startswith("0000:00:") and (path / "class").read_text().startswith("0x02")
    )


def bind(address: str, driver: str) -> None:
    """Give a card to a driver; "" takes it away from the one it has."""
    device = DEVICES / address
    if (device / "driver").exists():
        (device / "driver/unbind").write_text(address)
    if driver:
        (device / "driver_override").write_text(driver)
        Path("/sys/bus/pci/drivers_probe").write_text(address)


def set_up(folder: Path) -> None:
    """Modules, namespaces and what a booted host has."""
    modules = folder / "modules"
    for name in (modules / "order").read_text().split():
        subprocess.run(
            [str(folder / "tree/bin/busybox"), "insmod", str(modules / f"{name}.ko")],
            capture_output=True,
            check=False,
        )
    run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
    run("ip", "link", "set", "lo", "up")
    RUNTIME.mkdir(mode=0o700)
    os.environ |= {
        "ONVM_RUNTIME_DIR": str(RUNTIME),
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    for number, interface in enumerate(
        sorted(path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo"), 1
    ):
        run("ip", "netns", "add", f"h{number}")
        run("ip", "link", "set", interface, "netns", f"h{number}")
        for command in (
            f"link set {interface} name e0",
            f"addr add 10.9.0.{number}/24 dev e0",
            "link set e0 up",
        ):
            run("ip", "-n", f"h{number}", *command.split())


def config(
    uris: dict[str, str] | None = None, *, huge_pages: bool = False, query: str = "", **plane: Any
) -> Path:
    """A file for ``onvm up``: a firewall between `a` and `b`, which are the cards."""
    first, second = cards()
    uris = uris or {"a": f"pci:{first}{query}", "b": f"pci:{second}{query}"}
    more = "".join(f"{name} = {value}\n" for name, value in plane.items())
    ports = "".join(f'[ports.{name}]\nuri = "{uri}"\n' for name, uri in uris.items())
    file = Path("/run/nic.toml")
    file.write_text(
        f"{ports}[dataplane]\nhuge_pages = {str(huge_pages).lower()}\nflows = 4096\n{more}"
        '[nfs.firewall]\n[chains.main]\nin = "a"\nout = "b"\nservices = ["firewall"]\n'
    )
    return file


def bare(uris: dict[str, str]) -> Path:
    """A file with ports and a chain without NFs."""
    file = config(uris)
    text = file.read_text().replace("[nfs.firewall]\n", "").replace('["firewall"]', "[]")
    file.write_text(text)
    return file


@contextlib.contextmanager
def manager(file: Path, name: str = "main") -> Iterator[str]:
    """``onvm up`` on a file; gives what it said if it did not start, or ""."""
    done = onvm("up", "-f", str(file), "--detach", "--name", name)
    try:
        yield "" if done.returncode == 0 else (done.stderr + done.stdout).strip()
    finally:
        if done.returncode == 0:
            onvm("down", "--name", name)


def ping(size: int = 56, count: int = 20) -> int:
    """How many of `count` pings through the chain have an answer."""
    command = f"ping -q -c {count} -i 0.05 -W 2 -s {size} 10.9.0.2".split()
    for line in in_host(1, *command).stdout.splitlines():
        if "received" in line:
            return int(line.split(",")[1].split()[0])
    return 0


def data(megabytes: int) -> bytes:
    """The same bytes each time."""
    return random.Random(11).randbytes(megabytes << 20)


def serve(megabytes: str) -> None:
    """The end that sends, in a namespace of its own."""
    with socket.create_server(("0.0.0.0", PORT)) as server:
        connection, _ = server.accept()
        with connection:
            connection.sendall(data(int(megabytes)))


def serve_many(count: str) -> None:
    """The end that accepts so many connections, and says a line in each."""
    with socket.create_server(("0.0.0.0", PORT), backlog=128) as server:
        for _ in range(int(count)):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"here\n")


def fetch_many(count: str) -> None:
    """The end that opens so many connections, of a port each; prints how many were served."""
    served = 0
    for _ in range(int(count)):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("10.9.0.2", PORT), timeout=10) as connection,
        ):
            served += connection.makefile().read() == "here\n"
    print(served)


def fetch() -> None:
    """The end that receives; prints the digest and the seconds it took."""
    began, digest = time.monotonic(), hashlib.sha256()
    with socket.create_connection(("10.9.0.2", PORT), timeout=20) as connection:
        while piece := connection.recv(1 << 16):
            digest.update(piece)
    print(digest.hexdigest(), time.monotonic() - began)


def transfer(megabytes: int = 8) -> dict[str, Any]:
    """A TCP transfer through the chain: whether all bytes arrived, and how fast."""
    me = [sys.executable, "-P", __file__]
    with subprocess.Popen(["ip", "netns", "exec", "h2", *me, "serve", str(megabytes)]) as server:
        time.sleep(1.5)
        done = in_host(1, *me, "fetch", timeout=120)
        server.kill()
    words = done.stdout.split()
    if len(words) != 2:
        return {"is_whole": False, "error": done.stderr.strip().splitlines()[-1:]}
    return {
        "is_whole": words[0] == hashlib.sha256(data(megabytes)).hexdigest(),
        "mbit_s": round(megabytes * 8.39 / float(words[1]), 1),
    }


def connections(count: int = 32) -> int:
    """How many of `count` connections through the chain are served."""
    me = [sys.executable, "-P", __file__]
    with subprocess.Popen(["ip", "netns", "exec", "h2", *me, "serve-many", str(count)]) as server:
        time.sleep(1.5)
        done = in_host(1, *me, "fetch-many", str(count), timeout=120)
        server.kill()
    return int(done.stdout or 0)


def counters() -> dict[str, Any]:
    """Counters of both ports."""
    status = json.loads(onvm("status", "--json").stdout)
    report = status["report"]
    return {
        "ports": {p["name"]: (p["rx"], p["tx"], p["state"], p["lost"]) for p in report["ports"]},
        "drops": report["drops"],
        "startup": status.get("startup"),
    }


def pages(number: int) -> None:
    """So many huge pages."""
    Path("/proc/sys/vm/nr_hugepages").write_text(str(number))


# ---- cases ----


def traffic(driver: str = "vfio-pci", huge_pages: int = 0, **options: Any) -> dict[str, Any]:
    """Pings and a transfer through a firewall between both cards."""
    for address in cards():
        bind(address, driver)
    pages(huge_pages)
    began = time.monotonic()
    with manager(config(huge_pages=huge_pages > 0, **options)) as error:
        start_s = round(time.monotonic() - began, 1)
        if error:
            return {"error": error, "log": log()}
        first = ping()
        result = {
            "pings": ping(),
            "large_pings": ping(1400),
            "first_pings": first,
            "start_s": start_s,
        }
        return result | transfer() | {"counters": counters(), "log": log()}


def queues(huge_pages: int) -> dict[str, Any]:
    """Two queues, which the card shares the flows out to, and two workers."""
    pages(huge_pages)
    for address in cards():
        bind(address, "vfio-pci")
    with manager(config(query="?queues=2", workers=2, huge_pages=huge_pages > 0)) as error:
        ping()
        result = {"error": error, "pings": ping(), "served": connections()}
        return result | {"counters": counters(), "log": log()}


def log(name: str = "main") -> list[str]:
    """The last lines of a manager's log."""
    try:
        return (RUNTIME / name / "logs/manager.log").read_text().splitlines()[-12:]
    except OSError:
        return []


def jumbo(buffer_size: int, huge_pages: int = 0) -> dict[str, Any]:
    """Frames of 9,000 bytes: refused with small buffers, carried whole with large ones."""
    pages(huge_pages)
    for address in cards():
        bind(address, "vfio-pci")
    with manager(config(query="?mtu=9000")) as refusal:
        pass
    for number in (1, 2):
        run("ip", "-n", f"h{number}", "link", "set", "e0", "mtu", "9000")
    plane = {"buffer_size": buffer_size, "buffers": 2048, "huge_pages": huge_pages > 0}
    with manager(config(query="?mtu=9000", **plane)) as error:
        ping()
        result = {"refusal": refusal, "error": error, "large_pings": ping(8972)}
        return result | {"counters": counters(), "log": log()}


def refusals() -> dict[str, Any]:
    """What a manager says of cards that it cannot use."""
    address, other = cards()
    bind(address, "")
    bind(other, "vfio-pci")
    with manager(bare({"a": f"pci:{address}", "b": "null:"})) as unbound:
        pass
    with manager(bare({"a": f"pci:{other}", "b": "null:"}), "one") as first:
        with manager(bare({"a": f"pci:{other}", "b": "null:"}), "two") as held:
            pass
        bind(address, "vfio-pci")
        with manager(bare({"a": f"pci:{address}", "b": "null:"}), "three") as own_card:
            pass
        lines = log("one") + log("three")
    noise = [line for line in lines if line.startswith("EAL") or "fail" in line.lower()]
    return {"unbound": unbound, "first": first, "held": held, "own_card": own_card, "noise": noise}


def unbound_in_use() -> dict[str, Any]:
    """A card that the kernel takes back while a manager uses it, and gives again; then another
    manager."""
    first, second = cards()
    for address in (first, second):
        bind(address, "vfio-pci")
    with manager(config()) as error:
        answered = ping()
        began = time.monotonic()
        bind(second, "")
        seconds = round(time.monotonic() - began, 1)
        lost = ping(count=5)
        status = json.loads(onvm("status", "--json").stdout)
        states = {port["name"]: port["state"] for port in status["report"]["ports"]}
        bind(second, "vfio-pci")
        until = time.monotonic() + 30
        while time.monotonic() < until and counters()["ports"]["b"][2] != "up":
            time.sleep(0.5)
        ping(count=5)  # the link comes up
        plugged = ping()
    with manager(config()) as again:
        return {
            "error": error or again,
            "pings": answered,
            "seconds": seconds,
            "pings_while_gone": lost,
            "states": states,
            "pings_plugged": plugged,
            "pings_again": ping(),
            "log": log(),
        }


def killed() -> dict[str, Any]:
    """A manager that is killed, and the next one on the same cards; pages of 4 KiB.

    Only pings: qemu sends no frame that lies in two of the IOMMU's pages.
    """
    for address in cards():
        bind(address, "vfio-pci")
    pages(0)
    file = config()
    onvm("up", "-f", str(file), "--detach")
    os.kill(json.loads(onvm("status", "--json").stdout)["pid"], signal.SIGKILL)
    time.sleep(1)
    with manager(file) as error:
        ping()
        return {"error": error, "pings": ping(), "log": log()}


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    one.__name__: one for one in (traffic, queues, jumbo, refusals, unbound_in_use, killed)
}


def main(folder: Path) -> None:
    """Every case of the plan."""
    set_up(folder)
    tell(
        {
            "name": "boot",
            "cards": cards(),
            "seconds": float(Path("/proc/uptime").read_text().split()[0]),
        }
    )
    for case in json.loads((folder / "plan.json").read_text())["cases"]:
        arguments = {name: value for name, value in case.items() if name not in ("case", "name")}
        try:
            result = CASES[case["case"]](**arguments)
        except Exception:  # noqa: BLE001 - the next case may work
            result = {"error": traceback.format_exc()}
        tell(
            {
                "name": case["name"],
                **result,
                "up_s": float(Path("/proc/uptime").read_text().split()[0]),
            }
        )


def tell(result: dict[str, Any]) -> None:
    """A result, in one line on the console."""
    print(f"\n{MARK}{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", megabytes]:
            serve(megabytes)
        case ["fetch"]:
            fetch()
        case ["serve-many", count]:
            serve_many(count)
        case ["fetch-many", count]:
            fetch_many(count)
        case [where]:
            main(Path(where))
