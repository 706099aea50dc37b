# SPDX-License-Identifier: Apache-2.0
"""The firewall's configuration as a checked value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from onvm_nf_firewall.addresses import read_sets
from onvm_nf_firewall.rules import Rule, RuleText, read_rule
from onvm_sdk import settings
from onvm_sdk.errors import ConfigError

__all__ = ["FirewallConfig", "FirewallText", "load"]

_Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]
_Verdict = Literal["pass", "drop", "default"]
_PerSecond = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class FirewallText(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration file; the defaults are those of ``onvm-nf.toml``."""

    default: Literal["accept", "drop"] = "accept"
    rules: list[RuleText] = []
    chains: dict[str, list[RuleText]] = {}
    sets: dict[str, list[str]] = {}
    set_files: list[str] = []
    egress: dict[str, str] = {}
    stateful: bool = True
    midstream: bool = False
    liberal: bool = False
    verify_checksums: bool = False
    fragments: Literal["pass", "drop"] = "drop"
    ip_options: Literal["pass", "drop"] = "drop"
    source_route: Literal["pass", "drop"] = "drop"
    arp: _Verdict = "pass"
    ndp: Literal["pass", "rules"] = "pass"
    vlan_stack: _Verdict = "drop"
    llc: _Verdict = "default"
    pppoe: _Verdict = "default"
    mpls: _Verdict = "default"
    non_ip: _Verdict = "default"
    reject_rate: _PerSecond = 1000
    answer_behind: bool = False
    log_rate: _PerSecond = 100
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 262_144
    max_per_source: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    max_limited: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 65_536
    tcp_established_s: _Seconds = 7440
    tcp_transitory_s: _Seconds = 240
    tcp_syn_s: _Seconds = 30
    tcp_syn_received_s: _Seconds = 60
    tcp_closing_s: _Seconds = 30
    udp_s: _Seconds = 300
    udp_unreplied_s: _Seconds = 30
    icmp_s: _Seconds = 60
    other_s: _Seconds = 600


class FirewallConfig(msgspec.Struct, frozen=True):
    """The checked configuration of the firewall.

    Args:
        rules: those that every packet meets.
        chains: rules that others jump to, by the name of the chain.
    """

    settings: FirewallText
    rules: tuple[Rule, ...] = ()
    chains: Mapping[str, tuple[Rule, ...]] = {}

    def all_rules(self) -> Iterator[Rule]:
        """All rules, by their numbers."""
        yield from self.rules
        for chain in self.chains.values():
            yield from chain

    def port_names(self) -> Iterator[tuple[str, str]]:
        """The names of ports in the file, each with its place."""
        for key, value in self.settings.egress.items():
            yield f"egress.{key}", key
            yield f"egress.{key}", value
        for rule in self.all_rules():
            for field, names in (("in", rule.inputs), ("out", rule.outputs)):
                for name in names.names if names is not None else ():
                    yield f"{rule.name}.{field}", name

    @property
    def is_tracking(self) -> bool:
        """Whether connections are kept: only where a packet of one could be dropped."""
        needs = self.settings.default == "drop" or any(
            rule.action in ("drop", "reject") or rule.states is not None
            for rule in self.all_rules()
        )
        return self.settings.stateful and needs


def _check_states(config: FirewallConfig, file: str | None) -> None:
    for rule in config.all_rules():
        if rule.states is not None and not config.settings.stateful:
            raise ConfigError(
                "expected no state, or stateful = true", file=file, field=f"{rule.name}.state"
            )


def _check_loops(chains: Mapping[str, tuple[Rule, ...]], file: str | None) -> None:
    """Refuse chains that lead to themselves."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            loop = " > ".join((*way[way.index(name) :], name))
            raise ConfigError("expected no loop", file=file, field=f"chains.{name}", value=loop)
        if name not in done:
            for rule in chains[name]:
                if rule.chain:
                    visit(rule.chain, (*way, name))
            done.add(name)

    for name in chains:
        visit(name, ())


def load(data: Mapping[str, Any], *, file: str | None = None) -> FirewallConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: naming file, field, value and what was expected.
    """
    text = settings.convert(data, FirewallText, file=file)
    sets = read_sets(text.sets, text.set_files, file)
    names, number = tuple(text.chains), 0

    def read(rules: list[RuleText], place: str) -> tuple[Rule, ...]:
        nonlocal number
        made = tuple(
            read_rule(rule, f"{place}[{i}]", number + i, sets, names, file)
            for i, rule in enumerate(rules)
        )
        number += len(made)
        return made

    rules = read(text.rules, "rules")
    chains = {name: read(chain, f"chains.{name}") for name, chain in text.chains.items()}
    config = FirewallConfig(text, rules, chains)
    _check_states(config, file)
    _check_loops(chains, file)
    return config
