"""A run that cannot start is refused in one line with the reason, soon, and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import ONVM
from up_host import HOP_CONFIG, install_nf

from onvm_core.launch.cgroup import is_abandoned
from onvm_core.launch.cgroup_tree import read_trees
from onvm_core.launch.engine import find_engine
from onvm_core.launch.image import reference
from onvm_core.launch.launcher import Launchers
from onvm_sdk.errors import ConfigError

if TYPE_CHECKING:
    from up_host import Host

RAISES = """
from onvm_sdk import NetworkFunction


class Nf(NetworkFunction):
    def process_packet(self, pkt):
        raise KeyError("not here")
"""
FAILS = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def setup(self, ctx):
        raise RuntimeError("there is no table for me")

    def process_packet(self, pkt):
        pass
"""
SLEEPS = """
import time
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def setup(self, ctx):
        print("still reading tables", flush=True)
        time.sleep(600)

    def process_packet(self, pkt):
        pass
"""
GROWS = """
from onvm_sdk import NetworkFunction

class Nf(NetworkFunction):
    def process_packet(self, pkt):
        pass

    def on_message(self, sender, payload):
        self.all = bytearray(512 << 20)
        self.all[::4096] = bytes(len(self.all) // 4096)
"""


def install(host: Host, name: str, source: str, launcher: str, manifest: str = "") -> None:
    install_nf(host.site, name, source, manifest)
    if launcher == "container":
        host.do("nf", "image", name)


def cgroups() -> list[str]:
    """Cgroups of NF hosts of managers that are dead."""
    return [
        str(folder)
        for tree in read_trees()
        for base in (tree.own, *tree.above)
        for folder in base.glob("onvm/*/*")
        if is_abandoned(folder.parent.name)
    ]


def refused(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line of a command that has refused; before it only what a broken NF has written."""
    assert done.returncode == status, done.stdout + done.stderr
    *written, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert not written or (status == 1 and all(" | " in line for line in written)), done.stderr
    return last.removeprefix("error: ").rstrip()


def nothing_left(host: Host, launcher: str, before: list[str]) -> None:
    host.wait(lambda: not host.processes())
    host.wait(lambda: not list(host.runtime.glob("main/*.json")))
    host.wait(lambda: not list(host.runtime.glob("main/**/*.sock")))
    host.wait(lambda: not [name for name in cgroups() if name not in before])
    host.wait(lambda: launcher != "container" or not find_engine().containers())


def test_nf_that_fails_at_its_start_ends_up_at_once(host: Host, launcher: str) -> None:
    install(host, "fails", FAILS, launcher)
    before = cgroups()
    host.configure(HOP_CONFIG.replace("LAUNCHER", launcher).replace("hop", "fails"))
    # That it is the NF's own line tells it from what a manager says that has waited in vain.
    line = refused(host.onvm("up", "-d"))
    reason = "onvm: fails.setup raised RuntimeError: there is no table for me"
    told = re.compile(rf"NF fails ended with status 1: {re.escape(reason)} \(.*\.py:\d+\) \(log: ")
    assert told.match(line)
    nothing_left(host, launcher, before)

    done = host.onvm(
        "run", "--in", "null:", "--out", "null:", "--chain", "fails", "--launcher", launcher
    )
    assert told.match(refused(done, 1))
    assert reason in (host.runtime / ".failed/fails-1.log").read_text()
    nothing_left(host, launcher, before)


@pytest.mark.parametrize("n_packets", [1, 200, 100_000])
def test_nf_that_raises_ends_the_run_with_the_line_of_its_author(
    host: Host, launcher: str, n_packets: int
) -> None:
    if launcher == "container" and n_packets != 200:
        pytest.skip("once is enough: it takes long")
    install(host, "raises", RAISES, launcher)
    near = f"null:?count={n_packets}"
    done = host.onvm(
        "run", "--in", near, "--out", "null:", "--chain", "raises", "--launcher", launcher
    )
    reason = "onvm: raises.process_packet raised KeyError: 'not here'"
    told = rf"NF raises ended with status 1: {re.escape(reason)} \(.*\.py:7\) \(log: "
    assert re.match(told, refused(done, 1))
    assert reason in (host.runtime / ".failed/raises-1.log").read_text()


def test_nf_that_never_gets_ready_is_ended_with_the_reason(host: Host, launcher: str) -> None:
    install(host, "sleeps", SLEEPS, launcher)
    before = cgroups()
    text = HOP_CONFIG.replace("LAUNCHER", launcher).replace("hop", "sleeps")
    host.configure(text + "[faults]\nready_s = 5\n")
    line = refused(host.onvm("up", "-d"))
    assert line.startswith("NF sleeps was not ready within 5 s: ")
    nothing_left(host, launcher, before)


def test_memory_limit_ends_an_nf_and_status_says_so(host: Host, launcher: str) -> None:
    if lacking := Launchers().unenforced(launcher):
        pytest.skip(lacking)
    install(host, "grows", GROWS, launcher, "memory_mib = 96\n")
    before = cgroups()
    host.configure(HOP_CONFIG.replace("LAUNCHER", launcher).replace("hop", "grows"))
    host.do("up", "-d")
    host.do("send", "grows", "now")
    host.wait(lambda: host.status()["launched"][0]["restarts"] == 1)
    (nf,) = host.status()["launched"]
    assert "was ended by signal 9: onvm: " in nf["reason"]
    assert "memory limit" in nf["reason"] or "memory; its limit is 96 MiB" in nf["reason"]
    host.wait(lambda: host.status()["launched"][0]["state"] == "active")
    host.do("down")
    nothing_left(host, launcher, before)


def test_missing_image_names_the_command_that_makes_it(host: Host) -> None:
    need_container()
    install_nf(host.site, "bare")  # other tests make images of the others
    host.configure(HOP_CONFIG.replace("LAUNCHER", "container").replace("hop", "bare"))
    missing = "'bare': expected an image of it as it is installed now; run: onvm nf image bare"
    assert refused(host.onvm("up", "-d")).endswith(missing)
    done = host.onvm(
        "run", "--in", "null:", "--out", "null:", "--chain", "bare", "--launcher", "container"
    )
    assert refused(done).endswith(missing)
    nothing_left(host, "container", cgroups())


def test_image_that_does_not_start_is_refused(
    host: Host, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.is_dir()
    need_container()
    install_nf(host.site, "hollow")
    monkeypatch.syspath_prepend(host.site)
    empty = host.folder / "empty.tar"
    subprocess.run(["tar", "-cf", empty, "-C", host.folder, "site"], check=True)
    find_engine().ask(
        "import", "--change", 'ENTRYPOINT ["/no/such"]', str(empty), reference(["hollow"])
    )
    host.configure(HOP_CONFIG.replace("LAUNCHER", "container").replace("hop", "hollow"))
    line = refused(host.onvm("up", "-d"))
    assert line.startswith("NF hollow ended with status 127: Error: ")
    assert "/no/such" in line
    nothing_left(host, "container", cgroups())


def test_files_of_a_configuration_come_along(host: Host, launcher: str) -> None:
    """Though a container sees no file of this host."""
    rules = host.folder / "etc" / "rules.txt"
    rules.parent.mkdir()
    rules.write_text("the rules")
    source = FAILS.replace(
        'raise RuntimeError("there is no table for me")',
        'print("read:", open(ctx.config["rules"]).read(), flush=True)',
    )
    install_nf(host.site, "reads", source)
    manifest = host.site / "onvm_nf_reads" / "onvm-nf.toml"
    manifest.write_text(
        manifest.read_text() + '[config.rules]\ntype = "path"\ndescription = "a file"\n'
    )
    if launcher == "container":
        host.do("nf", "image", "reads")
    host.configure(
        HOP_CONFIG.replace("LAUNCHER", launcher).replace("hop", "reads")
        + '[nfs.reads.config]\nrules = "etc/rules.txt"\n'
    )
    host.do("up", "-d")
    (nf,) = host.status()["launched"]
    assert "read: the rules" in Path(nf["log"]).read_text()
    host.do("down")


def need_container() -> None:
    try:
        Launchers().get("container")
    except ConfigError as error:
        pytest.skip(str(error))


def test_without_cgroups_it_says_what_is_not_enforced_or_refuses(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("hides the cgroups in a mount namespace: needs root")

    def hidden(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount -t tmpfs -o ro none /sys/fs/cgroup; exec "$@"',
                "sh",
                *ONVM,
                *arguments,
            ],
            env=host.environment,
            cwd=host.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    why = "may not write to /sys/fs/cgroup"
    host.configure(HOP_CONFIG.replace("LAUNCHER", "process"))
    run = hidden("run", "--in", "null:?count=100", "--out", "null:", "--chain", "hop")
    assert run.returncode == 0
    assert run.stderr == ""  # onvm doctor says it, and not each run
    planned = hidden("plan")
    assert planned.returncode == 0
    assert f"note: limits of launcher 'process': no CPU set: user 0 {why}" in planned.stdout
    up = hidden("up", "-d")
    assert up.returncode == 0, up.stderr
    assert why in up.stderr
    assert any(why in line for line in host.status()["warnings"])
    host.do("down")

    host.configure('[manager]\nlimits = "required"\n' + HOP_CONFIG.replace("LAUNCHER", "process"))
    for done in (
        hidden("up", "-d"),
        hidden("plan"),
        hidden("run", "--in", "null:", "--out", "null:", "--chain", "hop", "--limits", "required"),
    ):
        line = refused(done)
        assert "'process': expected one that can enforce limits here (no CPU set" in line
        assert why in line
    nothing_left(host, "process", cgroups())
