# SPDX-License-Identifier: Apache-2.0
"""The format of iptables-save and ip6tables-save: the table filter.

The rules of one chain of the kernel, FORWARD unless another is named, become those that every
packet meets. All other chains become chains.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_network

from onvm_nf_firewall.importing.imported import Imported, InexpressibleError, Rule, merge_lists
from onvm_nf_firewall.importing.iptables_options import (
    IGNORED,
    IGNORED_FLAGS,
    LIMITS,
    PROTOCOLS,
    REJECTS,
    TARGETS_WITHOUT,
    limit_of,
    recent_limit,
)

__all__ = ["read"]

_BUILT_IN = ("INPUT", "FORWARD", "OUTPUT")
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return", "REJECT": "reject"}
_LOGS = ("LOG", "NFLOG", "ULOG")
_STATES = {"NEW", "ESTABLISHED", "RELATED", "INVALID"}
_PORTS = {
    "--sport": "src_ports", "--source-port": "src_ports", "--sports": "src_ports",
    "--source-ports": "src_ports", "--dport": "dst_ports", "--destination-port": "dst_ports",
    "--dports": "dst_ports", "--destination-ports": "dst_ports", "--ctorigsrcport": "src_ports",
    "--ctorigdstport": "dst_ports",
}  # fmt: skip
_INTERFACES = {
    "-i": "in", "--in-interface": "in", "--physdev-in": "in",
    "-o": "out", "--out-interface": "out", "--physdev-out": "out",
}  # fmt: skip
_ADDRESSES = {
    "-s": "src", "--source": "src", "--src": "src", "--src-range": "src", "--ctorigsrc": "src",
    "-d": "dst", "--destination": "dst", "--dst": "dst", "--dst-range": "dst",
    "--ctorigdst": "dst",
}  # fmt: skip


def _address(text: str) -> str:
    if "-" in text:
        return text
    if "/" not in text:
        return text
    return str(ip_network(text, strict=False))


class _Line:
    """One rule while it is read, word by word."""

    def __init__(self, made: Imported, number: int, words: list[str]) -> None:
        self.made, self.number, self.words = made, number, words
        self.rule: Rule = {}
        self.limits: dict[str, str] = {}
        self.recent: dict[str, str] = {}
        self.either_ports = ""
        self.target = ""
        self.is_goto = False
        self.is_ipv6 = any(":" in word and word.count(":") > 1 and "/" in word for word in words)

    def word(self) -> str:
        """Take the next word."""
        if not self.words:
            raise InexpressibleError("it ends too early")
        return self.words.pop(0)

    def value(self, is_negated: bool) -> tuple[str, bool]:
        """Take a value, which may have a ! in front as older versions write it."""
        text = self.word()
        if text == "!":
            return self.word(), not is_negated
        return text, is_negated

    def read(self) -> list[Rule]:
        """Return the rules that say the same."""
        is_negated = False
        while self.words:
            option = self.word()
            if option == "!":
                is_negated = True
                continue
            self._option(option, is_negated)
            is_negated = False
        self._finish_limits()
        rule = {"action": self._action(), **self.rule}
        if rule["action"] in ("jump", "goto"):
            rule["chain"] = self.target
        if not self.either_ports:
            return [rule]
        return [{**rule, key: self.either_ports} for key in ("src_ports", "dst_ports")]

    def _option(self, option: str, is_negated: bool) -> None:
        rule = self.rule
        if option in ("-m", "--match"):
            self._module(self.word())
        elif option in ("-j", "--jump", "-g", "--goto"):
            self.target, self.is_goto = self.word(), option in ("-g", "--goto")
        elif option in _ADDRESSES:
            text, negated = self.value(is_negated)
            self._set(_ADDRESSES[option], [_address(one) for one in text.split(",")], negated)
        elif option in _INTERFACES:
            text, negated = self.value(is_negated)
            name = f"{text[:-1]}*" if text.endswith("+") else text
            self._set(_INTERFACES[option], [name], negated)
        elif option in ("-p", "--protocol", "--ctproto"):
            self._protocol(*self.value(is_negated))
        elif option in _PORTS:
            text, negated = self.value(is_negated)
            self._set(_PORTS[option], [text.replace(":", "-", text.count(":"))], negated)
        elif option in ("--ports", "--port"):
            if is_negated:
                raise InexpressibleError("! --ports")
            self.either_ports = self.word().replace(":", "-")
        elif option in ("-f", "--fragment"):
            rule["fragment"] = not is_negated
        elif option == "--comment":
            rule["comment"] = self.word()
        elif option in LIMITS:
            self.limits[option] = self.word()
        else:
            self._rare_option(option, is_negated)

    def _rare_option(self, option: str, is_negated: bool) -> None:
        if option == "--tcp-flags":
            mask, is_negated = self.value(is_negated)
            flags = self.word()
            self._set("flags", [f"{flags}/{mask}".lower()], is_negated)
        elif option == "--syn":
            self._set("flags", ["syn/fin,syn,rst,ack"], is_negated)
        elif option in ("--icmp-type", "--icmpv6-type"):
            text, negated = self.value(is_negated)
            if text not in ("any", "255"):
                self._set("icmp", [text], negated)
        elif option in ("--state", "--ctstate"):
            self._states(*self.value(is_negated))
        elif option == "--mac-source":
            text, negated = self.value(is_negated)
            self._set("mac", [text.lower()], negated)
        elif option == "--pkt-type":
            self._set("cast", [self.word()], is_negated)
        elif option in ("--dst-type", "--src-type"):
            self._address_type(option, self.word(), is_negated)
        elif option == "--match-set":
            self._match_set(self.word(), self.word(), is_negated)
        elif option in ("--set", "--update", "--rcheck", "--seconds", "--hitcount", "--remove"):
            takes = option in ("--seconds", "--hitcount")
            self.recent[option] = self.word() if takes else ""
        elif option == "--reject-with":
            self._reject(self.word())
        elif option in ("--log-prefix", "--nflog-prefix", "--ulog-prefix"):
            self.rule["prefix"] = self.word().strip()
        elif option in IGNORED:
            self.word()
        elif option not in IGNORED_FLAGS:
            raise InexpressibleError(option)

    def _module(self, name: str) -> None:
        known = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "state",
                 "conntrack", "multiport", "limit", "hashlimit", "recent", "comment", "mac",
                 "iprange", "pkttype", "addrtype", "physdev", "set")  # fmt: skip
        if name not in known:
            raise InexpressibleError(f"-m {name}")

    def _set(self, key: str, values: list[str], is_negated: bool) -> None:
        if key in self.rule:
            raise InexpressibleError(f"{key} twice")
        if is_negated and any("," in value for value in values) and key != "flags":
            values = [part for value in values for part in value.split(",")]
        self.rule[key] = merge_lists(values, is_negated)

    def _protocol(self, text: str, is_negated: bool) -> None:
        name = PROTOCOLS.get(text.lower(), text.lower())
        if name in ("all", "0") and not is_negated:
            return
        value = f"!{name}" if is_negated else name
        if self.rule.get("protocol", value) != value:
            raise InexpressibleError("protocol twice")
        self.rule["protocol"] = value

    def _states(self, text: str, is_negated: bool) -> None:
        states = text.split(",")
        known = [state.lower() for state in states if state in _STATES]
        if not known:
            raise InexpressibleError(f"only the states {text}")
        if len(known) < len(states):
            self.made.note(self.number, "there is no state UNTRACKED, SNAT or DNAT")
        self.made.stateful = True
        self._set("state", known, is_negated)

    def _address_type(self, option: str, kind: str, is_negated: bool) -> None:
        key = "dst" if option == "--dst-type" else "src"
        if kind == "MULTICAST":
            self._set(key, ["ff00::/8" if self.is_ipv6 else "224.0.0.0/4"], is_negated)
        elif kind == "BROADCAST" and key == "dst":
            self.made.note(self.number, "addrtype BROADCAST: frames to all stand for it")
            if self.rule.get("cast") != "broadcast":
                self._set("cast", ["broadcast"], is_negated)
        else:
            raise InexpressibleError(f"addrtype {kind}")

    def _match_set(self, name: str, ends: str, is_negated: bool) -> None:
        if ends not in ("src", "dst"):
            raise InexpressibleError(f"a set of {ends}")
        self.made.sets.setdefault(name, [])
        self.made.note(0, f"set {name}: fill in its addresses, which are not in the rules")
        self._set(ends, [f"@{name}"], is_negated)

    def _reject(self, kind: str) -> None:
        if kind not in REJECTS:
            raise InexpressibleError(f"--reject-with {kind}")
        self.rule["reject"], is_same = REJECTS[kind]
        if not is_same:
            self.made.note(self.number, f"{kind}: answered as {self.rule['reject']}")

    def _finish_limits(self) -> None:
        if self.recent:
            approximation = recent_limit(self.recent)
            if approximation is not None:
                self.made.note(self.number, "recent: a limit for each source stands for it")
                self.rule["limit"] = approximation
        if self.limits:
            if "limit" in self.rule:
                raise InexpressibleError("two limits")
            self.rule["limit"] = limit_of(self.limits, self.rule)

    def _action(self) -> str:
        if not self.target:
            return "count"
        if self.target in _LOGS:
            return "log"
        if self.target == "REJECT":
            self.rule.setdefault("reject", "port")
        if self.target in _VERDICTS:
            return _VERDICTS[self.target]
        if self.target in TARGETS_WITHOUT:
            raise InexpressibleError(f"-j {self.target}")
        return "goto" if self.is_goto else "jump"


def read(text: str, main: str = "FORWARD") -> Imported:
    """Read a dump; `main` is the chain of the kernel whose rules every packet meets."""
    made, table = Imported(), "filter"
    chains: dict[str, list[Rule]] = {}
    rules: list[tuple[int, str, list[str]]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":") and table == "filter":
            name, policy = line[1:].split()[:2]
            chains.setdefault(name, [])
            if name == main:
                made.default = "drop" if policy == "DROP" else "accept"
        elif line.startswith(("-A ", "[")) and " -A " in f" {line}":
            if table != "filter":
                made.left_out.append((number, line, f"table {table}"))
                continue
            made.total += 1
            rules.append((number, line, _words(line)))
    for number, line, words in rules:
        chain = chains.setdefault(words.pop(0), [])
        try:
            found = _Line(made, number, words).read()
            unknown = [r["chain"] for r in found if r.get("chain") and r["chain"] not in chains]
            if unknown:
                raise InexpressibleError(f"-j {unknown[0]}")
            made.check(found, [one["chain"] for one in found if "chain" in one])
            chain += found
        except (InexpressibleError, ValueError) as error:
            made.left_out.append((number, line, str(error)))
    made.rules = chains.pop(main, [])
    made.chains = chains
    if any("out" in rule for listed in (made.rules, *chains.values()) for rule in listed):
        made.note(0, "rules name where packets leave: say it in [egress], by the port they come in")
    return made


def _words(line: str) -> list[str]:
    words = shlex.split(line)
    return words[words.index("-A") + 1 :]
