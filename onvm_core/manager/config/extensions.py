"""Makes the objects of plugins that a file names: placement, classifiers, policies, exporters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onvm_core.export.runner import PlannedExporter
from onvm_core.manager.chains.classifier import Classifier
from onvm_core.manager.config.onvm_toml import Config
from onvm_core.manager.config.sections import nearest
from onvm_core.manager.placement.allocator import load_policy
from onvm_core.manager.placement.policy import Balanced, PlacementPolicy
from onvm_core.plugins import PluginManager
from onvm_core.scaling.policy import ScalingPolicy
from onvm_sdk.errors import ConfigError, PluginError

__all__ = ["Extensions", "load_extensions"]


@dataclass(frozen=True, slots=True)
class Extensions:
    """Placement; classifiers by port, policies by service, exporters by name."""

    placement: PlacementPolicy = field(default_factory=Balanced)
    classifiers: dict[str, Classifier] = field(default_factory=dict)
    policies: dict[str, ScalingPolicy] = field(default_factory=dict)
    exporters: dict[str, PlannedExporter] = field(default_factory=dict)


def load_extensions(config: Config, path: Path, plugins: PluginManager) -> Extensions:
    """Make the objects that `config`, read from `path`, names.

    Raises:
        ConfigError: no plugin offers one of them, or one refuses its options.
        PluginError: a plugin cannot be imported.
    """
    made = Extensions(load_policy(config.manager.placement, plugins))
    folder = path.absolute().parent
    for name, port in config.ports.items():
        place = f"ports.{name}"
        kind = _load(plugins, "onvm_classifiers", port.classifier, path, f"{place}.classifier")
        made.classifiers[name] = _make(path, place, kind, port.classifier_options)
    for service, scale in config.scale.items():
        place = f"scale.{service}"
        kind = _load(plugins, "onvm_scaling_policies", scale.policy, path, f"{place}.policy")
        made.policies[service] = _make(path, place, kind, scale.settings())
    for name, exporter in config.exporters.items():
        place = f"exporters.{name}"
        offer = exporter.kind or name
        kind = _load(plugins, "onvm_stats_exporters", offer, path, f"{place}.kind")
        thing = _make(path, place, kind, exporter.options, folder)
        made.exporters[name] = PlannedExporter(offer, exporter.interval_s, thing)
    return made


def _load(plugins: PluginManager, hook: str, name: str, path: Path, place: str) -> Any:
    offers = plugins.offers(hook)
    if name not in offers:
        raise ConfigError(nearest(name, offers), file=path, field=place, value=name)
    return offers[name].load()


def _make(path: Path, place: str, kind: Any, *arguments: Any) -> Any:
    try:
        return kind(*arguments)
    except ConfigError as error:
        where = f"{place}.options" + (f".{error.field}" if error.field else "")
        raise ConfigError(error.expected, file=path, field=where, value=error.value) from None
    except Exception as error:
        raise PluginError(
            f"expected to be created without an error ({type(error).__name__}: {error})",
            field=place,
        ) from error
