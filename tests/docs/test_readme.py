"""The README's commands run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from manual import commands, run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    match = re.search(rf"^##+ {re.escape(title)}$(.*?)(?=^##+ |\Z)", README, re.M | re.S)
    assert match is not None, f"README has no section {title!r}"
    return match.group(1)


def test_tour_runs(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from scapy.all import *; wrpcap('in.pcap', [Ether()/IP()/UDP()] * 3)",
        ],
        cwd=tmp_path,
        check=True,
    )
    (tmp_path / "fw.toml").write_text('default = "accept"\n')
    tour = section("Ten-minute tour")
    for command in commands(tour[: tour.find("### ")] if "### " in tour else tour):
        run(command, tmp_path)
    assert (tmp_path / "report.json").is_file()


def test_write_your_own_nf_runs(tmp_path: Path) -> None:
    lines = commands(section("Write your own NF"))
    assert lines
    try:
        output = [run(command, tmp_path) for command in lines]
    finally:
        subprocess.run(
            [sys.executable, "-m", "pip", "uninstall", "-q", "-y", "onvm-nf-blocker"], check=False
        )
    assert "100,000 received" in output[-1]


def test_code_of_the_readme_is_what_is_generated() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```", section("Write your own NF"), re.M | re.S)
    template = (
        ROOT / "cookiecutter-nf" / "onvm-nf-{{cookiecutter.name}}" / "{{cookiecutter.package}}"
    )
    text = (template / "__init__.py").read_text(encoding="utf-8")
    for line in shown.splitlines():
        code = line.split("  #")[0].strip()
        if code and "Blocker" not in code and not code.startswith('"""'):
            assert code in text, code


def test_every_folder_of_the_readme_exists() -> None:
    for name in re.findall(r"^\| `([a-z_-]+/)`", section("Reading the code"), re.M):
        assert (ROOT / name).is_dir(), name
    for name in re.findall(r"\]\((\w[^)#:]+)\)", README):
        assert (ROOT / name).exists(), name
