"""Offers, which hooks return: each has a name, a summary, and an object or its place."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from onvm_core.plugins.contracts import fault_of
from onvm_sdk.errors import OnvmError, PluginError

__all__ = ["CliCommand", "Offer"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One addition of a plugin.

    Args:
        name: what users write to get it; unique within its hook.
        summary: one line for lists and help.
        target: ``module:attribute``, or the object itself.
        plugin: name of the plugin that offers it; the plugin manager knows it.
        hook: the hook through which it is offered; the plugin manager knows it.
    """

    name: str
    summary: str
    target: Any
    plugin: str = ""
    hook: str = ""

    def load(self) -> Any:
        """Import the target, and check that it meets the hook's expectations.

        Raises:
            PluginError: it cannot be imported, or is something else.
        """
        found = self._import() if isinstance(self.target, str) else self.target
        fault = fault_of(self.hook, found)
        if fault:
            raise PluginError(fault, field=self.place)
        return found

    def make(self, *arguments: Any) -> Any:
        """Load the target, a class, and make an object of it.

        Raises:
            OnvmError: raised by the class, for wrong options.
            PluginError: it cannot be loaded, or raised something else.
        """
        kind = self.load()
        try:
            return kind(*arguments)
        except OnvmError:
            raise
        except Exception as error:  # the plugin boundary: a foreign class may raise anything
            raise PluginError(
                f"expected to be created without an error ({type(error).__name__}: {error})",
                field=self.place,
            ) from error

    @property
    def place(self) -> str:
        """Plugin, hook and name, for messages."""
        plugin = f"plugin {self.plugin}" if self.plugin else ""
        return ": ".join(filter(None, (plugin, self.hook, self.name)))

    def _import(self) -> Any:
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except Exception as error:  # the plugin boundary: a foreign module may raise anything
            raise PluginError(
                f"expected {self.target} to be importable ({type(error).__name__}: {error})",
                field=self.place,
            ) from error
        return found


@dataclass(frozen=True, slots=True)
class CliCommand(Offer):
    """A command; its target is a function with typer parameters or a `typer.Typer`.

    Args:
        panel: heading under which help lists it.
    """

    panel: str = "Commands"
