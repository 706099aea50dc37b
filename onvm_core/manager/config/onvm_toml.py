"""``onvm.toml``: the configuration of a manager.

    [manager]              placement, limits, cpu_quota
    [dataplane]            workers, cpus, buffers, buffer_size, ring_length, idle, flows, …
    [ports.NAME]           uri, direction, classifier, classifier_options, addresses, vlans, mac,
                           slow_path
    [nfs.NAME]             plugin, instances, launcher, affinity, fragments, config (a file or a
                           table); one instance without configuration is implied for an
                           installed NF that a chain names
    [launchers.NAME]       options of a launcher
    [[fused]]              nfs, instances, launcher, fuse: NFs that share one process
    [chains.NAME]          in, out, services, bidirectional, track_flows, on_failure, match
    [gateway]              ports, services, settings of the router: see ``gateway``
    [scale.SERVICE], [exporters.NAME], [faults]: see ``sections``

Everything is checked before the first change is made. A mistake is reported in one line: file,
field, value and the expected value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from onvm_core.launch.launcher import DEFAULT_LAUNCHER, Launchers
from onvm_core.launch.limits import LimitMode
from onvm_core.manager.config.chains import ChainConfig, PortConfig, check_chains
from onvm_core.manager.config.gateway import (
    GATEWAY,
    Gateway,
    check_routes,
    check_slow_paths,
    read_gateway,
)
from onvm_core.manager.config.links import read_links
from onvm_core.manager.config.sections import (
    ExporterConfig,
    FaultsConfig,
    ScaleConfig,
    check_scale,
    nearest,
)
from onvm_core.manager.placement.policy import DEFAULT_POLICY
from onvm_core.manager.ports import Direction, PortKind, parse_uri
from onvm_core.manager.startup.environment import DataplaneConfig, check_dataplane
from onvm_core.plugins import NfPackage, NfStatus, Offer, find
from onvm_sdk.errors import ConfigError
from onvm_sdk.limits import STAGES_MAX
from onvm_sdk.manifest import NF_NAME_LETTERS, read_config
from onvm_sdk.settings import explain
from onvm_sdk.spelling import one_of

__all__ = ["ChainConfig", "Config", "NfConfig", "NfGroup", "load_config", "parse_config"]

NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NF_NAME_LETTERS - 1}}}")
NAME_HELP = (
    f"expected a name of 1 to {NF_NAME_LETTERS} letters, digits, '_', '.' or '-', "
    "a letter or digit first"
)

Instances = Annotated[int, msgspec.Meta(ge=1, le=64)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file."""


class ManagerConfig(_Table, frozen=True):
    """``[manager]``."""

    placement: str = DEFAULT_POLICY
    """The policy that chooses the CPUs of NFs."""
    limits: Literal["available", "required", "off"] = "available"
    """The strictness with which NFs are kept within their CPUs and memory: as far as the host
    allows it, required, or off."""
    cpu_quota: bool = False
    """True if an NF gets no more CPU time than the ``cores`` of its manifest."""


class NfConfig(_Table, frozen=True):
    """``[nfs.NAME]``."""

    plugin: str = ""
    """Name of an installed NF; by default the name of the table."""
    instances: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    """0: start none now; the settings are for instances that are started later."""
    config: str | dict[str, Any] = {}
    """Its configuration: a table, or a file by its path from the folder of this one."""
    launcher: str = ""
    """The launcher that starts it; empty: ``process``."""
    affinity: Literal["flow", "source", "destination"] | None = None
    """The key by which flows are shared among its instances; None: that of its manifest."""
    fragments: Literal["", "pass", "virtual", "reassemble"] = ""
    """The form in which it gets datagrams in fragments; empty: that of its manifest."""


class FusedConfig(_Table, frozen=True):
    """``[[fused]]``: NFs that run in one process, in this order."""

    nfs: Annotated[list[str], msgspec.Meta(min_length=1, max_length=STAGES_MAX)]
    """Names of tables ``[nfs.NAME]`` or of installed NFs."""
    instances: Instances = 1
    """Processes that are started."""
    launcher: str = ""
    """The launcher that starts them; empty: ``process``."""
    fuse: Literal["always", "auto"] = "always"
    """auto: fused while cores are short, and as long as one core is enough."""


class Config(_Table, frozen=True):
    """The whole file."""

    manager: ManagerConfig = ManagerConfig()
    dataplane: DataplaneConfig = DataplaneConfig()
    ports: dict[str, PortConfig] = {}
    launchers: dict[str, dict[str, Any]] = {}
    """Options of launchers, by their names."""
    nfs: dict[str, NfConfig] = {}
    fused: list[FusedConfig] = []
    chains: dict[str, ChainConfig] = {}
    gateway: dict[str, Any] | None = None
    """None once its chains are among `chains`."""
    scale: dict[str, ScaleConfig] = {}
    exporters: dict[str, ExporterConfig] = {}
    faults: FaultsConfig = FaultsConfig()

    def make_launchers(self, offers: Mapping[str, Offer] | None = None) -> Launchers:
        """The launchers on offer (None: those of installed plugins), with the file's options."""
        return Launchers(
            offers,
            limits=LimitMode(self.manager.limits),
            with_quota=self.manager.cpu_quota,
            options=self.launchers,
        )

    def direction(self, port: str) -> Direction:
        """The way a port is used."""
        explicit = self.ports[port].direction
        if explicit is not None:
            return explicit
        is_near = any(chain.near == port for chain in self.chains.values())
        is_far = any(chain.far == port for chain in self.chains.values())
        return "in" if is_near and not is_far else "out" if is_far and not is_near else "both"

    @property
    def port_uses(self) -> dict[str, tuple[str, Direction]]:
        """URIs of the ports and the way each is used, by their fields."""
        return {
            f"ports.{name}.uri": (port.uri, self.direction(name))
            for name, port in self.ports.items()
        }

    @property
    def port_uris(self) -> dict[str, str]:
        """URIs of the ports, by their fields."""
        return {f"ports.{name}.uri": port.uri for name, port in self.ports.items()}

    @property
    def port_pairs(self) -> list[tuple[str, str]]:
        """Fields of the URIs of ports between which chains go."""
        return [
            (f"ports.{chain.near}.uri", f"ports.{chain.far}.uri") for chain in self.chains.values()
        ]

    def ports_of(self, services: Collection[str]) -> list[str]:
        """Names of ports whose packets some of these services get."""
        chains = [chain for chain in self.chains.values() if {*chain.services} & {*services}]
        return list(dict.fromkeys(port for chain in chains for port in (chain.near, chain.far)))

    def groups(self) -> list[NfGroup]:
        """The NF hosts to start, one for each instance."""
        fused = {name for group in self.fused for name in group.nfs}
        sets: list[tuple[tuple[str, ...], NfConfig | FusedConfig, str]]
        sets = [((name,), nf, f"nfs.{name}") for name, nf in self.nfs.items() if name not in fused]
        sets += [
            (tuple(group.nfs), group, f"fused[{number}]") for number, group in enumerate(self.fused)
        ]
        return [
            NfGroup(
                names,
                tuple(f"{name}-{number}" for name in names),
                table.launcher or DEFAULT_LAUNCHER,
                field,
                isinstance(table, FusedConfig) and table.fuse == "auto",
            )
            for names, table, field in sets
            for number in range(1, table.instances + 1)
        ]


class NfGroup(msgspec.Struct, frozen=True):
    """NFs of one process.

    Attributes:
        names: names of the NFs in the file.
        instances: names of their instances.
        launcher: the launcher that starts it.
        field: the table of the file that asks for it.
        is_auto: True if they share it only while that is better.
    """

    names: tuple[str, ...]
    instances: tuple[str, ...]
    launcher: str
    field: str
    is_auto: bool = False

    def separate(self) -> list[NfGroup]:
        """The same NFs, each in its own process."""
        return [
            NfGroup((name,), (instance,), self.launcher, self.field)
            for name, instance in zip(self.names, self.instances, strict=True)
        ]


def load_config(
    path: Path,
    kinds: Mapping[str, PortKind],
    packages: Sequence[NfPackage],
    launchers: Collection[str] = (DEFAULT_LAUNCHER,),
    policies: Collection[str] = (DEFAULT_POLICY,),
) -> Config:
    """Read and check a file.

    Args:
        kinds: port kinds by scheme.
        packages: installed NFs.
        launchers: names of the launchers on offer.
        policies: names of the placement policies on offer.

    Raises:
        ConfigError: the file has a mistake.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}", file=path
        ) from None
    return parse_config(data, path, kinds, packages, launchers, policies)


def parse_config(
    data: bytes,
    path: Path,
    kinds: Mapping[str, PortKind],
    packages: Sequence[NfPackage],
    launchers: Collection[str] = (DEFAULT_LAUNCHER,),
    policies: Collection[str] = (DEFAULT_POLICY,),
) -> Config:
    """Like `load_config`, for the text of the file at `path`."""
    try:
        tree = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"expected UTF-8 text (line {line})", file=path) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML: {_one_line(error)}", file=path) from None
    except RecursionError:
        raise ConfigError("expected TOML with fewer levels", file=path) from None
    _check_keys(tree, path)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise _wrong(error, tree, path) from None
    config = _with_gateway(config, path, packages)
    config = _with_implied(config, packages)
    _cross_check(config, path, kinds, packages)
    _check_launchers(config, path, launchers)
    if config.manager.placement not in policies:
        raise ConfigError(
            f"expected {one_of(policies, config.manager.placement)}",
            file=path,
            field="manager.placement",
            value=config.manager.placement,
        )
    return config


def _with_gateway(config: Config, path: Path, packages: Sequence[NfPackage]) -> Config:
    """Write ``[gateway]`` out as chains and the configuration of the router."""
    links = read_links(config.ports, path)
    if config.gateway is None:
        check_slow_paths(None, config.ports, path)
        return config
    known = {package.name for package in packages} | {package.service for package in packages}
    services = sorted({name for name in {*known, *config.nfs} if name})
    gateway = read_gateway(config.gateway, path, config.ports, config.chains, services)
    check_slow_paths(gateway, config.ports, path)
    check_routes(gateway, links, path)
    router = config.nfs.get(gateway.router, NfConfig())
    if router.config and gateway.settings:
        raise ConfigError(
            f"expected none: [nfs.{gateway.router}] has the settings of the router",
            file=path,
            field=f"{GATEWAY}.{next(iter(gateway.settings))}",
        )
    _check_settings(gateway, path, packages, router.plugin or gateway.router)
    if gateway.settings:
        router = msgspec.structs.replace(router, config=gateway.settings)
    return msgspec.structs.replace(
        config,
        gateway=None,
        ports={**config.ports, **gateway.host_ports(config.ports)},
        chains={**gateway.chains(config.ports), **config.chains},
        nfs={**config.nfs, gateway.router: router},
    )


def _check_settings(
    gateway: Gateway, path: Path, packages: Sequence[NfPackage], plugin: str
) -> None:
    manifest = next((one.manifest for one in packages if one.name == plugin), None)
    if manifest is None or not gateway.settings:
        return
    try:
        read_config(manifest, gateway.settings)
    except ConfigError as error:
        raise ConfigError(
            error.expected, file=path, field=f"{GATEWAY}.{error.field}", value=error.value
        ) from None


def _with_implied(config: Config, packages: Sequence[NfPackage]) -> Config:
    """Add one instance of an installed NF for each service of a chain that no table provides."""
    by_name = {package.name: package for package in packages}
    provided = {nf.plugin or name for name, nf in config.nfs.items()}
    provided |= {by_name[name].service or name for name in provided & by_name.keys()}
    wanted = [name for chain in config.chains.values() for name in chain.services]
    wanted += [name for group in config.fused for name in group.nfs]
    implied = {
        name: NfConfig()
        for name in wanted
        if name in by_name and name not in provided and name not in config.nfs
    }
    return msgspec.structs.replace(config, nfs={**config.nfs, **implied})


# ---- fields ----


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


_NAMED: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("ports", PortConfig),
    ("nfs", NfConfig),
    ("chains", ChainConfig),
    ("scale", ScaleConfig),
    ("exporters", ExporterConfig),
)
"""Sections that have a table for each name."""


def _check_keys(tree: Mapping[str, Any], path: Path) -> None:
    _known(tree, Config, "", path)
    _known(tree.get("manager"), ManagerConfig, "manager", path)
    _known(tree.get("dataplane"), DataplaneConfig, "dataplane", path)
    _known(tree.get("faults"), FaultsConfig, "faults", path)
    for section, kind in _NAMED:
        tables = tree.get(section)
        if isinstance(tables, dict):
            for name, table in tables.items():
                if not NAME.fullmatch(name):
                    raise ConfigError(NAME_HELP, file=path, field=section, value=name)
                _known(table, kind, f"{section}.{name}", path)
    groups = tree.get("fused")
    for number, group in enumerate(groups if isinstance(groups, list) else ()):
        _known(group, FusedConfig, f"fused[{number}]", path)


def _known(table: object, kind: type[msgspec.Struct], field: str, path: Path) -> None:
    if not isinstance(table, dict):
        return  # it has the wrong type, which its conversion reports
    names = kind.__struct_encode_fields__
    for key in table:
        if key not in names:
            raise ConfigError(
                nearest(key, names),
                file=path,
                field=f"{field}.{key}" if field else key,
            )


def _wrong(error: msgspec.ValidationError, tree: Any, path: Path) -> ConfigError:
    what, _, place = _one_line(error).partition(" - at `")
    steps = _steps(tree, place.rstrip("`"), what)
    expected, named = explain(error, Config)
    steps += _split(named)[len(_split(place.rstrip("`").removeprefix("$"))) :]
    field = ".".join(str(step) for step in steps).replace(".[", "[")
    value: Any = tree
    for step in steps:
        key = int(step[1:-1]) if step.startswith("[") else step
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
            break
    if isinstance(value, dict):
        value = None
    return ConfigError(expected, file=path, field=field or None, value=value)


def _steps(tree: Any, place: str, what: str) -> list[str]:
    """Turn msgspec's place (``$.ports[...].uri``) into steps with the real keys.

    msgspec does not name the key of a dict or the element. The first one that gives the same error
    is taken.
    """
    wanted = place
    for section, kind in _NAMED:
        if not wanted.startswith(f"$.{section}[...]"):
            continue
        for name, table in tree[section].items():
            try:
                msgspec.convert(table, kind)
            except msgspec.ValidationError as error:
                if _one_line(error).partition(" - at `")[0] == what:
                    rest = wanted.removeprefix(f"$.{section}[...]")
                    return [section, name, *_split(rest)]
    return _split(wanted.removeprefix("$"))


def _split(place: str) -> list[str]:
    return [step for step in re.findall(r"\[\d+\]|[^.\[\]]+", place) if step]


# ---- consistency ----


def _cross_check(
    config: Config, path: Path, kinds: Mapping[str, PortKind], packages: Sequence[NfPackage]
) -> None:
    check_dataplane(config.dataplane, path)
    for name, port in config.ports.items():
        field = f"ports.{name}.uri"
        uri = parse_uri(port.uri, file=str(path), field=field)
        if uri.scheme not in kinds:
            raise ConfigError(nearest(uri.scheme, kinds), file=path, field=field, value=uri.scheme)
    services = _check_nfs(config, path, packages)
    installed = {package.name for package in packages if package.status is NfStatus.OK}
    check_chains(config.chains, path, config.ports, services, installed)
    by_name = {package.name: package.service or package.name for package in packages}
    fused = [
        [by_name[config.nfs[name].plugin or name] for name in group.nfs] for group in config.fused
    ]
    check_scale(config.scale, path, services, fused)


def _check_nfs(config: Config, path: Path, packages: Sequence[NfPackage]) -> set[str]:
    services = set()
    affinities: dict[str, tuple[str, str | None]] = {}
    for name, nf in config.nfs.items():
        field = f"nfs.{name}"
        plugin = nf.plugin or name
        try:
            package = find(plugin, packages)
        except ConfigError as error:
            raise ConfigError(
                error.expected, file=path, field=f"{field}.plugin", value=plugin
            ) from None
        assert package.manifest is not None and package.service is not None
        services.add(package.service)
        other = affinities.setdefault(package.service, (name, nf.affinity))
        if other[1] != nf.affinity:
            raise ConfigError(
                f"expected {other[1] or 'none'}, as in nfs.{other[0]}: both are instances "
                f"of service {package.service}",
                file=path,
                field=f"{field}.affinity",
                value=nf.affinity,
            )
        file: Path | None = None
        source: Any = nf.config
        if isinstance(nf.config, str):
            source = file = path.parent / nf.config
            if not file.is_file():
                raise ConfigError(
                    "expected a file that exists",
                    file=path,
                    field=f"{field}.config",
                    value=nf.config,
                )
        try:
            read_config(package.manifest, source)
        except ConfigError as error:
            place = f"{field}.config" + (f".{error.field}" if error.field else "")
            raise ConfigError(
                error.expected,
                file=file or path,
                field=error.field if file else place,
                value=error.value,
            ) from None
    _check_fused(config, path)
    return services


def _check_fused(config: Config, path: Path) -> None:
    seen: set[str] = set()
    for number, group in enumerate(config.fused):
        field = f"fused[{number}].nfs"
        plugins: set[str] = set()
        if group.fuse == "auto" and group.instances != 1:
            raise ConfigError(
                "expected 1: NFs that are fused or not, as is better, begin with one instance",
                file=path,
                field=f"fused[{number}].instances",
                value=group.instances,
            )
        for name in group.nfs:
            if name not in config.nfs:
                raise ConfigError(nearest(name, config.nfs), file=path, field=field, value=name)
            if name in seen:
                raise ConfigError(
                    "expected an NF that is fused only once", file=path, field=field, value=name
                )
            if config.nfs[name].instances != 1:
                raise ConfigError(
                    f"expected none: it is fused, set fused[{number}].instances instead",
                    file=path,
                    field=f"nfs.{name}.instances",
                    value=config.nfs[name].instances,
                )
            plugin = config.nfs[name].plugin or name
            if plugin in plugins:
                raise ConfigError(
                    f"expected each plugin once in a process, {plugin!r} is there already",
                    file=path,
                    field=field,
                    value=name,
                )
            plugins.add(plugin)
            seen.add(name)


def _check_launchers(config: Config, path: Path, launchers: Collection[str]) -> None:
    for number, group in enumerate(config.fused):
        for name in group.nfs:
            if config.nfs[name].launcher:
                raise ConfigError(
                    f"expected none: it is fused, set fused[{number}].launcher instead",
                    file=path,
                    field=f"nfs.{name}.launcher",
                    value=config.nfs[name].launcher,
                )
    for name in config.launchers:
        if name not in launchers:
            raise ConfigError(
                f"expected {one_of(launchers, name)}", file=path, field="launchers", value=name
            )
    for one in config.groups():
        if one.launcher not in launchers:
            raise ConfigError(
                f"expected {one_of(launchers, one.launcher)}",
                file=path,
                field=f"{one.field}.launcher",
                value=one.launcher,
            )
