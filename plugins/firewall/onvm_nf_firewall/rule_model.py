# SPDX-License-Identifier: Apache-2.0
"""Rules and chains in plain Python, walked as they are written.

Readings chosen:

* The first rule with a verdict decides: accept, drop or reject. log and count go on, a jump walks
  through its chain and comes back, a goto comes back to where its own chain was called from.
* A later fragment shows no ports, flags, messages or states, and no limit counts it: rules that
  ask for these, and chains reached through them, do not decide about it. They are a chance: if one
  would accept, the default does not drop the fragment.
* A limit is a token bucket. It is asked last, so it counts only what matches otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onvm_nf_firewall.config import FirewallConfig
from onvm_nf_firewall.names import CASTS
from onvm_nf_firewall.ranges import Ranges
from onvm_nf_firewall.rules import Limit, Rule
from onvm_sdk.headers import ICMP, ICMPV6, L4, Headers

__all__ = ["Decision", "Question", "RuleModel"]


@dataclass(frozen=True)
class Question:
    """A packet as rules see it.

    Args:
        port: name of the port it came in by; "" if it is not known.
        state: bit of the packet's state; 0 if rules need none.
    """

    frame: bytes
    headers: Headers
    reverse: bool
    port: str
    state: int
    now_ns: int

    @property
    def is_later_fragment(self) -> bool:
        """Whether it has no transport header."""
        return self.headers.l4 is L4.FRAGMENT


@dataclass(frozen=True)
class _Way:
    """What the jumps on the way to a chain say.

    Args:
        is_open: one asks for what a later fragment does not show.
        takes_invalid: one names the state invalid.
    """

    is_open: bool = False
    takes_invalid: bool = False


@dataclass
class Decision:
    """What the rules say.

    Args:
        rule: the rule with the verdict; None: none has one.
        has_chance: a rule would accept the later fragment, if its ports fit.
        takes_invalid: it or a jump on the way to it names the state invalid.
        passed: rules that matched without a verdict, in order.
    """

    rule: Rule | None = None
    has_chance: bool = False
    takes_invalid: bool = False
    passed: list[Rule] = field(default_factory=list)


def _is_in(ranges: Ranges | None, number: int) -> bool:
    return ranges is None or any(first <= number <= last for first, last in ranges)


def cast_of(frame: bytes) -> int:
    """Return how many the frame is for, as a bit of `CASTS`."""
    if frame[:6] == b"\xff" * 6:
        return CASTS["broadcast"]
    return CASTS["multicast" if frame[0] & 1 else "unicast"]


def _vlan(h: Headers) -> int:
    return h.vlans[0] & 0xFFF if h.vlans else 0


def obstacle(rule: Rule, q: Question, egress: Mapping[str, str]) -> str:
    """Return the field for which a rule does not match, "" if it does; limits are not asked."""
    h = q.headers
    is_known = not q.is_later_fragment
    is_icmp = (h.version, h.protocol) in ((4, ICMP), (6, ICMPV6)) and h.l4 is L4.OK
    exit_port = egress.get(q.port)
    checks = {
        "from": rule.side in ("any", "far" if q.reverse else "near"),
        "src": rule.src is None or h.src in rule.src,
        "dst": rule.dst is None or h.dst in rule.dst,
        "protocol": rule.protocols is None or h.protocol in rule.protocols,
        "icmp version": rule.holds_for(h.version),
        "in": rule.inputs is None or (q.port != "" and q.port in rule.inputs),
        "out": rule.outputs is None or (exit_port is not None and exit_port in rule.outputs),
        "vlan": rule.vlans is None or _is_in(rule.vlans, _vlan(h)),
        "mac": rule.macs is None or q.frame[6:12] in rule.macs,
        "cast": rule.casts is None or bool(rule.casts & cast_of(q.frame)),
        "fragment": rule.fragment is None or rule.fragment == q.is_later_fragment,
    }
    if is_known:
        checks |= {
            "src_ports": _is_in(rule.src_ports, h.src_port),
            "dst_ports": _is_in(rule.dst_ports, h.dst_port),
            "flags": rule.flags is None or h.tcp_flags in rule.flags,
            "icmp": rule.icmp is None
            or (is_icmp and rule.icmp.has(h.version, *q.frame[h.l4_offset : h.l4_offset + 2])),
            "state": rule.states is None or bool(rule.states & q.state),
        }
    return next((name for name, fits in checks.items() if not fits), "")


class RuleModel:
    """`decide` walks through the rules.

    `seen` has each rule that the last packet has met, with the field for which it did not match, or
    "" if it did.
    """

    def __init__(self, config: FirewallConfig) -> None:
        self.config = config
        self.hits = [0] * len(list(config.all_rules()))
        self.buckets: dict[tuple[object, ...], tuple[int, int]] = {}
        self.seen: list[tuple[Rule, str]] = []
        self.by_end: dict[tuple[object, ...], tuple[int, int]] = {}

    def decide(self, q: Question) -> Decision:
        """Find the rule that decides about a packet."""
        decision, self.seen = Decision(), []
        self._walk(self.config.rules, q, _Way(), decision)
        if decision.rule is not None:
            self.hits[decision.rule.number] += 1
            decision.has_chance = False
        return decision

    def _walk(self, rules: Sequence[Rule], q: Question, way: _Way, decision: Decision) -> bool:
        """Walk through a chain.

        Returns:
            Whether to go on behind the jump that led here.
        """
        for rule in rules:
            missed = obstacle(rule, q, self.config.settings.egress)
            self.seen.append((rule, missed))
            if missed:
                continue
            is_left_open = q.is_later_fragment and (way.is_open or rule.names_transport)
            takes_invalid = way.takes_invalid or rule.takes_invalid
            if rule.limit is not None and not is_left_open and not self._has_token(rule, q):
                self.seen[-1] = (rule, "limit")
                continue
            if rule.action in ("jump", "goto"):
                if not is_left_open:
                    decision.passed.append(rule)
                    if rule.limit is not None:
                        self.hits[rule.number] += 1
                chain = self.config.chains[rule.chain]
                if not self._walk(chain, q, _Way(is_left_open, takes_invalid), decision):
                    return False
                if rule.action == "goto" and not is_left_open:
                    return True
            elif is_left_open:
                decision.has_chance |= rule.accepts
            elif rule.action == "return":
                self.hits[rule.number] += 1
                decision.passed.append(rule)
                return True
            elif rule.action in ("log", "count"):
                self.hits[rule.number] += 1
                decision.passed.append(rule)
            else:
                decision.rule, decision.takes_invalid = rule, takes_invalid
                return False
        return True

    def _has_token(self, rule: Rule, q: Question) -> bool:
        """Take a token, if there is one; say whether the rule matches."""
        limit = rule.limit
        assert limit is not None
        if limit.per == "rule":
            found, self.buckets[rule.number,] = self._take(
                limit, self.buckets.get((rule.number,)), q.now_ns
            )
            return found != limit.above
        address = q.headers.src if limit.per == "source" else q.headers.dst
        bits = min(limit.prefixes[q.headers.version == 6], len(address) * 8)
        masked = int.from_bytes(address, "big") >> (len(address) * 8 - bits)
        key = (rule.number, q.headers.version, masked)
        old = self.by_end.pop(key, None)
        if old is None and len(self.by_end) >= self.config.settings.max_limited:
            del self.by_end[next(iter(self.by_end))]
        found, self.by_end[key] = self._take(limit, old, q.now_ns)
        return found != limit.above

    @staticmethod
    def _take(
        limit: Limit, old: tuple[int, int] | None, now_ns: int
    ) -> tuple[bool, tuple[int, int]]:
        saved, seen_ns = old or (limit.cap_ns, now_ns)
        saved = min(limit.cap_ns, saved + now_ns - seen_ns)
        if saved < limit.cost_ns:
            return False, (saved, now_ns)
        return True, (saved - limit.cost_ns, now_ns)
