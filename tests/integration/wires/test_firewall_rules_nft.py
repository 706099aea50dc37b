# SPDX-License-Identifier: Apache-2.0
"""Random rules in the firewall's language and in nft's: the same packets, equal verdicts.

A packet is the first of its connection. Fragments are left out, because nft puts them together
before it judges; so are limits, because they depend on the clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from firewall_case import PORTS, REJECTED, FirewallCase
from namespaces import missing, namespaces
from nft_box import A6, B6, MARKER_PORT, A, B, Nft, V

from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, tcp, udp

REASON = missing("nft", "sysctl")
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.once]

POLICIES, PACKETS = 60, 40
NEAR, FAR = 0, 1
FEW = ["10.0.1.1", "10.0.2.0/24", "8.8.0.0/16"]
MANY = [f"10.0.{i}.{j}" for i in (1, 2) for j in range(2, 200, 2)]
SETS = f"""
    set few {{ type ipv4_addr; flags interval; elements = {{ {", ".join(FEW)} }} }}
    set many {{ type ipv4_addr; flags interval; elements = {{ {", ".join(MANY)} }} }}
"""
FRAME = f"""
table inet firewall {{
    {SETS}
    chain before {{
        type filter hook prerouting priority -300;
        udp dport {MARKER_PORT} notrack
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        udp dport {MARKER_PORT} accept
        ct state established,related accept
        jump rules
        DEFAULT
    }}
CHAINS
}}
"""
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}


@pytest.fixture(scope="module")
def nft() -> Iterator[Nft]:
    with namespaces(["box"]) as net:
        made = Nft(net, FRAME.replace("CHAINS", "chain rules { }").replace("DEFAULT", ""))
        yield made
        made.close()


def listed(draw: random.Random, values: list[str]) -> tuple[list[str], bool]:
    """Some of the values, and whether they are negated."""
    return draw.sample(values, draw.choice([1, 1, 2])), draw.random() < 0.3


def ours(values: list[str], is_negated: bool) -> list[str]:
    return [f"!{value}" if is_negated else value for value in values]


def theirs(values: list[str], is_negated: bool) -> str:
    return ("!= " if is_negated else "") + "{ " + ", ".join(values) + " }"


def bits(text: str) -> int:
    return sum(FLAGS[name] for name in text.split(",") if name != "none")


class Maker:
    """One random rule in both languages."""

    def __init__(self, draw: random.Random, chains: list[str]) -> None:
        self.draw, self.chains = draw, chains
        self.rule: dict[str, Any] = {}
        self.words: list[str] = []
        self.protocol = ""
        self.version = draw.choice([4, 4, 6])

    def make(self) -> tuple[dict[str, Any], str]:
        draw = self.draw
        self._protocol()
        for part in draw.sample(
            [self._address, self._address, self._ports, self._state, self._in, self._mac], 2
        ):
            part()
        verdicts = ["accept", "accept", "drop", "reject", "count", "return"]
        action = draw.choice(verdicts + ["jump", "goto"] * bool(self.chains))
        self.rule["action"] = action
        if action in ("jump", "goto"):
            self.rule["chain"] = draw.choice(self.chains)
            self.words += [action, self.rule["chain"]]
        else:
            self.words.append("counter" if action == "count" else action)
        return self.rule, " ".join(self.words)

    def _protocol(self) -> None:
        draw = self.draw
        kind = draw.choice(["", "", "tcp", "udp", "icmp", "icmpv6", "tcp,udp", "!tcp", "flags"])
        if kind == "flags":
            mask, value = draw.choice(
                [("fin,syn,rst,ack", "syn"), ("syn,ack", "syn"), ("rst", "rst"), ("ack", "none")]
            )
            negated = draw.random() < 0.3
            self.rule["flags"] = f"{'!' if negated else ''}{value}/{mask}"
            self.words.append(
                f"tcp flags & {bits(mask):#x} {'!=' if negated else '=='} {bits(value):#x}"
            )
            self.protocol = "tcp"
        elif kind in ("icmp", "icmpv6"):
            echo_request, other = (8, 13) if kind == "icmp" else (128, 130)
            number = draw.choice([echo_request, echo_request, other])
            self.rule |= {"protocol": kind, "icmp": number}
            self.words.append(f"{kind} type {number}")
            self.protocol = kind
        elif kind:
            values, negated = kind.removeprefix("!").split(","), kind.startswith("!")
            self.rule["protocol"] = ours(values, negated)
            self.words.append(f"meta l4proto {theirs(values, negated)}")
            self.protocol = kind

    def _address(self) -> None:
        key, word = self.draw.choice([("src", "saddr"), ("dst", "daddr")])
        is_6 = self.version == 6 and self.protocol != "icmp"
        if key in self.rule or self.protocol == "icmpv6":
            return
        if not is_6 and self.draw.random() < 0.3:
            name, negated = self.draw.choice(["few", "many"]), self.draw.random() < 0.3
            self.rule[key] = ours([f"@{name}"], negated)
            if negated:  # of both versions, as nft's sets of one version cannot say
                self.rule[key] = [f"!{one}" for one in (FEW if name == "few" else MANY)]
            self.words.append(f"ip {word} {'!= ' if negated else ''}@{name}")
        elif not is_6:
            values, negated = listed(
                self.draw, ["10.0.1.0/24", A, B, "10.0.2.0-10.0.2.1", "8.0.0.0/7"]
            )
            if len(set(values) & {A, "10.0.1.0/24"}) > 1 or (len(values) > 1 and B in values):
                values = values[:1]  # nft refuses elements that overlap
            self.rule[key] = ours(values, negated)
            self.words.append(f"ip {word} {theirs(values, negated)}")
        else:
            values, negated = listed(self.draw, ["2001:db8:1::/64", f"{B6}/128"])
            self.rule[key] = ours(values, negated)
            self.words.append(f"ip6 {word} {theirs(values, negated)}")

    def _ports(self) -> None:
        if self.protocol not in ("", "tcp", "udp", "tcp,udp"):
            return
        key, word = self.draw.choice([("src_ports", "sport"), ("dst_ports", "dport")])
        values = ["80", "443", "53", "1000-1999"] if word == "dport" else ["10000-20000", "53"]
        chosen, negated = listed(self.draw, values)
        self.rule[key] = ours(chosen, negated)
        if not self.protocol:
            self.words.append("meta l4proto { tcp, udp, sctp, dccp, udplite }")
        self.words.append(f"th {word} {theirs(chosen, negated)}")

    def _state(self) -> None:
        if "state" not in self.rule:
            self.rule["state"] = self.draw.choice(["new", "invalid", "established"])
            self.words.append(f"ct state {self.rule['state']}")

    def _in(self) -> None:
        key, word = self.draw.choice([("in", "iifname"), ("out", "oifname")])
        if key not in self.rule:
            values, negated = listed(self.draw, ["near", "far"])
            self.rule[key] = ours(values, negated)
            names = [f'"{value}"' for value in values]
            self.words.append(f"{word} {theirs(names, negated)}")

    def _mac(self) -> None:
        if "mac" not in self.rule:
            values, negated = listed(self.draw, ["02:00:00:00:00:01", "02:00:00:00:00:09"])
            self.rule["mac"] = ours(values, negated)
            self.words.append(f"ether saddr {theirs(values, negated)}")


def policy(draw: random.Random) -> tuple[dict[str, Any], str]:
    """A configuration, and the rule set that says the same."""
    chains: dict[str, list[dict[str, Any]]] = {}
    texts = []
    for name in ("inner", "outer", "rules"):
        made = [Maker(draw, list(chains)).make() for _ in range(draw.randrange(1, 7))]
        texts.append(f"    chain {name} {{ {'; '.join(text for _, text in made)}; }}")
        chains[name] = [rule for rule, _ in made]
    default = draw.choice(["accept", "drop"])
    config = {
        "default": default,
        # a rule that asks for states: otherwise none are kept where nothing drops
        "rules": [*chains.pop("rules"), {"action": "count", "state": "new"}],
        "chains": chains,
        "sets": {"few": FEW, "many": MANY},
        "egress": {"near": "far", "far": "near"},
    }
    last = f"ct state invalid drop; {default}"
    return config, FRAME.replace("CHAINS", "\n".join(texts)).replace("DEFAULT", last)


TUPLES = iter(range(10_000, 60_000))


def packet(draw: random.Random, reverse: bool) -> bytes:
    """A first packet; its port or identifier is new."""
    number = next(TUPLES)
    if draw.random() < 0.25:
        a, b = (B6, A6) if reverse else (A6, B6)
    elif reverse:
        a, b = draw.choice(["8.8.8.8", B, "9.9.9.9"]), draw.choice([A, V])
    else:
        a, b = draw.choice([A, V, "10.0.1.2"]), draw.choice([B, "8.8.8.8", "9.9.9.9"])
    port = draw.choice([80, 443, 53, 1500, 7])
    match draw.randrange(5):
        case 0 | 1:
            flags = draw.choice([SYN, SYN, SYN, SYN | ACK, ACK, RST, FIN | ACK, 0, SYN | FIN])
            return tcp(a, number, b, port, flags)
        case 2 | 3:
            return udp(a, number, b, port, b"x")
        case _:
            return echo(a, b, number)


def test_random_policies(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PORTS, NEAR, "near")
    monkeypatch.setitem(PORTS, FAR, "far")
    draw, n_passed, n_rejected = random.Random(14), 0, 0
    for _ in range(POLICIES):
        config, ruleset = policy(draw)
        nft.load(ruleset)
        firewall = FirewallCase(**config)
        for _ in range(PACKETS):
            reverse = draw.random() < 0.4
            frame = packet(draw, reverse)
            (said,) = firewall(frame, reverse=reverse, port=FAR if reverse else NEAR)
            decision = firewall.model.decision
            # What fits no connection passes nft by any rule that accepts it, and the firewall only
            # by one that names the state.
            is_accepted = decision is not None and decision.rule is not None
            expected = said is None or (said == "invalid" and is_accepted)
            assert nft(frame, reverse) == expected, (said, frame.hex(), config, ruleset)
            n_passed += said is None
            n_rejected += said == REJECTED
    assert POLICIES * PACKETS * 0.2 < n_passed < POLICIES * PACKETS * 0.8
    assert n_rejected > 50
