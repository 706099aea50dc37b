"""The demo: its first act with less traffic, and its second act, whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FIRST_ACT = """
import sys
from pathlib import Path
from onvm_core.demo import __main__ as demo
demo.PACKETS = 40_000
sys.exit(not demo._demo(None, 20.0, Path(sys.argv[1])))
"""


def test_traffic_passes_the_router_and_the_others(tmp_path: Path) -> None:
    """The generator answers the router's questions about neighbours, over IPv4 and IPv6."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", FIRST_ACT, str(tmp_path / "out.pcapng")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "router → firewall → nat → lb → router" in done.stdout
    assert (tmp_path / "out.pcapng").stat().st_size > 0


def test_service_scales_out_under_rising_load_and_loses_nothing() -> None:
    for _ in range(3):  # a machine that stops programs for half a second makes it shed
        done = subprocess.run(
            [sys.executable, "-P", "-m", "onvm_core.demo.scale"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    # A starved machine may see so much load at once that it starts two.
    assert re.search(r"^started inspect-2.*: utilisation", done.stdout, re.M), done.stdout
    assert "none lost" in done.stdout
