# SPDX-License-Identifier: Apache-2.0
"""The output of ``nft list ruleset``: tables of the families ip, ip6 and inet, and bridge.

The rules of the first chain with the hook forward, or of another that is named, become those that
every packet meets. Other chains become chains; those with a hook are not jumped to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from onvm_nf_firewall.importing.imported import Imported, InexpressibleError, Rule
from onvm_nf_firewall.importing.nft_statement import Statement

__all__ = ["read"]

_TOKEN = re.compile(r'"[^"]*"|[{},;]|[^\s{},;"]+')
_FAMILIES = ("ip", "ip6", "inet", "bridge")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines; what a brace leaves open of a set goes on in one line."""
    pending, begin, depth = "", 0, 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if not pending:
            begin = number
        pending = f"{pending} {line}".strip()
        depth = pending.count("{") - pending.count("}")
        is_block = re.match(r"(table|chain|set|map|flowtable|ct|counter|quota|limit)\b", pending)
        if depth > 0 and not is_block:
            continue
        yield begin, pending
        pending = ""
    if pending:
        yield begin, pending


class _Reader:
    """The rule set while it is read."""

    def __init__(self, main: str | None) -> None:
        self.made, self.main = Imported(), main
        self.chains: dict[str, list[Rule]] = {}
        self.rules: list[tuple[int, str, str, str]] = []
        self.family = self.chain = self.set = self.skipped = ""
        self.depth = 0

    def line(self, number: int, text: str) -> None:
        words = text.split()
        if self.skipped:
            self.depth += text.count("{") - text.count("}")
            if self.depth <= 0:
                self.skipped = ""
        elif words[0] == "table":
            self.family = words[1] if words[1] in _FAMILIES else ""
            if not self.family and text.endswith("{"):
                self.skipped, self.depth = "table", 1
                self.made.left_out.append((number, text, "a table of another family"))
        elif words[0] == "chain":
            self.chain = words[1]
            self.chains.setdefault(self.chain, [])
        elif words[0] == "set" and text.endswith("{"):
            self.set = words[1]
            self.made.sets.setdefault(self.set, [])
        elif words[0] in ("map", "flowtable", "counter", "quota", "limit") and text.endswith("{"):
            self.skipped, self.depth = words[0], 1
            self.made.left_out.append((number, text, f"a {words[0]}"))
        elif text == "}":
            self.chain = self.set = ""
        elif self.set:
            self._set_line(number, text)
        elif self.chain:
            self._chain_line(number, text)

    def _set_line(self, number: int, text: str) -> None:
        if not text.startswith("elements"):
            if text.startswith("type") and text.split()[1] not in ("ipv4_addr", "ipv6_addr"):
                self.made.left_out.append((number, text, "a set of other things than addresses"))
            return
        inside = text.partition("{")[2].rpartition("}")[0]
        for entry in filter(None, (one.strip().split(" ")[0] for one in inside.split(","))):
            self.made.sets[self.set].append(entry)

    def _chain_line(self, number: int, text: str) -> None:
        if not text.startswith("type "):
            self.made.total += 1
            self.rules.append((number, text, self.chain, self.family))
            return
        hook = re.search(r"hook (\w+)", text)
        is_main = hook is not None and hook[1] == "forward" and self.main is None
        if is_main or self.main == self.chain:
            self.main = self.chain
            policy = re.search(r"policy (\w+)", text)
            self.made.default = "drop" if policy and policy[1] == "drop" else "accept"

    def finish(self) -> Imported:
        """Read the rules, now that all chains are known."""
        made = self.made
        for number, text, chain, family in self.rules:
            tokens = [
                token.strip('"') if token[0] != '"' else token for token in _TOKEN.findall(text)
            ]
            try:
                found = Statement(made, number, tokens, family).read()
                unknown = [r["chain"] for r in found if r.get("chain", chain) not in self.chains]
                if unknown:
                    raise InexpressibleError(f"chain {unknown[0]}")
                made.check(found, self.chains)
                self.chains[chain] += found
            except (InexpressibleError, ValueError) as error:
                made.left_out.append((number, text, str(error)))
        made.rules = self.chains.pop(self.main or "", [])
        made.chains = self.chains
        if any("out" in r for listed in (made.rules, *self.chains.values()) for r in listed):
            made.note(
                0, "rules name where packets leave: say it in [egress], by the port they come in"
            )
        return made


def read(text: str, main: str | None = None) -> Imported:
    """Read a rule set; `main` names the chain that every packet meets."""
    reader = _Reader(main)
    for number, line in _lines(text):
        reader.line(number, line)
    return reader.finish()
