"""A manager in memory is changed as another file says: whole, or not at all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_nf import AnyCpu, FakeLauncher, PlaneMaker, until

from onvm_core.cli.manager.reload import difference_lines
from onvm_core.dataplane.interface import DataplaneError
from onvm_core.dataplane.values import Fragments
from onvm_core.manager.api import messages as m
from onvm_core.manager.api.config_messages import (
    ChangeReply,
    ChangeStateRequest,
    Difference,
    ReconfigureRequest,
    ReloadRequest,
)
from onvm_core.manager.api.state_messages import NfReplaceRequest
from onvm_core.manager.capture_port import PCAP
from onvm_core.manager.config.checked import Checked
from onvm_core.manager.config.extensions import Extensions
from onvm_core.manager.config.onvm_toml import parse_config
from onvm_core.manager.nf_hosts import codec
from onvm_core.manager.nf_hosts.registry import NfHost
from onvm_core.manager.ports import NULL
from onvm_core.manager.service.service import Service
from onvm_core.plugins import NfPackage
from onvm_sdk.errors import ConfigError
from onvm_sdk.manifest import parse_manifest

KINDS = {"null": NULL, "pcap": PCAP}


def package(name: str) -> NfPackage:
    keys = {
        "port": {"type": "int", "default": 1, "max": 99},
        "rules": {"type": "path", "default": ""},
    }
    manifest = parse_manifest({"schema": 1, "name": name, "sdk": ">=0", "config": keys}, "x.toml")
    return replace(NfPackage(name, f"onvm-nf-{name}", "1", f"{name}:Nf", name), manifest=manifest)


PACKAGES = [package(name) for name in ("a", "b", "c")]
PORTS = """
[ports.in]
uri = "null:"
[ports.out]
uri = "null:"
"""
CHAIN = """
[chains.main]
in = "in"
out = "out"
services = ["a", "b"]
"""
FILE = f"{PORTS}[nfs.a]\nconfig = {{ port = 5 }}\n{CHAIN}"


class World:
    """A service, its data plane, its launcher and its file."""

    def __init__(self, folder: Path, text: str) -> None:
        maker = PlaneMaker()
        (folder / "main").mkdir()
        self.path = folder / "onvm.toml"
        self.plane = maker.plane
        self.launcher = FakeLauncher()
        self.ready: list[bool] = []
        self.path.write_text(text)
        self.service = Service(folder / "main", self.read(self.path), self.read, start_plane=maker)

    def read(self, path: Path) -> Checked:
        config = parse_config(path.read_bytes(), path, KINDS, PACKAGES)
        launchers = self.launcher.launchers()
        return Checked(config, path, KINDS, Extensions(AnyCpu()), launchers, PACKAGES)

    def turn(self) -> None:
        self.service.turn(lambda: self.ready.append(True))
        for handle in self.launcher.handles:
            handle.poll()

    def until(self, is_true: Callable[[], bool]) -> None:
        until(is_true, self.turn)

    def ask(self, request: Any) -> Any:
        return self.service.handle(request)

    def change(self, request: Any) -> ChangeReply:
        """Begin a change and wait for its end."""
        reply = self.ask(request)
        number = reply.number
        self.until(lambda: self.ask(ChangeStateRequest(number=number)).step in ("done", "failed"))
        done: ChangeReply = self.ask(ChangeStateRequest(number=number))
        return done

    def reload(self, text: str, *, dry_run: bool = False) -> ChangeReply:
        self.path.write_text(text)
        return self.change(ReloadRequest(dry_run=dry_run))

    def states(self) -> dict[str, str]:
        return {nf.instances[0]: nf.state for nf in self.ask(m.StatusRequest()).launched}

    def host(self, instance: str) -> NfHost:
        """The NF host of an instance."""
        ((found, _),) = self.service._deployment.manager.registry.find(instance)
        return found

    def facts(self) -> Any:
        """Everything that a change could leave behind."""
        status = self.ask(m.StatusRequest())
        return (
            [(port.name, number) for number, port in self.plane.ports.items()],
            dict(self.plane.chains),
            {nf.instances[0]: (nf.state, nf.log) for nf in status.launched},
            status.chains,
            sorted((self.path.parent / "main" / "config").glob("*")),
        )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def world(text: str) -> World:
        made.append(World(tmp_path, text))
        made[-1].service.start()
        made[-1].until(lambda: bool(made[-1].ready))
        return made[-1]

    yield world
    for one in made:
        one.service.close()
        for handle in one.launcher.handles:
            handle.kill()


@pytest.fixture
def world(make: Callable[[str], World]) -> World:
    return make(FILE)


def port_of(content: bytes) -> str:
    return content.partition(b'"port" = ')[2].partition(b"\n")[0].decode()


# ---- configurations ----


def test_all_instances_get_the_new_configuration_and_later_ones_too(world: World) -> None:
    world.ask(m.NfRunRequest(name="a"))
    world.until(lambda: world.states() == {"a-1": "active", "b-1": "active", "a-2": "active"})
    done = world.reload(FILE.replace("5", "6"))
    assert done.step == "done"
    assert done.changes == [Difference("nfs.a.config.port", "changed", "5", "6")]
    for name in ("a-1", "a-2"):
        assert port_of(world.launcher.nf(name).configs[0]) == "6"
    assert world.launcher.nf("b-1").configs == {}
    world.ask(m.NfRunRequest(name="a"))
    (path,) = world.launcher.handles[-1].spec.configs.values()
    assert path.read_text() == '"port" = 6\n'
    assert list(path.parent.glob("*.toml")) == [path]


@pytest.mark.parametrize("step", ["prepare", "use"])
def test_refusal_of_one_leaves_all_as_they_were(world: World, step: str) -> None:
    world.ask(m.NfRunRequest(name="a"))
    world.until(lambda: world.states() == {"a-1": "active", "b-1": "active", "a-2": "active"})
    before = world.facts()
    world.launcher.nf("a-2").declines = step
    done = world.reload(FILE.replace("5", "6") + "[ports.third]\nuri = 'null:'\n")
    assert done.step == "failed"
    assert done.error == f"{world.path}: nfs.a.config.port: 9: expected another one"
    assert world.facts() == before
    used = world.launcher.nf("a-1").configs
    assert [port_of(content) for content in used.values()] == ([] if step == "prepare" else ["5"])
    world.launcher.nf("a-2").declines = None
    assert world.reload(FILE.replace("5", "7")).step == "done"


def test_files_that_a_configuration_names_are_read_again(make: Callable[[str], World]) -> None:
    text = f"{PORTS}[nfs.a]\nconfig = {{ rules = 'rules.txt' }}\n{CHAIN}"
    with pytest.raises(ConfigError, match=r"nfs\.a\.config\.rules: .*: expected a file that can"):
        make(text)


def test_named_file_alone_is_a_change(make: Callable[[str], World], tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("one\n")
    world = make(f"{PORTS}[nfs.a]\nconfig = {{ rules = 'rules.txt' }}\n{CHAIN}")
    (tmp_path / "rules.txt").write_text("one\ntwo\n")
    done = world.change(ReloadRequest())
    assert done.changes == [Difference("nfs.a.config.rules", "changed", "1 lines", "2 lines")]
    assert world.launcher.nf("a-1").configs[0].endswith(b"one\ntwo\n")


def test_configuration_of_one_service_by_command(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("port = 8\n")
    done = world.change(ReconfigureRequest(name="a", path=str(tmp_path / "a.toml")))
    assert done.changes == [Difference("nfs.a.config.port", "changed", "5", "8")]
    assert port_of(world.launcher.nf("a-1").configs[0]) == "8"
    # The file still says otherwise.
    assert world.change(ReloadRequest()).changes == [
        Difference("nfs.a.config.port", "changed", "8", "5")
    ]
    assert port_of(world.launcher.nf("a-1").configs[0]) == "5"


def test_nf_that_cannot_change_is_replaced_and_hands_its_state_over(
    make: Callable[[str], World],
) -> None:
    world = make(FILE)
    world.launcher.nf("a-1").is_fixed = True
    world.launcher.nf("a-1").state = [[b"state"]]
    done = world.reload(FILE.replace("5", "6"))
    assert (done.step, done.replaced) == ("done", ["a-1"])
    world.until(lambda: world.states() == {"b-1": "active", "a-2": "active"})
    assert world.launcher.nf("a-2").restored == {"a-1": [b"state"]}
    # It stands for the instance of the file, also for the next reload.
    assert world.reload(FILE.replace("5", "6")).changes == []
    world.reload(f"{PORTS}[nfs.a]\ninstances = 0\n{CHAIN.replace('a', 'b', 0)}")
    world.until(lambda: "a-2" not in world.states())


def test_instance_gets_another_name_and_no_new_flows_meanwhile(world: World) -> None:
    reply = world.ask(NfReplaceRequest(name="a-1", avoided=["a-2"]))
    assert reply.replaced == ["a-1"]
    assert world.host("a-1").is_kept_back
    world.until(lambda: world.states() == {"b-1": "active", "a-3": "active"})
    assert not world.host("a-3").is_kept_back
    # It stands for the instance of the file.
    assert world.reload(FILE).changes == []
    assert world.states() == {"b-1": "active", "a-3": "active"}


def test_instance_that_cannot_be_replaced_stays_without_new_flows(world: World) -> None:
    world.launcher.fails = True
    number = world.ask(NfReplaceRequest(name="a-1")).number
    world.until(lambda: world.ask(ChangeStateRequest(number=number)).step == "failed")
    assert world.states() == {"a-1": "active", "b-1": "active"}
    assert world.host("a-1").is_kept_back
    with pytest.raises(ConfigError, match=r"^nf replace: 'x': expected an instance that this"):
        world.ask(NfReplaceRequest(name="x"))


def test_replacement_that_does_not_start_changes_nothing(world: World) -> None:
    world.launcher.nf("a-1").is_fixed = True
    before = world.facts()
    world.launcher.fails = True
    done = world.reload(FILE.replace("5", "6"))
    assert done.step == "failed"
    assert done.error.startswith("NF a ended with status 1")
    world.until(lambda: len(world.states()) == 2)
    assert world.facts()[:4] == before[:4]


def test_dry_run_asks_the_nfs_and_changes_nothing(world: World) -> None:
    before = world.facts()
    done = world.reload(FILE.replace("5", "6") + "[ports.x]\nuri = 'null:'\n", dry_run=True)
    assert done.step == "done"
    assert [one.place for one in done.changes] == ["ports.x", "nfs.a.config.port"]
    assert codec.CONFIG in world.launcher.nf("a-1").kinds()
    assert world.launcher.nf("a-1").configs == {}
    assert world.facts() == before
    world.launcher.nf("a-1").declines = "prepare"
    assert world.change(ReloadRequest(dry_run=True)).step == "failed"


# ---- ports, chains, instances ----


def test_ports_chains_and_instances_become_those_of_the_file(world: World) -> None:
    text = (
        PORTS.replace("ports.out", "ports.far")
        + "[nfs.a]\ninstances = 2\nconfig = { port = 5 }\n"
        + "[nfs.b]\n[nfs.c]\n"
        + '[chains.main]\nin = "in"\nout = "far"\nservices = ["a", "c"]\n'
    )
    done = world.reload(text)
    assert done.step == "done", done.error
    assert {(one.place, one.action) for one in done.changes} == {
        ("ports.out", "removed"),
        ("ports.far", "added"),
        ("nfs.a.instances", "changed"),
        ("nfs.c", "added"),
        ("chains.main.out", "changed"),
        ("chains.main.services", "changed"),
    }
    assert [port.name for port in world.plane.ports.values()] == ["in", "far"]
    assert world.plane.chains[1].services == (1, 3)
    assert world.states() == dict.fromkeys(("a-1", "b-1", "a-2", "c-1"), "active")
    assert world.reload(FILE).step == "done"
    world.until(lambda: world.states() == {"a-1": "active", "b-1": "active"})
    assert sorted(port.name for port in world.plane.ports.values()) == ["in", "out"]


def test_chains_may_exchange_their_ports(make: Callable[[str], World]) -> None:
    ports = PORTS + "[ports.x]\nuri = 'null:'\n[ports.y]\nuri = 'null:'\n"
    chains = "[chains.{}]\nin = 'in'\nout = 'out'\n[chains.{}]\nin = 'x'\nout = 'y'\n"
    world = make(ports + chains.format("one", "two"))
    assert world.reload(ports + chains.format("two", "one")).step == "done"
    shown = {chain.name: chain.near for chain in world.ask(m.StatusRequest()).chains}
    assert shown == {"one": "x", "two": "in"}


def test_options_of_a_port_change_with_its_chains(world: World) -> None:
    world.ask(m.ChainRemoveRequest(name="main"))
    world.ask(m.ChainAddRequest(name="other", near="in", far="out", services=["a"]))
    world.ask(m.ChainRemoveRequest(name="other"))
    done = world.reload(FILE.replace('uri = "null:"', 'uri = "null:?flows=7"', 1))
    assert done.changes == [Difference("ports.in.uri", "changed", "null:", "null:?flows=7")]
    assert world.service._deployment.ports == {"out": "null:", "in": "null:?flows=7"}
    (chain,) = world.plane.chains.values()
    number = next(number for number, port in world.plane.ports.items() if port.name == "in")
    assert chain.near_port == number


def test_port_that_cannot_open_brings_everything_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE.replace('uri = "null:"', 'uri = "null:?flows=7"', 1).replace("5", "6")
    before = world.facts()
    open_port = world.plane.open_port

    def open_once_more(name: str, options: Any) -> int:
        monkeypatch.setattr(world.plane, "open_port", open_port)
        raise DataplaneError(errno.ENODEV, "no such device")

    monkeypatch.setattr(world.plane, "open_port", open_once_more)
    done = world.reload(text)
    assert done.step == "failed"
    line = "ports.in.uri: 'null:?flows=7': expected a port that can be opened: no such device"
    assert done.error == f"{world.path}: {line}"
    after = world.facts()
    assert sorted(after[0]) == sorted(before[0])
    assert after[2:] == before[2:]
    assert world.service._deployment.ports == {"in": "null:", "out": "null:"}
    assert world.launcher.nf("a-1").configs == {}


def test_port_of_a_chain_by_command_stays(world: World) -> None:
    world.reload(FILE + "[ports.x]\nuri = 'null:'\n[ports.y]\nuri = 'null:'\n")
    world.ask(m.ChainAddRequest(name="mine", near="x", far="y", services=[]))
    before = world.facts()
    done = world.reload(FILE)
    assert done.step == "failed"
    assert (
        done.error
        == f"{world.path}: ports: 'x': expected this port: chain mine, added by command, has it"
    )
    assert world.facts() == before


# ---- mistakes ----


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("port = 5", "port = 100", "nfs.a.config.port: 100: expected at most 99"),
        ("port = 5", "prot = 5", "nfs.a.config.prot: 5: expected one of port, rules"),
        ('"b"]', '"x"]', "chains.main.services: 'x': expected a service"),
        (
            "[nfs.a]",
            "[dataplane]\nbuffers = 2048\n[nfs.a]",
            "dataplane.buffers: 2048: expected ",
        ),
        ("[nfs.a]", "[manager]\ncpu_quota = true\n[nfs.a]", "manager.cpu_quota: True: expected"),
        (
            "[nfs.a]",
            "[nfs.a]\nplugin = 'a'",
            "nfs.a.plugin: 'a': expected none, as at the start: it changes only with a restart",
        ),
        ("[nfs.a]", "[nfs.a", "expected TOML"),
        ('"null:"', '"pcap:none"', "ports.in.uri: 'none': expected a file that exists"),
    ],
)
def test_mistake_is_one_line_and_changes_nothing(
    world: World, old: str, new: str, line: str
) -> None:
    before = world.facts()
    with pytest.raises(ConfigError) as caught:
        world.reload(FILE.replace(old, new, 1))
    assert str(caught.value).startswith(f"{world.path}: {line}")
    assert world.facts() == before
    assert world.launcher.nf("a-1").heard == []


def test_service_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(ConfigError, match="nf config: 'x': expected a service with an instance"):
        world.ask(ReconfigureRequest(name="x", path=str(world.path)))


def test_one_change_at_a_time(world: World) -> None:
    world.launcher.nf("a-1").is_deaf = True
    world.path.write_text(FILE.replace("5", "6"))
    world.ask(ReloadRequest())
    for request in (ReloadRequest(), m.NfRunRequest(name="a")):
        with pytest.raises(ConfigError, match="expected no reload in progress"):
            world.ask(request)
    world.launcher.nf("a-1").is_deaf = False
    world.until(lambda: bool(world.launcher.nf("a-1").configs))


def test_nf_host_that_dies_meanwhile_is_asked_again(world: World) -> None:
    first = world.launcher.nf("a-1")
    first.is_deaf = True
    world.path.write_text(FILE.replace("5", "6"))
    number = world.ask(ReloadRequest()).number
    first.close()
    world.until(lambda: world.ask(ChangeStateRequest(number=number)).step == "done")
    world.until(lambda: world.states()["a-1"] == "active")
    (path,) = world.launcher.handles[-1].spec.configs.values()
    used = world.launcher.nf("a-1").configs.get(0)
    assert port_of(used) == "6" if used else path.read_text() == '"port" = 6\n'


def test_signal_reloads_and_its_mistakes_end_nothing(world: World) -> None:
    world.path.write_text("nonsense")
    world.service.reload_soon()
    world.turn()
    world.path.write_text(FILE.replace("5", "6"))
    world.service.reload_soon()
    world.until(lambda: bool(world.launcher.nf("a-1").configs))


def test_hostile_answers_are_ignored_or_end_the_host(world: World) -> None:
    nf = world.launcher.nf("a-1")
    for kind in (codec.PREPARED, codec.APPLIED, codec.DECLINED):
        nf.say(kind, stage=3, peer="99", payload=b"\xff")
    world.turn()
    assert world.reload(FILE.replace("5", "6")).step == "done"


def test_lines_fit_a_terminal() -> None:
    changes = [
        Difference("ports.x", "added", "", "null:"),
        Difference("nfs.a.config.port", "changed", "5", "6"),
        Difference("chains.old", "removed", "a, b"),
        Difference("ports.lan.uri", "changed", "af_packet:eth0" * 3, "af_packet:eth1" * 3),
    ]
    assert difference_lines(changes) == [
        "+ ports.x: null:",
        "~ nfs.a.config.port: 5 → 6",
        "- chains.old: a, b",
        "~ ports.lan.uri:",
        f"    {'af_packet:eth0' * 3}",
        f"    → {'af_packet:eth1' * 3}",
    ]


def test_addresses_of_a_port_change_without_closing_it(world: World) -> None:
    before = dict(world.plane.ports)
    text = FILE.replace('uri = "null:"', 'uri = "null:"\naddresses = ["192.0.2.1/24"]', 1)
    done = world.reload(text)
    assert (done.step, done.error) == ("done", "")
    assert [one.place for one in done.changes] == ["ports.in.addresses"]
    assert world.plane.ports == before
    link = world.service._deployment._state.ports["in"].link
    assert link is not None
    assert link.addresses == ("192.0.2.1/24",)


def test_the_form_of_fragments_is_that_of_the_file(make: Callable[[str], World]) -> None:
    """Without a word, that of the manifest."""
    text = FILE.replace("[nfs.a]\n", '[nfs.a]\nfragments = "FORM"\n')
    world = make(text.replace("FORM", "virtual"))
    numbers = world.service._deployment.manager.registry.service_ids
    forms = world.plane.fragments
    assert (forms[numbers["a"]], forms[numbers["b"]]) == (Fragments.VIRTUAL, Fragments.PASS)
    reply = world.reload(text.replace("FORM", "reassemble"))
    assert [(one.place, one.before, one.after) for one in reply.changes] == [
        ("nfs.a.fragments", "virtual", "reassemble")
    ]
    assert forms[numbers["a"]] is Fragments.REASSEMBLE
    assert world.reload(FILE).step == "done"
    assert forms[numbers["a"]] is Fragments.PASS
