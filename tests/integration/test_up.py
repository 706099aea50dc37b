"""``onvm up`` and the commands that talk to it, with packets flowing all the time."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

if TYPE_CHECKING:
    from up_host import Host

SMALL = '[dataplane]\nflows = 4096\nbuffers = 2048\n[ports.wan]\nuri = "null:"\n'
# A source that can wait: of its packets none may be lost.
PATIENT = SMALL + '[ports.lan]\nuri = "pcap:in.pcap?loop=0&rate=20000"\n'
HASTY = SMALL + '[ports.lan]\nuri = "null:?flows=64&rate=5000"\n'
TWO_NFS = """
[nfs.hop]
[nfs.skip]
[nfs.skip.config]
port = 99
[chains.main]
in = "lan"
out = "wan"
services = ["hop", "skip"]
"""


def check_sums(report: dict[str, Any]) -> None:
    assert report["rx"] + report["originated"] == report["tx"] + sum(report["drops"].values())
    assert report["buffers"]["free"] == report["buffers"]["total"]
    assert not [reason for reason in report["drops"] if "reason_" in reason]


def test_changes_under_load_lose_nothing(host: Host) -> None:
    host.configure(PATIENT + TWO_NFS)
    assert "is ready" in host.do("up", "-d")
    status = host.json("status")
    assert status["state"] == "ready"
    assert {nf["instances"][0]: nf["state"] for nf in status["launched"]} == {
        "hop-1": "active",
        "skip-1": "active",
    }
    assert "hop-2 serves" in host.do("nf", "run", "hop")
    host.do("chain", "add", "main", "--in", "lan", "--out", "wan", "--services", "skip")
    host.do("chain", "add", "main", "--in", "lan", "--out", "wan", "--services", "skip,hop")
    assert "stopped hop-1" in host.do("nf", "stop", "hop-1")
    shown = host.json("chain", "show", "main")
    assert [hop["si"] for path in shown["paths"] for hop in path["hops"]][:2] == [2, 1]
    assert {hop["instance"] for path in shown["paths"] for hop in path["hops"]} <= {
        "skip-1",
        "hop-2",
    }
    flows = host.json("flow", "list", "--limit", "5")
    assert len(flows["flows"]) == 5
    assert flows["total"] == 64
    assert "kpps" in host.do("top", "--count", "1", "--interval", "0.2")
    down = host.json("down")
    assert down["is_drained"]
    check_sums(down["report"])
    assert down["report"]["rx"] > 1000
    assert down["report"]["drops"] == {}
    assert not list((host.runtime / "main").glob("*.sock"))


SHARED_PORT = """
[nfs.hop]
[nfs.skip]
[chains.rest]
in = "lan"
out = "wan"
services = ["hop"]
[chains.some]
in = "lan"
out = "wan"
services = ["skip"]
match = [{ protocol = "udp", src = "10.0.0.1/32", src_port = "1000-1007", dst_port = 9 }]
"""


def flows_of_chains(host: Host) -> dict[str, set[int]]:
    """Source ports of the flows from lan, by chain."""
    found: dict[str, set[int]] = {}
    for flow in host.json("flow", "list", "--limit", "1000")["flows"]:
        if flow["port"] == "lan":
            found.setdefault(flow["chain"], set()).add(flow["src_port"])
    return found


def test_new_flows_take_the_chain_whose_match_they_meet(host: Host) -> None:
    host.configure(PATIENT + SHARED_PORT)
    host.do("up", "-d")
    everything = {"rest": set(range(1008, 1032)), "some": set(range(1000, 1008))}
    host.wait(lambda: flows_of_chains(host) == everything)
    assert host.json("chain", "show", "some")["chain"]["match"][0]["dst_port"] == 9
    # Without the chain its flows take the one that has the port.
    host.do("chain", "remove", "some")
    host.wait(lambda: flows_of_chains(host) == {"rest": set(range(1000, 1032))})
    down = host.json("down")
    check_sums(down["report"])
    assert down["report"]["drops"] == {}


def test_killed_manager_finds_its_nfs_again(host: Host) -> None:
    host.configure(HASTY + TWO_NFS)
    host.do("up", "-d")
    host.wait(lambda: host.status()["report"]["tx"] > 500)
    seen = {nf["instance"]: nf["counters"]["seen"] for nf in host.status()["report"]["nfs"]}
    pids = host.nf_pids()
    os.kill(host.manager_pid(), signal.SIGKILL)
    gone = host.onvm("status")
    assert gone.returncode == 2
    assert gone.stderr.startswith("error: --name: 'main': expected a running manager")
    host.do("up", "-d")
    status = host.status()
    assert host.nf_pids() == pids
    # Ready when all have attached: no more than the second that an NF host needs for it.
    assert status["uptime_s"] - status["report"]["seconds"] < 2
    for nf in status["report"]["nfs"]:
        assert nf["counters"]["seen"] >= seen[nf["instance"]] > 0
    check_sums(host.json("down")["report"])
    host.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))


def test_changed_configuration_replaces_the_nf(host: Host) -> None:
    host.configure(HASTY + TWO_NFS)
    host.do("up", "-d")
    before = host.nf_pids()
    host.do("down", "--keep-nfs")
    assert not list(host.runtime.glob("**/*.sock"))
    assert "Traceback" not in (host.runtime / "main" / "logs" / "manager.log").read_text()
    host.configure(HASTY + TWO_NFS.replace("99", "100"))
    host.do("up", "-d")
    after = host.nf_pids()
    assert after["hop-1"] == before["hop-1"]
    assert after["skip-1"] != before["skip-1"]
    host.do("down")


def test_nf_that_dies_comes_back_and_its_flows_with_it(host: Host) -> None:
    host.configure(HASTY + TWO_NFS)
    host.do("up", "-d")
    assert "sent to 1 instance" in host.do("send", "hop-1", "die")
    host.wait(lambda: host.status()["launched"][0]["restarts"] == 1)
    host.wait(lambda: host.status()["launched"][0]["state"] == "active")
    tx = host.status()["report"]["tx"]
    host.wait(lambda: host.status()["report"]["tx"] > tx + 200)
    text = host.do("status")
    assert "hop-1: active, started again 1 times" in text
    assert "asked to die" in text
    report = host.json("down")["report"]
    check_sums(report)
    assert set(report["drops"]) <= {"nf_died", "no_instance", "shed"}


def test_run_sends_nothing_before_there_is_a_chain(host: Host) -> None:
    path = host.folder / "report.json"
    host.do(
        "run",
        "--in",
        "null:?rate=1000",
        "--out",
        "null:",
        "--chain",
        "hop",
        "--duration",
        "0.5",
        "--json",
        str(path),
    )
    report = json.loads(path.read_text())
    check_sums(report)
    assert report["drops"] == {}
    assert report["tx"] > 100


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nf", "stop", "nobody"), "error: nf stop: 'nobody': expected an instance or a service"),
        (("nf", "run", "nobody"), "error: nf: 'nobody': expected an installed NF"),
        (("nf", "run", "hop", "--instance", "1"), "error: nf run: 'hop-1'"),
        (("chain", "remove", "nobody"), "error: chain: 'nobody': expected a chain (main)"),
        (("chain", "show", "nobody"), "error: chain show: 'nobody': expected a chain (main)"),
        (("chain", "add", "x", "--in", "lan", "--out", "no"), "error: port: 'no'"),
        (("chain", "add", "x", "--in", "lan", "--out", "wan"), "error: in: 'lan': expected a port"),
        (("send", "nobody", "x"), "error: send: 'nobody': expected an instance or a service"),
        (("up", "-d"), "error: --name: 'main': expected a name that no running manager has"),
        (("status", "--name", "other"), "error: --name: 'other': expected a running manager"),
        (("status", "--name", "../x"), "error: --name: '../x': expected 1 to 32 letters"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line(shared: Host, arguments: tuple[str, ...], line: str) -> None:
    done = shared.onvm(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_port_that_cannot_open_is_named_with_its_file(host: Host) -> None:
    host.configure(SMALL + '[ports.lan]\nuri = "pcap:none.pcap"\n[chains.c]\nin="lan"\nout="wan"\n')
    done = host.onvm("up")
    assert done.returncode == 2
    line = "error: onvm.toml: ports.lan.uri: 'none.pcap': expected a file that exists\n"
    assert done.stderr == line


def test_hostile_clients_harm_nobody(shared: Host) -> None:
    context = zmq.Context()
    path = shared.runtime / "main" / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    status = b'{"version":1,"request":{"type":"status"}}'
    junk = [
        [b""],
        [b"", b""],
        [b"x", status],
        [b"", status, b""],
        [b"", b"\xff\xfe"],
        [b"", b'{"version":2}'],
        [b"", b"[" * 100_000],
        [b"", bytes(1 << 20)],
        [b"", b'{"version":1,"request":{"type":"nf_run","name":""}}'],
        [b"", b'{"version":1,"request":{"type":"flow_list","limit":-1}}'],
    ]
    clients = []
    for number in range(100):
        client = context.socket(zmq.DEALER)
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"ipc://{path}")
        clients.append(client)
        for _ in range(20):  # and never read a reply
            client.send_multipart(junk[number % len(junk)], zmq.NOBLOCK)
            client.send_multipart([b"", status], zmq.NOBLOCK)
    try:
        before = shared.status()
        time.sleep(0.3)
        after = shared.status()
        assert after["report"]["tx"] > before["report"]["tx"]
    finally:
        context.destroy(linger=0)
    assert shared.status()["state"] == "ready"


@pytest.fixture(scope="module")
def shared(hosts: Host) -> Host:
    """One manager for tests that change nothing."""
    hosts.configure(HASTY + TWO_NFS)
    hosts.do("up", "-d")
    return hosts


def test_capture_at_a_port_and_an_nf_while_traffic_runs(host: Host) -> None:
    scapy = pytest.importorskip("scapy.utils")
    host.configure(PATIENT + TWO_NFS)
    host.do("up", "-d")
    for point, n_packets in (("wan", 100), ("hop-1", 64)):
        file = host.folder / f"{point}.pcapng"
        reply = host.json("capture", point, "-o", str(file), "--count", str(n_packets))
        assert reply["written"] == n_packets
        assert reply["is_full"]
        with scapy.RawPcapNgReader(str(file)) as reader:
            frames = [frame for frame, _ in reader]
        assert len(frames) == n_packets
        assert {len(frame) for frame in frames} == {68}
    done = host.onvm("capture", "nobody", "-o", str(host.folder / "x"))
    assert done.returncode == 2
    assert "expected a port (wan, lan), an instance or a service" in done.stderr
    assert host.json("down")["report"]["drops"] == {}
