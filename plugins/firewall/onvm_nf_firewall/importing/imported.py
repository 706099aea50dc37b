# SPDX-License-Identifier: Apache-2.0
"""What an importer has found, and how it is written as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onvm_nf_firewall.config import load
from onvm_sdk.errors import ConfigError

__all__ = ["Imported", "InexpressibleError", "merge_lists"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")

Rule = dict[str, Any]


class InexpressibleError(Exception):
    """A line asks for what the rules of the firewall cannot say."""


@dataclass
class Imported:
    """Rules as a configuration has them, and the lines that left something behind.

    Args:
        total: lines that are rules.
        left_out: by the number of the line: its text, and what could not be expressed.
        notes: by the number of the line: what means almost the same; 0: the whole.
    """

    default: str = "accept"
    stateful: bool = False
    rules: list[Rule] = field(default_factory=list)
    chains: dict[str, list[Rule]] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    total: int = 0
    left_out: list[tuple[int, str, str]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def note(self, line: int, text: str) -> None:
        """Say it once for each line."""
        if (line, text) not in self.notes:
            self.notes.append((line, text))

    def config(self) -> dict[str, Any]:
        """The content of the configuration."""
        made: dict[str, Any] = {"default": self.default, "stateful": self.stateful}
        if self.sets:
            made["sets"] = self.sets
        made["rules"] = self.rules
        if self.chains:
            made["chains"] = self.chains
        return made

    def toml(self) -> Iterator[str]:
        """The lines of the configuration file."""
        yield f"default = {_value(self.default)}"
        yield f"stateful = {_value(self.stateful)}"
        if not self.rules:
            yield "rules = []"
        if self.sets:
            yield from ("", "[sets]")
            yield from (f"{_key(name)} = {_value(entries)}" for name, entries in self.sets.items())
        empty = [name for name, rules in self.chains.items() if not rules]
        if empty:
            yield from ("", "[chains]")
            yield from (f"{_key(name)} = []" for name in empty)
        for place, rules in (("rules", self.rules), *_places(self.chains)):
            for rule in rules:
                yield from ("", f"[[{place}]]")
                yield from (f"{_key(name)} = {_value(value)}" for name, value in rule.items())

    def check(self, rules: list[Rule], chains: Iterable[str]) -> None:
        """Refuse rules that the configuration would refuse.

        Raises:
            InexpressibleError: with what the configuration expects.
        """
        try:
            load({"rules": rules, "sets": self.sets, "chains": {name: [] for name in chains}})
        except ConfigError as error:
            raise InexpressibleError(str(error).partition("].")[2] or str(error)) from None


def _places(chains: Mapping[str, list[Rule]]) -> list[tuple[str, list[Rule]]]:
    return [(f"chains.{_key(name)}", rules) for name, rules in chains.items()]


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items())
        return f"{{ {inside} }}"
    return json.dumps(value, ensure_ascii=True)


def merge_lists(values: list[str], is_negated: bool) -> str | list[str]:
    """Return a value of a rule: alone or as a list, each with ! if it is negated."""
    made = [f"!{value}" if is_negated else value for value in values]
    return made[0] if len(made) == 1 else made
