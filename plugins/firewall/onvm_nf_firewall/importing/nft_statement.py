# SPDX-License-Identifier: Apache-2.0
"""One rule of nft: matches and statements, word by word."""

from __future__ import annotations

from typing import Any

from onvm_nf_firewall.importing.imported import Imported, InexpressibleError, Rule, merge_lists
from onvm_nf_firewall.names import FLAGS

__all__ = ["Statement"]

_VERDICTS = ("accept", "drop", "return")
_STATES = ("new", "established", "related", "invalid")
_PROTOCOLS = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}
_PORTED = ("tcp", "udp", "sctp", "dccp", "udplite")
_REJECTS = {
    "port-unreachable": "port", "host-unreachable": "host", "net-unreachable": "net",
    "admin-prohibited": "admin", "no-route": "net", "addr-unreachable": "host",
    "host-prohibited": "admin", "net-prohibited": "admin", "prot-unreachable": "port",
}  # fmt: skip
_ICMP_NAMES = {
    "nd-neighbor-solicit": "neighbour-solicitation",
    "nd-neighbor-advert": "neighbour-advertisement",
    "nd-router-solicit": "133",
    "nd-router-advert": "134",
    "nd-redirect": "137",
    "mld-listener-query": "listener-query",
    "mld-listener-report": "listener-report",
    "mld-listener-done": "listener-reduction",
    "mld-listener-reduction": "listener-reduction",
    "mld2-listener-report": "listener2-report",
    "ind-neighbor-solicit": "141",
    "ind-neighbor-advert": "142",
    "parameter-problem": "parameter-problem",
}


class Statement:
    """A rule while it is read.

    Args:
        tokens: its words; texts in quotation marks keep them.
        family: that of its table.
    """

    def __init__(self, made: Imported, number: int, tokens: list[str], family: str) -> None:
        self.made, self.number, self.tokens = made, number, tokens
        self.rule: Rule = {}
        self.logs: list[Rule] = []
        self.cases: list[tuple[str, str, str]] = []
        self.action = "count"
        if family == "ip":
            self.family = "0.0.0.0/0"
        else:
            self.family = "::/0" if family == "ip6" else ""

    def read(self) -> list[Rule]:
        """Return the rules that say the same."""
        while self.tokens:
            self._one(self.tokens.pop(0))
        self._end()
        if not self.cases:
            return [*self.logs, {"action": self.action, **self.rule}]
        made = [*self.logs]
        for key, value, verdict in self.cases:
            kind, _, chain = verdict.partition(" ")
            rule: Rule = {"action": kind, **self.rule, key: value}
            made.append({**rule, "chain": chain} if chain else rule)
        return made

    def _end(self) -> None:
        """A table of one family says so for rules that name no address."""
        if self.family and not {"src", "dst", "icmp"} & set(self.rule):
            self.rule["src"] = self.family
            for log in self.logs:
                log.setdefault("src", self.family)

    def _next(self) -> str:
        if not self.tokens:
            raise InexpressibleError("it ends too early")
        return self.tokens.pop(0).strip('"')

    def _one(self, word: str) -> None:
        if word in _VERDICTS:
            self.action = word
        elif word in ("jump", "goto"):
            self.action, self.rule["chain"] = word, self._next()
        elif word == "reject":
            self._reject()
        elif word == "counter":
            if self.tokens[:1] == ["packets"]:
                del self.tokens[:4]
            elif self.tokens[:1] == ["name"]:
                del self.tokens[:2]
        elif word == "comment":
            self.rule["comment"] = self._next()
        elif word == "log":
            self._log()
        elif word == "limit":
            self._limit()
        elif word in ("iifname", "iif", "oifname", "oif"):
            key = "in" if word.startswith("i") else "out"
            self._set(key, *self._values())
        elif word in ("ip", "ip6", "ether", "vlan", "ct", "meta", "th", "icmp", "icmpv6"):
            self._match(word, self._next())
        elif word in _PORTED:
            self._protocol([word], False)
            self._match(word, self._next())
        else:
            raise InexpressibleError(word)

    def _values(self) -> tuple[list[str], bool]:
        """Take a value, a list in braces or a set, and whether it is negated."""
        word, is_negated = self._next(), False
        if word in ("!=", "=="):
            is_negated, word = word == "!=", self._next()
        if word == "vmap":
            raise InexpressibleError("vmap")
        if word != "{":
            return self._joined(word), is_negated
        values, entry = [], ""
        while (part := self._next()) != "}":
            if part == ",":
                values.append(entry)
                entry = ""
            else:
                entry = f"{entry} {part}".strip()
        return [*values, entry] if entry else values, is_negated

    def _joined(self, word: str) -> list[str]:
        """Values with commas, as in ``ct state new,established``."""
        values = [word]
        while self.tokens[:1] == [","]:
            self.tokens.pop(0)
            values.append(self._next())
        return values

    def _set(self, key: str, values: list[str], is_negated: bool) -> None:
        if key in self.rule:
            raise InexpressibleError(f"{key} twice")
        self.rule[key] = merge_lists(values, is_negated)

    def _protocol(self, values: list[str], is_negated: bool) -> None:
        names = [_PROTOCOLS.get(value, value) for value in values]
        value = merge_lists(names, is_negated)
        if self.rule.get("protocol", value) != value:
            known = self.rule["protocol"]
            if isinstance(known, str) or is_negated or not set(names) <= set(known):
                raise InexpressibleError("protocol twice")
        self.rule["protocol"] = value

    def _match(self, header: str, name: str) -> None:
        place = f"{header} {name}"
        keys = {
            "ip saddr": "src", "ip6 saddr": "src", "ip daddr": "dst", "ip6 daddr": "dst",
            "th sport": "src_ports", "th dport": "dst_ports", "ether saddr": "mac",
            "vlan id": "vlan", "meta iifname": "in", "meta oifname": "out", "meta iif": "in",
            "meta oif": "out", "meta pkttype": "cast",
        }  # fmt: skip
        keys |= {f"{one} sport": "src_ports" for one in _PORTED}
        keys |= {f"{one} dport": "dst_ports" for one in _PORTED}
        if self.tokens[:1] == ["vmap"]:
            self._cases(place, keys)
        elif place in keys:
            self._set(keys[place], *self._values())
        elif place in ("ip protocol", "ip6 nexthdr", "meta l4proto"):
            self._protocol(*self._values())
        elif place == "ct state":
            self._states(*self._values())
        elif place == "tcp flags":
            self._flags()
        elif place in ("icmp type", "icmpv6 type"):
            self._protocol([header], False)
            values, is_negated = self._values()
            self._set("icmp", [_ICMP_NAMES.get(value, value) for value in values], is_negated)
        elif place in ("icmp code", "icmpv6 code") and isinstance(self.rule.get("icmp"), str):
            values, is_negated = self._values()
            if is_negated or not all(value.isdigit() for value in values):
                raise InexpressibleError(place)
            kind = self.rule["icmp"]
            self.rule["icmp"] = merge_lists([f"{kind}/{value}" for value in values], False)
        elif place in ("meta nfproto", "meta protocol"):
            self._version(self._next())
        else:
            raise InexpressibleError(place)

    def _version(self, name: str) -> None:
        versions = {"ipv4": "0.0.0.0/0", "ip": "0.0.0.0/0", "ipv6": "::/0", "ip6": "::/0"}
        if name not in versions:
            raise InexpressibleError(f"meta protocol {name}")
        self.family = versions[name]

    def _states(self, values: list[str], is_negated: bool) -> None:
        known = [value for value in values if value in _STATES]
        if not known:
            raise InexpressibleError(f"ct state {','.join(values)}")
        if len(known) < len(values):
            self.made.note(self.number, "there is no state untracked")
        self.made.stateful = True
        self._set("state", known, is_negated)

    def _flags(self) -> None:
        """``syn``, ``syn / fin,syn,rst,ack`` or ``& (fin | syn) == syn``."""
        words = []
        while self.tokens and (self.tokens[0] in FLAGS or self.tokens[0] in "&(|)/,==!=0x0"
                               or self.tokens[0].strip("()") in FLAGS):  # fmt: skip
            words.append(self.tokens.pop(0))
        text = " ".join(words).replace("(", " ").replace(")", " ")
        is_negated = "!=" in text
        if text.lstrip().startswith("&"):
            mask, _, flags = text.replace("!=", "==").partition("==")
        else:
            flags, _, mask = text.replace("==", "").replace("!=", "").partition("/")
        named = [",".join(w for w in part.replace(",", " ").replace("|", " ").split() if w in FLAGS)
                 for part in (flags, mask)]  # fmt: skip
        if not named[0] and not named[1]:
            raise InexpressibleError(f"tcp flags {text}")
        if not named[1]:  # any of these flags is set
            self._set("flags", [f"{one}/{one}" for one in named[0].split(",")], is_negated)
        else:
            self._set("flags", [f"{named[0] or 'none'}/{named[1]}"], is_negated)

    def _cases(self, place: str, keys: dict[str, str]) -> None:
        """A verdict for each value: one rule for each."""
        self.tokens.pop(0)
        values, _ = self._values()
        key = keys.get(place, "")
        if place == "ct state":
            key, self.made.stateful = "state", True
        elif place in ("meta l4proto", "ip protocol"):
            key = "protocol"
        for entry in values:
            value, colon, verdict = (part.strip() for part in entry.partition(":"))
            verdict = verdict.strip()
            if key == "state" and value not in _STATES:
                self.made.note(self.number, f"there is no state {value}")
                continue
            if not key or not colon or verdict.split(" ")[0] not in (*_VERDICTS, "jump", "goto"):
                raise InexpressibleError(f"{place} vmap")
            self.cases.append((key, _PROTOCOLS.get(value, value), verdict))

    def _reject(self) -> None:
        self.action, self.rule["reject"] = "reject", "port"
        if self.tokens[:1] != ["with"]:
            return
        words = [self._next() for _ in range(3)]
        if words[1:] == ["tcp", "reset"]:
            self.rule["reject"] = "reset"
            if self.rule.get("protocol") not in (None, "tcp"):
                raise InexpressibleError("reset of other protocols than tcp")
            self.rule["protocol"] = "tcp"
            return
        kind = self._next() if words[2] == "type" else words[2]
        if kind not in _REJECTS:
            raise InexpressibleError(f"reject with {kind}")
        self.rule["reject"] = _REJECTS[kind]
        if kind in ("host-prohibited", "net-prohibited", "prot-unreachable"):
            self.made.note(self.number, f"{kind}: answered as {_REJECTS[kind]}")

    def _log(self) -> None:
        log: Rule = {"action": "log", **self.rule}
        while self.tokens[:1] and self.tokens[0] in ("prefix", "level", "group", "snaplen", "flags",
                                                     "queue-threshold"):  # fmt: skip
            word, value = self._next(), self._next()
            if word == "prefix":
                log["prefix"] = value.strip()
        self.logs.append(log)

    def _limit(self) -> None:
        if self._next() != "rate":
            raise InexpressibleError("a limit by name")
        limit: dict[str, Any] = {"burst": 5}
        word = self._next()
        if word in ("over", "until"):
            if word == "over":
                limit["above"] = True
            word = self._next()
        limit["rate"] = word
        if self.tokens[:1] == ["burst"]:
            self.tokens.pop(0)
            limit["burst"] = int(self._next())
            if self._next() != "packets":
                raise InexpressibleError("a limit in bytes")
        if self.tokens[:1] and self.tokens[0].endswith("bytes/second"):
            raise InexpressibleError("a limit in bytes")
        self.rule["limit"] = limit
