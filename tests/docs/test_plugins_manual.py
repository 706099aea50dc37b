"""The manual has a section and an example for every hook, and every example does what it says."""

from __future__ import annotations

import importlib
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from onvm_core.cli.app import build_app
from onvm_core.cluster.scaling.host_policy import Candidate
from onvm_core.cluster.tree.nodes import PluginNode, RequestNode
from onvm_core.launch.launcher import LaunchSpec
from onvm_core.launch.limits import Limits
from onvm_core.manager.chains.classifier import ChainMatch, ChainRule
from onvm_core.manager.placement.policy import Decision, FreeResources, Need
from onvm_core.manager.placement.topology import read_topology
from onvm_core.manager.ports import parse_uri
from onvm_core.plugins import CliCommand, Offer, PluginManager, hookimpl
from onvm_core.plugins.hookspecs import HookSpecs
from onvm_core.plugins.port_kind import PortRequest
from onvm_core.scaling.policy import ScaleSettings, ServiceLoad, Wish
from onvm_sdk.errors import ConfigError, PluginError

MANUAL = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
HOOKS = sorted(name for name in vars(HookSpecs) if name.startswith("onvm_"))


def section(hook: str) -> str:
    found = re.search(rf"^### {hook}$(.*?)(?=^##|\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Offer]]:
    """Install the example of a hook as a plugin; its offer."""
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[str] = []

    def of(hook: str) -> Offer:
        (code,) = re.findall(r"^```python\n(.*?)^```", section(hook), re.MULTILINE | re.DOTALL)
        name = code.partition("\n")[0].removeprefix("# ").removesuffix(".py")
        (tmp_path / f"{name}.py").write_text(code)
        loaded.append(name)
        manager = PluginManager()
        manager.register(importlib.import_module(name), "example")
        (offer,) = manager.offers(hook).values()
        assert manager.problems == []
        return offer

    yield of
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_a_section_a_docstring_and_an_example_that_is_run(hook: str) -> None:
    assert "```python" in section(hook)
    assert getattr(HookSpecs, hook).__doc__
    assert f"test_{hook.removeprefix('onvm_')}_example" in globals()


def test_manual_describes_no_other_hook() -> None:
    assert sorted(re.findall(r"^### (onvm_\w+)$", MANUAL, re.MULTILINE)) == HOOKS


def test_classifiers_example(load: Callable[[str], Offer]) -> None:
    offer = load("onvm_classifiers")
    chains = [ChainMatch("web", ("nat",)), ChainMatch("other", ())]
    rules = offer.make({"web": 80}).rules("client", chains)
    assert rules == [ChainRule("web", protocol=6, dst_ports=(80, 80))]
    with pytest.raises(ConfigError, match="web: 0: expected a port from 1 to 65535"):
        offer.make({"web": 0})


def test_placement_policies_example(load: Callable[[str], Offer]) -> None:
    topology = read_topology()
    found = (
        load("onvm_placement_policies").make().place(Need(memory_mib=1), FreeResources(topology))
    )
    assert isinstance(found, Decision)
    assert found.cpus == (topology.cpus[-1].number,)


def test_scaling_policies_example(load: Callable[[str], Offer]) -> None:
    offer = load("onvm_scaling_policies")
    history = [ServiceLoad(0.0, (), 2)]
    assert offer.make(ScaleSettings()).decide(history) == Wish(2, "credits 0% taken, limit 50%")
    assert offer.make(ScaleSettings(options={"limit": -1})).decide(history).instances == 3
    with pytest.raises(ConfigError, match="nope: expected only limit"):
        offer.make(ScaleSettings(options={"nope": 1}))


def test_host_policies_example(load: Callable[[str], Offer]) -> None:
    plugin = PluginNode(name="nat", service="nat", version="1", digest="d")
    candidates = [
        Candidate(
            name=name,
            plugin=plugin,
            free_cores=1,
            idle_cores=1,
            free_memory_mib=1,
            instances=instances,
        )
        for name, instances in [("a", 2), ("b", 0), ("c", 0)]
    ]
    request = RequestNode(key="k", service="nat", reason="test", deadline=1.0, made=0.0)
    assert load("onvm_host_policies").make().order(request, candidates) == ["b", "c", "a"]


def test_launchers_example(load: Callable[[str], Offer], tmp_path: Path) -> None:
    launcher = load("onvm_launchers").make()
    assert launcher.obstacle() == ""
    limits = Limits(cpus=(0,), memory_mib=1)
    assert set(launcher.unenforced(limits)) == set(limits.controllers.values())
    spec = LaunchSpec(("none",), tmp_path / "attach", "secret", tmp_path / "log")
    handle = launcher.launch(spec)
    status = handle.wait(30)  # there is no manager to attach to
    assert status not in (None, 0)
    assert handle.log_tail()
    launcher.clean(spec)


def test_stats_exporters_example(load: Callable[[str], Offer], tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        offer = load("onvm_stats_exporters")
        snapshot = SimpleNamespace(manager="main", time=time.time(), report=SimpleNamespace(rx=7))
        with offer.make({"port": server.getsockname()[1]}, tmp_path) as exporter:
            exporter.export(snapshot)
        assert server.recv(100) == b"main.rx:7|c"


def test_port_kinds_example(load: Callable[[str], Offer]) -> None:
    kind = load("onvm_port_kinds").load()
    uri = parse_uri("vhost:/tmp/vm.sock?client=true&queues=2")
    options = kind.read_options(uri.options)
    device = kind.device(PortRequest("a", uri.target, options, "both"))
    assert device.arguments == "net_vhost0,iface=/tmp/vm.sock,queues=2,client=1"
    assert device.needs_copy
    with pytest.raises(ConfigError, match="nope: expected one of queues, mtu, promiscuous, client"):
        kind.read_options({"nope": "1"})
    with pytest.raises(ConfigError, match="queues: '99': expected an integer from 1 to 16"):
        kind.read_options({"queues": "99"})


def test_cli_commands_example(load: Callable[[str], Offer]) -> None:
    offer = load("onvm_cli_commands")
    assert isinstance(offer, CliCommand)
    app = build_app([offer], "hello")
    assert CliRunner().invoke(app, ["hello", "--name", "you"]).output == "hello you\n"


def _class(**methods: Callable[..., Any]) -> type:
    return type("Thing", (), methods)


class OneHook:
    """A plugin with one hook."""

    def __init__(self, hook: str, offers: list[Offer]) -> None:
        def implementation() -> list[Offer]:
            return offers

        setattr(self, hook, hookimpl(implementation))


FAULTS: dict[str, tuple[Any, str]] = {
    "onvm_classifiers": (_class(), "Thing has no rules"),
    "onvm_placement_policies": (
        _class(place=lambda self, need: None),
        "expected Thing.place to take (need, resources)",
    ),
    "onvm_scaling_policies": (7, "expected a class with decide(history), got 7"),
    "onvm_host_policies": (_class(order=7), "Thing has no order"),
    "onvm_launchers": (_class(obstacle=lambda self: ""), "Thing has no unenforced"),
    "onvm_stats_exporters": (
        _class(export=lambda self, snapshot: None),
        "Thing has no __enter__",
    ),
    "onvm_port_kinds": (7, "expected an onvm_core.plugins.port_kind.PortKind, got 7"),
    "onvm_cli_commands": (7, "expected a function or a typer.Typer, got 7"),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_what_does_not_fit_is_one_line_that_names_plugin_hook_and_offer(hook: str) -> None:
    target, expected = FAULTS[hook]
    manager = PluginManager()
    offer = (CliCommand if hook == "onvm_cli_commands" else Offer)("thing", "A thing.", target)
    manager.register(OneHook(hook, [offer]), "example")
    loaded = manager.offers(hook)["thing"]
    with pytest.raises(PluginError) as error:
        loaded.load()
    line = str(error.value)
    assert line.startswith(f"plugin example: {hook}: thing: expected ")
    assert expected in line
    assert "\n" not in line
