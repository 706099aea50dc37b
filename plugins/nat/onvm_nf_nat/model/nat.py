# SPDX-License-Identifier: Apache-2.0
"""What happens to a packet."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from ipaddress import IPv4Address

from onvm_nf_nat.config import NatConfig
from onvm_nf_nat.model.nat64 import Nat64, is_stand_in
from onvm_nf_nat.model.nptv6 import Nptv6
from onvm_nf_nat.model.one_to_one import OneToOne
from onvm_nf_nat.model.own_error import (
    PORT_UNREACHABLE,
    PROHIBITED,
    TOO_BIG,
    TTL,
    Bucket,
    is_answerable,
    own_error,
)
from onvm_nf_nat.model.reading import (
    ERRORS,
    QUERIES,
    REPLIES,
    Drop,
    datagram,
    embedded,
    identifier,
    is_no_host,
    opens,
    out_key,
    stays_on_link,
    vlans,
)
from onvm_nf_nat.model.table import NS, Table
from onvm_nf_nat.model.writing import error_rewritten, replaced, rewritten, turned, updated
from onvm_sdk.headers import ICMP, L3, L4, TCP, UDP, Headers, checksum, read_headers

__all__ = ["NatModel", "Translated"]

_DATAGRAMS_MAX, _DATAGRAM_NS = 4096, 30 * NS
_UNSOLICITED_MAX, _UNSOLICITED_NS = 1024, 6 * NS


@dataclass(frozen=True)
class Translated:
    """A packet as it leaves; `is_hairpin`: back to where it came from."""

    data: bytes
    is_hairpin: bool = False


class NatModel:
    """`translate` gives a packet as it leaves, or raises `Drop`."""

    def __init__(self, config: NatConfig, key: tuple[int, int] = (0, 0)) -> None:
        self.config = config
        self.is_routed = False
        self.table = Table(config, key)
        self.externals = self.table.externals
        # source, destination, identification, protocol, VLANs, inbound -> ends, end, time
        self.datagrams: dict[tuple[object, ...], tuple[bytes, int, int]] = {}
        self.mtu = self.link_mtu = 0
        self.pairs = OneToOne(config.pairs)
        self.nptv6 = Nptv6(config.nptv6)
        self.nat64 = Nat64(config, config.nat64, self.table) if config.nat64 else None
        if self.nat64:
            self.nat64.identification = key[0] & 0xFFFF
        self.errors = Bucket(config.settings.icmp_errors_per_s)
        self.sent: list[bytes] = []  # errors of its own about others
        self.unsolicited: list[tuple[int, bytes, Headers]] = []  # time, SYN

    def expire(self, now_ns: int) -> None:
        """Forget idle sessions and mappings without any."""
        self.table.expire(now_ns)

    def answer_unsolicited(self, now_ns: int) -> None:
        """RFC 5382 REQ-4: after 6 seconds, unless the other end has opened the connection too."""
        self.expire(now_ns)
        while self.unsolicited and now_ns - self.unsolicited[0][0] >= _UNSOLICITED_NS:
            _, frame, h = self.unsolicited.pop(0)
            if not self._has_session(frame, h):
                cut = frame[: h.l4_offset + 8]
                h.l4_length = 8
                self._send_error(cut, h, h.dst, PORT_UNREACHABLE, now_ns)

    def _has_session(self, frame: bytes, h: Headers) -> bool:
        try:
            _, mapping = self.table.behind(TCP, vlans(frame, h), (h.dst, h.dst_port))
        except Drop:
            return False
        return (h.src, h.src_port) in mapping.sessions

    def _send_error(
        self, frame: bytes, h: Headers, source: bytes, kind: tuple[int, int], now_ns: int
    ) -> None:
        if is_answerable(frame, h) and self.errors.take(now_ns):
            mtu = self.mtu if kind == TOO_BIG else 0
            self.sent.append(turned(own_error(frame, h, source, kind, mtu)))

    def translate(self, frame: bytes, is_reverse: bool, now_ns: int) -> Translated:
        """Handle one packet."""
        self.expire(now_ns)
        h = read_headers(frame)
        translate = self._translate
        if self.nat64 is None:
            return translate(frame, h, is_reverse, now_ns)
        if h.version == 6 and self.nat64.is_outbound(h, is_reverse, self.is_routed):
            translate = self._translate6
        try:
            done = translate(frame, h, is_reverse, now_ns)
            if done.data == frame:
                return done
            return Translated(self._to_host(done.data, now_ns), done.is_hairpin)
        finally:
            self.nat64.settle()

    def _translate6(self, frame: bytes, h: Headers, is_reverse: bool, now_ns: int) -> Translated:
        assert self.nat64 is not None
        frame = self.nat64.out(frame, h, self.is_routed)
        h = read_headers(frame)
        if frame[h.l3_offset + 8] == 0:
            return self._tell_inside(frame, h, TTL, 0, now_ns)
        if self.link_mtu and _length(h) > self.link_mtu:
            return self._tell_inside(frame, h, TOO_BIG, self.link_mtu, now_ns)
        self._check_icmp(frame, h, False)
        return self._pair_hairpinned(self._translated(frame, h, False, now_ns))

    def _to_host(self, frame: bytes, now_ns: int) -> bytes:
        """The frame itself, or that for the host that a stand-in stands for."""
        h = read_headers(frame)
        if self.nat64 is None or h.version != 4 or not is_stand_in(h.dst):
            return frame
        is_error = h.protocol == ICMP and not h.fragment_offset and frame[h.l4_offset] in ERRORS
        longer = 28 if h.is_fragment else 20
        if not self.is_routed and frame[h.l3_offset + 8] <= 1:
            self._tell_sender(frame, h, TTL, now_ns)
            raise Drop("ttl")
        if self.link_mtu and not is_error and _length(h) + longer > self.link_mtu:
            if frame[h.l3_offset + 6] & 0x40:
                self._tell_sender(frame, h, TOO_BIG, now_ns)
            raise Drop("too_big")
        return self.nat64.into(frame, h, self.is_routed)

    def _tell_sender(self, frame: bytes, h: Headers, kind: tuple[int, int], now_ns: int) -> None:
        """As if the stand-in did."""
        may_tell = h.src not in self.externals and is_answerable(frame, h)
        if not may_tell or not self.errors.take(now_ns):
            return
        error = turned(
            own_error(frame, h, h.dst, kind, self.link_mtu - 20 if kind == TOO_BIG else 0)
        )
        with contextlib.suppress(Drop):
            self.sent.append(self._error_out(error, read_headers(error)))

    def _tell_inside(
        self, frame: bytes, h: Headers, kind: tuple[int, int], mtu: int, now_ns: int
    ) -> Translated:
        reason = "ttl" if kind == TTL else "too_big"
        if not is_answerable(frame, h) or not self.errors.take(now_ns):
            raise Drop(reason)
        source = self.table.external_of(vlans(frame, h), h.src)
        error = own_error(frame, h, source, kind, mtu)
        if self.is_routed:
            return Translated(error)
        self.sent.append(self._to_host(turned(error), now_ns))
        raise Drop(reason)

    def _translate(self, frame: bytes, h: Headers, is_reverse: bool, now_ns: int) -> Translated:
        if self.is_routed and self.config.inside and h.version == 4 and h.l3 is L3.OK:
            # A router sends the answer to a hairpinned packet the way back.
            is_own = h.dst in self.externals or h.dst in self.pairs.inside_of
            is_reverse &= not (self._is_inside(h.src) and is_own)
        if h.version == 6 and (found := self.nptv6.translate(frame, h, is_reverse)) is not None:
            return self._sent_inside(found[0]) if found[1] else Translated(found[0])
        if h.version == 4 and h.l3 is L3.OK:
            if is_reverse and h.dst in self.pairs.inside_of:
                self.pairs.check(h)
                return Translated(self.pairs.into(frame, h))
            if not is_reverse and h.src in self.pairs.external_of:
                self.pairs.check(h)
                return self._pair_out(frame, h, now_ns)
        if self._passes(frame, h, is_reverse):
            return Translated(frame)
        self._check(frame, h, is_reverse)
        if self.mtu and frame[h.l3_offset + 6] & 0x40 and _length(h) > self.mtu:  # REQ-13
            if not is_reverse:
                return self._tell_inside(frame, h, TOO_BIG, self.mtu, now_ns)
            self._send_error(frame, h, h.dst, TOO_BIG, now_ns)
            raise Drop("too_big")
        done = self._translated(frame, h, is_reverse, now_ns)
        return done if is_reverse else self._pair_hairpinned(done)

    def _pair_out(self, frame: bytes, h: Headers, now_ns: int) -> Translated:
        frame = self.pairs.out(frame, h)
        if h.dst not in self.externals:
            return self._pair_hairpinned(Translated(frame))
        is_error = h.protocol == ICMP and h.l4 is L4.OK and frame[h.l4_offset] in ERRORS
        if h.is_fragment:
            raise Drop("fragment")
        if h.protocol not in (TCP, UDP, ICMP):
            raise Drop("protocol")
        if h.protocol == ICMP and not is_error:
            raise Drop("no_mapping")
        h = read_headers(frame)
        into = self._error_in(frame, h) if is_error else self._in(frame, h, now_ns)
        return self._sent_inside(into)

    def _pair_hairpinned(self, done: Translated) -> Translated:
        """What goes to the external address of a pair from inside goes back inside."""
        h = read_headers(done.data)
        if done.is_hairpin or h.version != 4 or h.dst not in self.pairs.inside_of:
            return done
        return self._sent_inside(self.pairs.into(done.data, h))

    def _translated(self, frame: bytes, h: Headers, is_reverse: bool, now_ns: int) -> Translated:
        is_hairpin = not is_reverse and h.dst in self.externals
        if h.fragment_offset:
            out = self._fragment(frame, h, is_reverse, now_ns)
            return self._sent_inside(out) if is_hairpin else Translated(out)
        if h.protocol == ICMP and frame[h.l4_offset] in ERRORS:
            if h.more_fragments:
                raise Drop("fragment")
            return self._error(frame, h, is_reverse)
        if is_reverse:
            out = self._in_solicited(frame, h, now_ns)
        else:
            if is_hairpin:
                self._check_hairpin(frame, h)
            opened = self._opened(frame, h, now_ns)
            if opened is None:
                return self._refused(frame, h)
            out = self._in(opened, read_headers(opened), now_ns) if is_hairpin else opened
        if h.more_fragments:
            self._note_fragment(frame, h, out, is_reverse, now_ns)
        return self._sent_inside(out) if is_hairpin else Translated(out)

    def _opened(self, frame: bytes, h: Headers, now_ns: int) -> bytes | None:
        """None: it has no session, and an error about that may be sent (RFC 5508 REQ-8)."""
        try:
            return self._out(frame, h, now_ns)
        except Drop:
            if is_answerable(frame, h) and self.errors.take(now_ns):
                return None
            raise

    def _refused(self, frame: bytes, h: Headers) -> Translated:
        source = self.table.external_of(vlans(frame, h), h.src)
        return self._sent_inside(own_error(frame, h, source, PROHIBITED))

    def _in_solicited(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        try:
            return self._in(frame, h, now_ns)
        except Drop:
            is_syn = h.protocol == TCP and opens(h) and self.errors.per_s
            if is_syn and len(self.unsolicited) < _UNSOLICITED_MAX:
                self.unsolicited.append((now_ns, frame, h))
            raise

    def _sent_inside(self, frame: bytes) -> Translated:
        if self.is_routed:
            return Translated(frame)
        return Translated(turned(frame), is_hairpin=True)

    def _passes(self, frame: bytes, h: Headers, is_reverse: bool) -> bool:
        """Whether it is not the NAT's to translate."""
        if h.l3 is L3.NONIP:
            if len(frame) < 14:
                raise Drop("malformed")
            if not stays_on_link(frame, h):
                raise Drop("not_ip")
            return True
        if h.version == 6:
            return True
        if h.l3 is not L3.OK:
            raise Drop("malformed")
        if not is_reverse:
            return not self._is_inside(h.src)
        if h.dst not in self.externals and self._is_inside(h.dst):
            raise Drop("no_mapping")
        return h.dst not in self.externals

    def _check(self, frame: bytes, h: Headers, is_reverse: bool) -> None:
        """Whether it can be translated."""
        if is_no_host(h.src) or is_no_host(h.dst):
            raise Drop("unroutable")
        if h.more_fragments and not h.fragment_offset and h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("fragment")
        if h.l4 in (L4.SHORT, L4.BAD_HEADER):
            raise Drop("malformed")
        if h.protocol not in (TCP, UDP, ICMP):
            raise Drop("protocol")
        self._check_icmp(frame, h, is_reverse)

    def _check_icmp(self, frame: bytes, h: Headers, is_reverse: bool) -> None:
        if h.protocol != ICMP or h.fragment_offset:
            return
        kind = frame[h.l4_offset]
        if kind not in ERRORS:
            if kind not in (*QUERIES, *REPLIES):
                raise Drop("protocol")
            if kind not in (REPLIES if is_reverse else QUERIES):
                raise Drop("no_mapping")

    def _note_fragment(
        self, frame: bytes, h: Headers, out: bytes, is_reverse: bool, now_ns: int
    ) -> None:
        """Remember what became of a first fragment, for those behind it."""
        key, at = datagram(frame, h, is_reverse), h.l3_offset + 12
        self.datagrams.pop(key, None)
        if len(self.datagrams) == _DATAGRAMS_MAX:
            del self.datagrams[next(iter(self.datagrams))]
        self.datagrams[key] = out[at : at + 8], h.l4_length, now_ns

    def _fragment(self, frame: bytes, h: Headers, is_reverse: bool, now_ns: int) -> bytes:
        ends, end, noted_ns = self.datagrams.get(
            datagram(frame, h, is_reverse), (b"", 0, -_DATAGRAM_NS)
        )
        if now_ns - noted_ns >= _DATAGRAM_NS or h.fragment_offset < end:
            raise Drop("fragment")
        at, ip_sum = h.l3_offset + 12, h.l3_offset + 10
        value = updated(frame[ip_sum : ip_sum + 2], frame[at : at + 8], ends)
        return replaced(replaced(frame, at, ends), ip_sum, value)

    def _error(self, frame: bytes, h: Headers, is_reverse: bool) -> Translated:
        if is_reverse:
            return Translated(self._error_in(frame, h))
        out = self._error_out(frame, h)
        if h.dst not in self.externals:
            return Translated(out)
        return self._sent_inside(self._error_in(out, read_headers(out)))

    def _is_inside(self, address: bytes) -> bool:
        nets = self.config.inside
        return not nets or any(IPv4Address(address) in net for net in nets)

    def _out(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        key, remote = out_key(frame, h), (h.dst, h.dst_port if h.has_ports else 0)
        mapping = self.table.open(key, remote, now_ns)
        self.table.use(mapping.sessions[remote], h, False, now_ns)
        return rewritten(frame, h, src=(mapping.external, mapping.port))

    def _in(self, frame: bytes, h: Headers, now_ns: int) -> bytes:
        port = h.dst_port if h.has_ports else identifier(frame, h)
        key, mapping = self.table.behind(h.protocol, vlans(frame, h), (h.dst, port))
        remote = (h.src, h.src_port if h.has_ports else 0)
        if not self.table.allows(mapping, remote):
            raise Drop("filtered")
        if remote in mapping.sessions:
            self.table.use(mapping.sessions[remote], h, True, now_ns)
        return rewritten(frame, h, dst=key[2:])

    def _check_hairpin(self, frame: bytes, h: Headers) -> None:
        """Whether it will arrive, before anything is opened for it."""
        if h.protocol == ICMP:  # a query has one identifier, that of the end that asks
            raise Drop("no_mapping")
        key = out_key(frame, h)
        _, target = self.table.behind(h.protocol, key[1], (h.dst, h.dst_port))
        own = self.table.mappings.get(key)
        external = own.external if own else self.table.external_of(key[1], h.src)
        if not self.table.allows(target, (external, own.port if own else -1)):
            raise Drop("filtered")

    def _error_in(self, frame: bytes, h: Headers) -> bytes:
        inner = embedded(frame, h)
        if checksum(frame[inner.l3_offset : inner.l4_offset]) != 0:  # RFC 5508 REQ-3a
            raise Drop("malformed")
        if inner.protocol not in (TCP, UDP, ICMP) or inner.src not in self.externals:
            raise Drop("no_mapping")
        end = (inner.src, inner.src_port)
        key, mapping = self.table.behind(inner.protocol, vlans(frame, h), end)
        port = 0 if inner.protocol == ICMP else inner.dst_port
        if (inner.dst, port) not in mapping.sessions:
            raise Drop("no_mapping")
        return error_rewritten(frame, h, inner, src=key[2:])

    def _error_out(self, frame: bytes, h: Headers) -> bytes:
        inner = embedded(frame, h)
        mapping = self.table.mappings.get(
            (inner.protocol, vlans(frame, h), inner.dst, inner.dst_port)
        )
        if mapping is None:
            raise Drop("no_mapping")
        return error_rewritten(frame, h, inner, dst=(mapping.external, mapping.port))


def _length(h: Headers) -> int:
    """Bytes of the IP packet."""
    return h.l4_offset + h.l4_length - h.l3_offset
