"""Plugins: the installed NFs, and the hooks through which packages add behaviour.

An NF is found through the entry-point group ``onvm.nf`` and described by its manifest (`discover`).
Everything else is a hook; the built-ins use the same hooks as third-party packages
(`load_plugins`).
"""

from onvm_core.plugins.discovery import NfPackage, NfStatus, discover, find
from onvm_core.plugins.hookspecs import hookimpl
from onvm_core.plugins.manager import PluginManager, PluginProblem, load_plugins
from onvm_core.plugins.offer import CliCommand, Offer

__all__ = [
    "CliCommand",
    "NfPackage",
    "NfStatus",
    "Offer",
    "PluginManager",
    "PluginProblem",
    "discover",
    "find",
    "hookimpl",
    "load_plugins",
]
