"""``onvm nf build``: an NF runs compiled, behaves as before, and goes back to its source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onvm_core.plugins.build import build, clean, package_folder
from onvm_sdk.errors import PluginError

pytest.importorskip("Cython", reason="needs the extra 'build'")

NF = '''
"""Drops packets from odd ports."""

from onvm_sdk import Context, NetworkFunction, PacketView, Verdict


class Odd(NetworkFunction):
    def setup(self, ctx: Context) -> None:
        self.seen: dict[int, int] = {}

    def process_packet(self, pkt: PacketView) -> Verdict | None:
        port: int = pkt.udp.src_port
        if port == 99:
            raise LookupError("no such port")
        self.seen[port] = self.seen.get(port, 0) + 1
        return pkt.drop() if port % 2 else None
'''
KERNEL = """
from onvm_sdk import NetworkFunction, kernel


class Fast(NetworkFunction):
    @kernel
    def process_packet(pkt, state):
        pkt.ipv4.ttl -= 1
"""
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import onvm_nf_odd
from onvm_sdk.testing import run
from onvm_sdk.testing.frames import udp

frames = [udp("10.0.0.1", port, "10.0.0.2", 2) for port in range(1, 7)]
verdicts = [int(verdict) for verdict in run(onvm_nf_odd.Odd, frames).verdicts]
try:
    run(onvm_nf_odd.Odd, [udp("10.0.0.1", 99, "10.0.0.2", 2)])
    error = ""
except LookupError as raised:
    error = str(raised)
print(json.dumps([verdicts, error, onvm_nf_odd.__file__]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The source folder of a package with an ordinary module and one with a kernel."""
    folder = tmp_path / "onvm-nf-odd" / "onvm_nf_odd"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(NF)
    (folder / "fast.py").write_text(KERNEL)
    (folder / "onvm-nf.toml").write_text('schema = 1\nname = "odd"\nsdk = ">=0.1,<1"\n')
    return folder.parent


def run(package: Path) -> tuple[list[int], str, str]:
    """What the NF does, in a process of its own, and the file it comes from."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(package)], check=True, capture_output=True, text=True
    )
    verdicts, error, file = json.loads(done.stdout)
    return verdicts, error, file


def test_a_compiled_nf_behaves_as_before(package: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    before = run(package)
    assert before == ([1, 0, 1, 0, 1, 0], "no such port", before[2])
    assert before[2].endswith(".py")
    folder = package_folder(str(package))
    (made,) = build(folder)
    assert made.name.startswith("__init__.")
    after = run(package)
    assert after == (*before[:2], str(made))
    assert sorted(file.suffix for file in folder.iterdir() if file.is_file()) == [
        ".py",
        ".py",
        ".so",
        ".toml",
    ]
    assert clean(folder) == [made]
    assert run(package) == before


def test_mistakes_are_one_line_and_leave_nothing(package: Path) -> None:
    folder = package_folder(str(package))
    with pytest.raises(PluginError, match=r"expected a package with onvm-nf.toml"):
        package_folder(str(folder))
    (folder / "__init__.py").write_text(NF + "\n\ndef wrong():\n    break\n")
    with pytest.raises(PluginError, match="expected modules that Cython can compile") as raised:
        build(folder)
    assert "\n" not in str(raised.value)
    (folder / "__init__.py").write_text(NF.replace("process_packet", "process"))
    with pytest.raises(PluginError, match="expected an NF with process_packet; NFs in C"):
        build(folder)
    (folder / "__init__.py").write_text("class Nf:\n    def")
    with pytest.raises(PluginError, match="expected Python: "):
        build(folder)
    (folder / "__init__.py").unlink()
    with pytest.raises(PluginError, match="expected a module without kernels"):
        build(folder)
    assert not list(folder.glob("*.so")) + list(folder.glob("*.c"))
