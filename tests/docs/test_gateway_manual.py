"""The tutorial of the gateway: its files and commands work as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from namespaces import missing, remove

MANUAL = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
MISSING = missing("ping")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "complete")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", MANUAL, re.M | re.S)


def test_tutorial_runs(tmp_path: Path) -> None:
    for name, text in zip(("onvm.toml",), blocks("toml"), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    # The names of namespaces are of the whole machine.
    spaces = {name: f"onvm{os.getpid()}{name}" for name in ("client", "gateway", "server")}
    named = re.compile(r"(?<=netns )(?:add |exec |delete )?(client|gateway|server)\b|(?<=-n )(\w+)")

    def rename(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return match[0].replace(name, spaces[name])

    script = "set -ex\n" + named.sub(rename, "\n".join(blocks("console")))
    tools = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "ONVM_RUNTIME_DIR": str(tmp_path / "r"),
    }
    try:
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert said.count(" 0% packet loss") == 2, said
        assert "router.consumed" in said
    finally:
        subprocess.run(["onvm", "down"], env=environment, capture_output=True, check=False)
        remove(list(spaces.values()))
