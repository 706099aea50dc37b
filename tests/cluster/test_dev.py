"""`onvm cluster dev`: a cluster in namespaces by one command, that leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import wait
from namespaces import missing
from processes import SERVICES

MISSING = missing()
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete"),
    pytest.mark.skipif("firewall" not in SERVICES, reason="onvm-nf-firewall is not installed"),
]
COMMAND = [sys.executable, "-P", "-m", "onvm_core.cli", "cluster", "dev", "--hosts", "3"]


def test_packets_pass_three_hosts_and_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": "/tmp"},
            start_new_session=True,
        )
    prefix = f"onvmdev{process.pid}-"
    try:
        wait(
            lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None,
            150,
            "the cluster",
        )
        said = log.read_text()
        (answered,) = re.findall(r"20 datagrams from client to server: (\d+) answered", said)
        assert int(answered) >= 15, said  # a busy machine may be late with some
        assert "all managers know the same" in said
        folder = Path(re.findall(r"(/\S+)/onvm cluster status", said)[0])
        shown = subprocess.run(
            [folder / "onvm", "cluster", "scale", "out", "firewall", "--prefer", "h2"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert re.search(r"firewall-\d on h[123]", shown.stdout), shown.stdout + shown.stderr
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait(lambda: not list(Path("/run/netns").glob(f"{prefix}*")), 30, "the clean-up")
        wait(lambda: not folder.exists(), 30, "the clean-up")
        wait(lambda: not processes_of(folder), 30, "the end of all processes")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


def test_once_ends_by_itself() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--once"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "TMPDIR": "/tmp"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chain web: client → h1 → firewall → h3 → server" in done.stdout
    print(f"{time.monotonic() - begin:.1f} s")
