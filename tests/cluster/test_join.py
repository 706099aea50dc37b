"""`onvm cluster join --detach` returns when the host has joined, or says why it has not."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from bench import Cluster, wait
from processes import ProcessHost


def detach(host: ProcessHost, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*host.command, *options, "--detach"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=host.environment,
    )


def state_of(host: ProcessHost) -> Path:
    return Path(host.environment["ONVM_STATE_DIR"]) / host.name


def test_detached_agent_goes_on_when_the_command_has_returned(cluster: Cluster) -> None:
    host = ProcessHost(cluster, "a", 1)
    cluster.stack.callback(host.close)
    done = detach(host)
    assert (done.returncode, done.stderr) == (0, "")
    expected = f"a has joined cluster {cluster.name}; see: onvm cluster status\n"
    assert done.stdout == expected
    assert "a" in cluster.snapshot().hosts
    os.kill(int((state_of(host) / "lock").read_text()), signal.SIGTERM)
    wait(lambda: "a" not in cluster.snapshot().hosts, what="its end")


def test_agent_that_cannot_join_says_why_in_one_line(cluster: Cluster) -> None:
    host = ProcessHost(cluster, "a", 1)
    cluster.stack.callback(host.close)
    done = detach(host, "--cluster", "nope")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "nope" in done.stderr
    assert done.stderr.count("\n") == 1


def test_agent_writes_its_metrics_until_it_ends(cluster: Cluster) -> None:
    host = ProcessHost(cluster, "a", 1)
    cluster.stack.callback(host.close)
    file = cluster.folder / "agent.prom"
    done = detach(host, "--metrics", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    wait(lambda: file.exists() and "onvm_agent_watches" in file.read_text())
    assert 'onvm_cluster_requests_waiting{host="a"} 0' in file.read_text()
    os.kill(int((state_of(host) / "lock").read_text()), signal.SIGTERM)
    wait(lambda: not file.exists(), what="its end")
    done = detach(host, "--metrics", str(cluster.folder / "agent.txt"))
    assert done.returncode != 0
    assert "expected a file that ends with .prom" in done.stderr
