"""Load plugins, and isolate the faults of each.

Like the other places that call foreign code it catches `Exception`: a plugin may do anything while
it is imported or called. Its fault becomes a `PluginProblem` that names plugin and hook; the others
continue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import importlib_metadata
import pluggy

from onvm_core.plugins import builtins
from onvm_core.plugins.contracts import offer_fault
from onvm_core.plugins.hookspecs import PROJECT, HookSpecs
from onvm_core.plugins.offer import CliCommand, Offer
from onvm_sdk.errors import PluginError
from onvm_sdk.spelling import one_of

__all__ = ["GROUP", "PluginManager", "PluginProblem", "load_plugins"]

GROUP = "onvm.plugins"
_BUILTINS = "onvm"
_COMMANDS = "onvm_cli_commands"


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """The fault of a plugin, and its hook (``load`` for a fault during import)."""

    plugin: str
    hook: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.hook}: {self.reason}"


class PluginManager:
    """The registered plugins and their offers.

    Threads: one; filled at start-up, read afterwards.
    """

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(HookSpecs)
        self.problems: list[PluginProblem] = []

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin; its faults go to `problems`."""
        try:
            hash(plugin)  # pluggy keeps plugins in sets
            self._pluggy.register(plugin, name=name)
            self._pluggy.check_pending()
        except Exception as error:
            if self._pluggy.has_plugin(name):
                self._pluggy.unregister(name=name)
            self._report(name, "load", error)

    def load_entry_points(self, entry_points: Iterable[importlib_metadata.EntryPoint]) -> None:
        """Import and add foreign plugins, in the order of distribution and name."""
        for entry_point in sorted(entry_points, key=_sort_key):
            name = f"{_distribution(entry_point)}:{entry_point.name}"
            try:
                plugin = entry_point.load()
            except Exception as error:
                self._report(name, "load", error)
            else:
                self.register(plugin, name)

    def offers(self, hook: str) -> dict[str, Offer]:
        """The offers of all plugins for `hook`, by name, sorted.

        Each plugin is called separately, so that a fault in one does not hide the others' offers.
        Of two offers with one name the built-in stays, or the one that registered first; the
        other is a problem.
        """
        found: dict[str, Offer] = {}
        for name, plugin in self._pluggy.list_name_plugin():
            if plugin is None or not hasattr(plugin, hook):
                continue
            others = [other for other in self._pluggy.get_plugins() if other is not plugin]
            caller = self._pluggy.subset_hook_caller(hook, others)
            try:
                offered = [offer for offers in caller() for offer in offers]
                for offer in offered:
                    self._add(found, offer, name, hook)
            except Exception as error:
                self._report(name, hook, error)
        return dict(sorted(found.items()))

    def load(self, hook: str, name: str) -> Any:
        """Import the object that is offered under `name`.

        Raises:
            PluginError: no plugin offers it, or its import fails.
        """
        offers = self.offers(hook)
        if name not in offers:
            raise PluginError(
                f"expected {one_of(offers, name) if offers else 'a plugin that offers one'}",
                field=hook.removeprefix("onvm_"),
                value=name,
            )
        return offers[name].load()

    def _add(self, found: dict[str, Offer], offer: Offer, plugin: str, hook: str) -> None:
        wanted = CliCommand if hook == _COMMANDS else Offer
        if not isinstance(offer, wanted):
            raise TypeError(f"expected {wanted.__name__} objects, got {offer!r}")
        fault = offer_fault(offer.name, offer.summary)
        if fault:
            self._note(PluginProblem(plugin, hook, fault))
        elif offer.name in found:
            self._note(PluginProblem(plugin, hook, f"{offer.name!r} is offered already"))
        else:
            found[offer.name] = replace(offer, plugin=plugin, hook=hook)

    def _report(self, plugin: str, hook: str, error: Exception) -> None:
        self._note(PluginProblem(plugin, hook, f"{type(error).__name__}: {error}"))

    def _note(self, problem: PluginProblem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def load_plugins() -> PluginManager:
    """Register the built-ins, then all installed plugins."""
    manager = PluginManager()
    manager.register(builtins, _BUILTINS)
    manager.load_entry_points(importlib_metadata.entry_points(group=GROUP))
    return manager


def _distribution(entry_point: importlib_metadata.EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "?"


def _sort_key(entry_point: importlib_metadata.EntryPoint) -> tuple[str, str]:
    return _distribution(entry_point), entry_point.name
