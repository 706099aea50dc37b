"""`onvm dashboard`: a page that needs nothing else, and a stream of what it shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ONVM
from up_host import HOP_CONFIG, Host

pytest.importorskip("starlette", reason="needs the extra 'dashboard'")
pytest.importorskip("uvicorn", reason="needs the extra 'dashboard'")

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def address(host: Host) -> Iterator[str]:
    """Where the dashboard of a running manager listens."""
    host.configure(HOP_CONFIG.replace("LAUNCHER", "process"))
    host.do("up", "-d")
    command = [*ONVM, "dashboard", "--listen", "127.0.0.1:0", "--interval", "0.2"]
    server = subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate(timeout=10)


def views(address: str, count: int) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}events", timeout=20) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        found = []
        while len(found) < count:
            line = stream.readline().decode()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
        return found


def test_the_stream_shows_a_manager_as_it_changes(address: str, host: Host) -> None:
    first, *_, last = views(address, 4)
    assert first["manager"] == "main"
    assert first["status"]["chains"][0]["services"] == ["hop"]
    assert last["status"]["report"]["rx"] > first["status"]["report"]["rx"]
    assert {"type": "manager", "state": "ready"} in [one["event"] for one in first["events"]]
    host.do("down")
    assert "expected a running manager" in views(address, 1)[0]["error"]


def test_the_page_loads_nothing_from_elsewhere(address: str) -> None:
    for name in ("", "page.css", "page.js"):
        with urllib.request.urlopen(address + name, timeout=10) as answer:
            policy = answer.headers["Content-Security-Policy"]
            text = answer.read().decode()
        assert policy.startswith("default-src 'none'; ")
        addresses = set(re.findall(r"https?://[^\"' ]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert "innerHTML" not in text
    request = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 400
    caught.value.close()


def test_others_need_a_token(host: Host) -> None:
    done = host.onvm("dashboard", "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert done.stderr == (
        "error: listen: '0.0.0.0': expected a --token-file for an address that others can reach\n"
    )
    token = host.folder / "token"
    token.write_text("secret\n")
    command = [*ONVM, "dashboard", "--listen", "127.0.0.1:0", "--token-file", str(token)]
    server = subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        base = server.stdout.readline().strip().partition("?")[0]
        for name in ("", "events"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(base + name, timeout=10)
            assert caught.value.code == 401
            caught.value.close()
        with urllib.request.urlopen(f"{base}?token=secret", timeout=10) as answer:
            assert "onvm=secret" in answer.headers["Set-Cookie"]
    finally:
        server.terminate()
        server.communicate(timeout=10)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_it(address: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    picture = tmp_path / "dashboard.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=8000", "--dump-dom", f"{address}?still"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "hop-1" in done.stdout
    assert re.search(r"main: active", done.stdout)
    assert '<text class="small"' in done.stdout
    subprocess.run(
        [
            CHROMIUM,
            *options,
            "--virtual-time-budget=8000",
            "--window-size=1280,1000",
            f"--screenshot={picture}",
            f"{address}?still",
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert picture.stat().st_size > 10_000
