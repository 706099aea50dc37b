"""The hooks: additions that a package can make to onvm besides network functions.

A package names a module or object in the entry-point group ``onvm.plugins`` and writes functions
of the names below, marked with `hookimpl`::

    from onvm_core.plugins import Offer, hookimpl

    @hookimpl
    def onvm_placement_policies():
        return [Offer("spread", "one NUMA node after the other", "my_package.spread:Spread")]

Every hook returns offers: a name that users write in configuration, a line that explains it, and
the place of the object. The object is imported only when it is used by name, so a costly or broken
plugin does not affect the others.

Threads: hooks are called once, by the thread that starts the process.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from onvm_core.plugins.offer import CliCommand, Offer

__all__ = ["PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "onvm"

hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)


class HookSpecs:
    """Every hook there is. ``docs/plugins.md`` has one section for each."""

    @_hookspec
    def onvm_classifiers(self) -> Sequence[Offer]:
        """Lead the new flows of a port to one of several chains.

        Target: a `onvm_core.manager.chains.classifier.Classifier`, made with the
        ``classifier_options`` of the port. Its ``rules(port, chains)`` is called when chains
        change; the data plane applies the rules once to each new flow.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_placement_policies(self) -> Sequence[Offer]:
        """Choose the CPUs of a new NF host.

        Target: a class made without arguments, an
        `onvm_core.manager.placement.policy.PlacementPolicy`: ``place(need, resources)`` gets the
        needs of the NF host (`Need`) and the topology with all placed NF hosts (`FreeResources`),
        and returns a `Decision` or a `Refusal`, each with its reason.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_scaling_policies(self) -> Sequence[Offer]:
        """Decide how many instances a service should have.

        Target: a class, made with the `ScaleSettings` of the service's section; it raises
        ConfigError for ``options`` that it does not know. ``decide(history)`` gets the
        `ServiceLoad` of each of the last readings, oldest first, and returns a `Wish`: the wanted
        number of instances and the reason in one line. It keeps no state between two calls. It is
        called after each reading (20 to 50 times a second), but not while instances start nor in
        the cool-down; the wanted number is kept within min and max. See
        ``onvm_core.scaling.policy``.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_host_policies(self) -> Sequence[Offer]:
        """Choose the host of a cluster that gets a new instance.

        Target: a class made without arguments, an
        `onvm_core.cluster.scaling.host_policy.HostPolicy`: ``order(request, candidates)`` gets a
        `RequestNode` and a `Candidate` for each host that can serve it, by name, and returns names,
        best first. Each agent calls it by itself, so equal arguments must give equal results, and
        it must be installed on all hosts; a host without it serves no request that names it.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_launchers(self) -> Sequence[Offer]:
        """Start NF host processes: plain, in a sandbox, in a container.

        Target: a class made without arguments, an `onvm_core.launch.launcher.Launcher`:
        ``obstacle()`` tells why it cannot work on this host, ``launch(spec)`` starts an NF host
        and returns a handle on it, ``adopt(spec, process)`` takes over an NF host.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_stats_exporters(self) -> Sequence[Offer]:
        """Hand counters to another system.

        Target: a class and context manager, made with the ``options`` of its section and the folder
        from which relative paths in them count; it raises ConfigError for mistakes there.
        ``export(snapshot)`` is called once per interval with a `Snapshot`: time, manager and all
        counters. It may be slow: it has its own thread, and only the last four waiting snapshots
        are kept. That thread enters and leaves the context. An exporter that raises is reported
        once and gets no more snapshots. See ``onvm_core.export``.
        """
        raise NotImplementedError

    @_hookspec
    def onvm_port_kinds(self) -> Sequence[Offer]:
        """Turn a port URI into a DPDK device.

        Name: the URI's scheme. Target: an `onvm_core.plugins.PortKind`: the options of such URIs,
        and a function that gets the parsed URI (`PortRequest`) and returns the device's arguments
        for the EAL and the abilities of the port (`Device`).
        """
        raise NotImplementedError

    @_hookspec
    def onvm_cli_commands(self) -> Sequence[CliCommand]:
        """Add commands to ``onvm``.

        Target: a function with typer parameters, or a `typer.Typer` for a group. It is imported
        only when the command is used.
        """
        raise NotImplementedError
