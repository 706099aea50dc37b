"""Built-ins and foreign plugins come through one door, and a bad one harms no other."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import importlib_metadata
import pytest

from onvm_core.plugins import CliCommand, Offer, PluginManager, hookimpl, load_plugins
from onvm_core.plugins.manager import GROUP
from onvm_sdk.errors import PluginError

HOOK = "onvm_launchers"


def plugin_of(hook: Callable[[], Any]) -> ModuleType:
    plugin = ModuleType("plugin")
    setattr(plugin, hook.__name__, hook)
    return plugin


def offering(*names: str) -> object:
    @hookimpl
    def onvm_launchers() -> list[Offer]:
        return [Offer(name, f"about {name}", f"json:{name}") for name in names]

    return plugin_of(onvm_launchers)


def misbehaving(action: Callable[[], Any]) -> object:
    @hookimpl
    def onvm_launchers() -> Any:
        return action()

    return plugin_of(onvm_launchers)


def fail() -> None:
    raise RuntimeError("no luck")


def test_offers_of_all_plugins_are_joined_and_sorted() -> None:
    manager = PluginManager()
    manager.register(offering("loads", "dumps"), "one")
    manager.register(offering("dump"), "two")
    assert list(manager.offers(HOOK)) == ["dump", "dumps", "loads"]
    assert manager.problems == []


def test_built_ins_come_through_the_hooks() -> None:
    commands = load_plugins().offers("onvm_cli_commands")
    assert {"nf", "doctor", "version"} <= set(commands)
    assert all(isinstance(command, CliCommand) for command in commands.values())


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (fail, "RuntimeError: no luck"),
        (lambda: ["word"], "TypeError: expected Offer objects, got 'word'"),
        (lambda: 7, "TypeError"),
        (lambda: [Offer("a b", "x", "json:loads")], "expected a name of lower-case letters"),
        (lambda: [Offer("a", "x\ny", "json:loads")], "expected a summary of one line for 'a'"),
    ],
    ids=["raises", "no-offers", "no-list", "bad-name", "bad-summary"],
)
def test_bad_hook_is_named_and_hides_no_other(action: Callable[[], Any], reason: str) -> None:
    manager = PluginManager()
    manager.register(misbehaving(action), "bad")
    manager.register(offering("loads"), "good")
    assert list(manager.offers(HOOK)) == ["loads"]
    manager.offers(HOOK)
    (problem,) = manager.problems
    assert (problem.plugin, problem.hook) == ("bad", HOOK)
    assert reason in problem.reason


def test_first_of_two_offers_with_one_name_stays() -> None:
    manager = PluginManager()
    manager.register(offering("loads"), "one")
    manager.register(offering("loads", "dumps"), "two")
    assert list(manager.offers(HOOK)) == ["dumps", "loads"]
    assert [str(problem) for problem in manager.problems] == [
        "plugin two: onvm_launchers: 'loads' is offered already"
    ]


def test_hook_that_does_not_exist_is_a_problem() -> None:
    @hookimpl
    def onvm_launcher() -> list[Offer]:
        return []

    manager = PluginManager()
    manager.register(plugin_of(onvm_launcher), "typo")
    manager.register(offering("loads"), "good")
    assert [problem.plugin for problem in manager.problems] == ["typo"]
    assert list(manager.offers(HOOK)) == ["loads"]


def test_unhashable_plugin_is_a_problem() -> None:
    manager = PluginManager()
    manager.register(SimpleNamespace(), "odd")
    manager.register(offering("loads"), "good")
    assert [problem.plugin for problem in manager.problems] == ["odd"]
    assert list(manager.offers(HOOK)) == ["loads"]


def test_load_imports_what_is_asked_for_and_checks_it() -> None:
    manager = PluginManager()
    manager.register(offering("loads", "nothing_of_this_name"), "one")
    with pytest.raises(PluginError, match="loads: expected a class with obstacle"):
        manager.load(HOOK, "loads")
    with pytest.raises(PluginError, match="json:nothing_of_this_name to be importable"):
        manager.load(HOOK, "nothing_of_this_name")
    with pytest.raises(PluginError, match="launchers: 'podman': expected one of loads, nothing"):
        manager.load(HOOK, "podman")


def test_entry_points_load_in_order_and_a_broken_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo_broken.py").write_text("raise ValueError('half written')\n")
    (tmp_path / "demo_good.py").write_text(
        textwrap.dedent("""
        from onvm_core.plugins import Offer, hookimpl

        @hookimpl
        def onvm_launchers():
            return [Offer("good", "a good one", "json:loads")]
        """)
    )
    for name, module in [("zz", "demo_good"), ("aa", "demo_broken")]:
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nplugin = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    manager = PluginManager()
    manager.load_entry_points(importlib_metadata.entry_points(group=GROUP))
    assert [str(problem) for problem in manager.problems] == [
        "plugin aa:plugin: load: ValueError: half written"
    ]
    assert "good" in manager.offers(HOOK)


def test_plugins_load_without_typer_and_numpy() -> None:
    code = (
        "import sys; from onvm_core.plugins import load_plugins; load_plugins();"
        "print([name for name in ('typer', 'numpy', 'zmq', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
