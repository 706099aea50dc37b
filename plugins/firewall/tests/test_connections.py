# SPDX-License-Identifier: Apache-2.0
"""Connections: the states and windows of TCP, ICMP, lifetimes, and tables that fill."""

from __future__ import annotations

import pytest
from firewall_case import NS, WEB, A, B, FirewallCase, handshake
from onvm_nf_firewall.kernel import expire, save

from onvm_sdk import Verdict
from onvm_sdk.errors import ConfigError
from onvm_sdk.testing import Runner
from onvm_sdk.testing.frames import ACK, FIN, RST, SYN, echo, icmp_error, ip, tcp, udp
from onvm_sdk.testing.kernel import MERGED, PARTIAL

V = "10.0.0.99"
A6, B6 = "2001:db8::1", "2001:db8::2"
PSH, URG = 8, 32


def here(flags: int = ACK, payload: bytes = b"", *, seq: int = 101, ack: int = 201) -> bytes:
    return tcp(A, 9, B, 80, flags, payload, seq=seq, ack=ack)


def there(flags: int = ACK, payload: bytes = b"", *, seq: int = 201, ack: int = 101) -> bytes:
    return tcp(B, 80, A, 9, flags, payload, seq=seq, ack=ack)


def opened(**config: object) -> FirewallCase:
    firewall = FirewallCase(**{**WEB, **config})
    assert firewall(*handshake()) == [None] * 3
    return firewall


# -- the first segment


@pytest.mark.parametrize(
    "flags",
    [0, FIN, FIN | PSH | URG, FIN | SYN, SYN | RST, SYN | ACK, RST, RST | ACK, ACK, FIN | ACK, 63],
)
def test_connection_begins_with_a_syn(flags: int) -> None:
    firewall = FirewallCase(**WEB)
    assert firewall(tcp(A, 9, B, 80, flags)) == ["invalid"]
    assert firewall(there()) == ["default"]


def test_connection_may_begin_in_midstream_where_that_is_allowed() -> None:
    firewall = FirewallCase(**WEB, midstream=True)
    assert firewall(here(SYN | ACK), here(RST), here(0)) == ["invalid"] * 3
    assert firewall(here(ACK), there(ACK, b"x")) == [None, None]
    assert firewall(there(ACK, b"x"), t=7000) == [None], "both ends were seen"


def test_flags_that_no_sender_sets_are_invalid_inside_a_connection() -> None:
    firewall = opened()
    bad = [0, FIN, FIN | PSH | URG, FIN | SYN, SYN | RST, FIN | RST]
    assert firewall(*[here(flags) for flags in bad]) == ["invalid"] * len(bad)
    assert firewall(here(ACK | PSH | 0xC0, b"x")) == [None]


# -- states


def test_syn_and_its_answer_are_not_established() -> None:
    firewall = FirewallCase(**WEB)
    firewall(*handshake()[:2])
    firewall.idle(1, 62)
    assert firewall(there(ACK, b"x"), t=62) == ["default"]


def test_third_segment_must_acknowledge_the_answer() -> None:
    firewall = FirewallCase(**WEB)
    syn, synack, ack = handshake()
    assert firewall(syn, synack, here(ack=5000), here(ack=198)) == [None, None] + ["invalid"] * 2
    assert firewall(ack, t=2) == [None]
    assert firewall(there(ACK, b"x"), t=1000) == [None]


def test_answer_must_acknowledge_the_syn() -> None:
    firewall = FirewallCase(**WEB)
    syn, synack, ack = handshake()
    forged = tcp(B, 80, A, 9, SYN | ACK, seq=7, ack=4711)
    assert firewall(syn, forged, synack, ack) == [None, "invalid", None, None]


@pytest.mark.parametrize(
    ("segments", "lives_s"),
    [
        ((), 7440),
        ((here(FIN | ACK),), 240),
        ((here(FIN | ACK), there(FIN | ACK, ack=102)), 30),
        ((there(RST),), 30),
    ],
)
def test_idle_times(segments: tuple[bytes, ...], lives_s: int) -> None:
    """RFC 5382 REQ-5; short ones for what is over."""
    for t, passes in ((lives_s, True), (lives_s + 1, False)):
        firewall = opened()
        assert firewall(*segments) == [None] * len(segments)
        assert (firewall(there(ACK), t=t) == [None]) == passes


def test_both_ends_may_open_at_once() -> None:
    """RFC 9293 section 3.5."""
    firewall = FirewallCase(**WEB)
    ours, theirs = tcp(A, 9, B, 80, SYN, seq=100), tcp(B, 80, A, 9, SYN, seq=200)
    assert firewall(ours, theirs) == [None, None]
    assert firewall(here(SYN | ACK, seq=100), there(SYN | ACK, seq=200)) == [None, None]
    assert firewall(here(ACK, b"x"), there(ACK, b"y", ack=102)) == [None, None]
    assert firewall(there(ACK), t=1000) == [None]


def test_answer_of_a_host_that_knows_an_older_connection_passes() -> None:
    """RFC 5961 section 4: it is challenged, and the client resets it."""
    firewall = FirewallCase(**WEB)
    syn = handshake()[0]
    challenge = there(ACK, seq=70_000, ack=90_000)
    assert firewall(syn, challenge, here(RST, seq=90_000), *handshake()) == [None] * 6
    assert firewall(there(ACK, b"x", seq=70_000)) == ["invalid"]


# -- resets and SYN that a stranger sends (RFC 5961, RFC 7857 section 2.2)


def test_blind_reset_and_syn_change_nothing() -> None:
    firewall = opened()
    assert firewall(there(RST, seq=200), there(RST, seq=90_000)) == ["invalid"] * 2
    assert firewall(there(RST, seq=300)) == [None], "its receiver challenges it"
    assert firewall(there(SYN, seq=1), here(SYN, seq=5)) == ["invalid", None]
    assert firewall(there(ACK, b"x"), here(ACK, b"y", ack=202), t=7000) == [None, None]


def test_exact_reset_ends_the_connection() -> None:
    firewall = opened()
    assert firewall(there(ACK, b"abc"), there(RST, seq=204)) == [None, None]
    assert firewall(here(SYN, seq=7_000_000)) == [None], "the same ends begin again"
    answer = tcp(B, 80, A, 9, SYN | ACK, seq=9, ack=7_000_001)
    assert firewall(answer, tcp(A, 9, B, 80, ACK, seq=7_000_001, ack=10)) == [None, None]


def test_reset_of_a_receiver_that_has_not_got_everything() -> None:
    firewall = opened()
    assert firewall(there(ACK, b"abc"), there(RST, seq=201)) == [None, None]
    assert firewall(there(ACK, b"abc"), t=60) == ["default"]


def test_syn_of_the_peer_begins_no_connection_where_one_was() -> None:
    firewall = opened()
    assert firewall(there(RST, seq=201), there(SYN, seq=1)) == [None, "default"]
    assert firewall(here(ACK)) == [None], "the old entry stays for its time"


def test_refused_connection() -> None:
    firewall = FirewallCase(**WEB)
    syn = handshake()[0]
    blind = [there(RST, seq=0, ack=0), there(RST | ACK, seq=0, ack=5)]
    assert firewall(syn, *blind) == [None, "invalid", "invalid"]
    assert firewall(there(RST | ACK, seq=0, ack=101)) == [None]


# -- windows


def test_segments_outside_the_window_are_invalid() -> None:
    """They may go beyond it by as much as it is, as Linux allows."""
    firewall = opened()
    beyond = 201 + 2 * 512
    assert firewall(there(ACK, b"x", seq=201 + 512), there(ACK, b"x", seq=beyond)) == [
        None,
        "invalid",
    ]
    assert firewall(there(ACK, b"x", ack=5000), there(RST, seq=beyond + 1)) == ["invalid"] * 2
    liberal = opened(liberal=True)
    assert liberal(there(ACK, b"x", seq=beyond), there(ACK, b"x", ack=5000)) == [None, None]


def test_what_is_too_old_passes_and_changes_nothing() -> None:
    firewall = opened()
    old = [there(FIN | ACK, seq=201 - 600), there(FIN | ACK, ack=101 - 70_000)]
    assert firewall(*old) == [None, None]
    assert firewall(there(ACK, b"x"), t=7000) == [None], "it is established as before"


@pytest.mark.parametrize(
    ("ours", "theirs", "reach"),
    [(b"\x03\x03\x07\0", b"\x01\x03\x03\x02", 512 << 7), (b"\x03\x03\x07\0", b"", 512)],
)
def test_windows_are_scaled_if_both_ends_offer_it(ours: bytes, theirs: bytes, reach: int) -> None:
    firewall = FirewallCase(**WEB)
    syn = tcp(A, 9, B, 80, SYN, seq=100, options=ours)
    synack = tcp(B, 80, A, 9, SYN | ACK, seq=200, ack=101, options=theirs)
    assert firewall(syn, synack, here(ACK)) == [None] * 3
    beyond = 201 + 2 * reach
    assert firewall(there(ACK, b"x", seq=201 + reach), there(ACK, b"x", seq=beyond)) == [
        None,
        "invalid",
    ]


def test_merged_segments_count_whole() -> None:
    firewall = FirewallCase(**WEB)
    scale = b"\x01\x03\x03\x09"
    syn = tcp(A, 9, B, 80, SYN, seq=100, options=scale)
    synack = tcp(B, 80, A, 9, SYN | ACK, seq=200, ack=101, options=scale)
    assert firewall(syn, synack, here(ACK)) == [None] * 3
    size, flags = 64_000, MERGED | PARTIAL
    whole = there(ACK, bytes(size))
    unsummed = whole[:50] + b"\x12\x34" + whole[52:]
    assert firewall(unsummed, there(ACK, bytes(size), seq=201 + size), flags=flags) == [None, None]
    assert firewall(here(ACK, ack=201 + 2 * size), here(ACK, ack=202 + 2 * size)) == [
        None,
        "invalid",
    ]
    assert firewall(there(RST, seq=201 + 2 * size)) == [None]
    assert firewall(here(ACK, ack=201 + 2 * size), t=60) == ["invalid"]


def test_windows_go_around_the_end_of_the_numbers() -> None:
    firewall, top = FirewallCase(**WEB), (1 << 32) - 3
    syn = tcp(A, 9, B, 80, SYN, seq=top)
    synack = tcp(B, 80, A, 9, SYN | ACK, seq=top, ack=top + 1)
    assert firewall(syn, synack, here(seq=top + 1, ack=top + 1)) == [None] * 3
    assert firewall(here(ACK, b"abcde", seq=top + 1, ack=top + 1)) == [None]
    assert firewall(there(ACK, b"x", seq=top + 1, ack=3), there(ACK, ack=4)) == [None, "invalid"]


def test_fragmented_segments_do_not_break_a_connection() -> None:
    firewall = opened(fragments="pass", default="accept")
    first = tcp(B, 80, A, 9, ACK, bytes(12), seq=201, ack=101, fragment=0x2000)
    rest = ip(B, A, 6, bytes(400), fragment=4)
    assert firewall(first, rest, here(ACK, ack=201 + 412)) == [None] * 3


# -- ICMP


@pytest.mark.parametrize(
    ("a", "b", "query", "reply"),
    [(A, B, 8, 0), (A, B, 13, 14), (A, B, 15, 16), (A, B, 17, 18), (A6, B6, 128, 129)],
)
def test_replies_need_a_query(a: str, b: str, query: int, reply: int) -> None:
    firewall = FirewallCase(
        default="drop", rules=[{"action": "accept", "src": f"{a}/{128 if ':' in a else 32}"}]
    )
    assert firewall(echo(b, a, 7, reply)) == ["default"]
    assert firewall(echo(a, b, 7, reply)) == ["invalid"], "a reply opens nothing"
    assert firewall(echo(a, b, 7, query), echo(b, a, 7, reply)) == [None, None]
    assert firewall(echo(b, a, 8, reply), echo(b, a, 7, query)) == ["default"] * 2
    if query == 8:
        assert firewall(echo(b, a, 7, 14)) == ["default"], "not what was asked"


@pytest.mark.parametrize("kind", [9, 10, 30, 40, 200])
def test_other_icmp_is_invalid(kind: int) -> None:
    firewall = FirewallCase(default="drop", rules=[{"action": "accept"}])
    assert firewall(echo(A, B, 7, kind), echo(A6, B6, 7, 155)) == ["invalid"] * 2
    assert firewall(icmp_error(A, B, udp(A, 1, B, 2), 5)) == [None], "redirects: rules alone"


@pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)])
def test_error_about_connection_passes(a: str, b: str) -> None:
    firewall = FirewallCase(**WEB)
    syn, synack, ack = handshake(a, 9, b, 80)
    assert firewall(icmp_error(b, a, syn)) == ["default"]
    assert firewall(syn, icmp_error(b, a, syn)) == [None, None]
    assert firewall(synack, ack, icmp_error(b, a, ack), icmp_error(a, b, synack)) == [None] * 4
    assert firewall.runner.counters[3] == 3


def test_error_goes_only_to_the_source_of_what_it_quotes() -> None:
    firewall = opened()
    quoted = here(ACK)
    assert (
        firewall(icmp_error("8.8.8.8", V, quoted), icmp_error("8.8.8.8", B, quoted))
        == ["default"] * 2
    )
    assert firewall(icmp_error("8.8.8.8", A, quoted)) == [None]


def test_error_about_nothing_known_is_invalid_where_rules_accept() -> None:
    firewall = FirewallCase(rules=[{"action": "drop", "protocol": "udp"}])
    assert firewall(icmp_error("8.8.8.8", A, here(ACK))) == ["invalid"]
    assert firewall(handshake()[0], icmp_error("8.8.8.8", A, here(ACK))) == [None, None]


@pytest.mark.parametrize("query", [8, 13])
def test_error_about_a_query_passes(query: int) -> None:
    firewall = FirewallCase(default="drop", rules=[{"action": "accept", "src": f"{A}/32"}])
    request = echo(A, B, 7, query)
    assert firewall(request, icmp_error("8.8.8.8", A, request)) == [None, None]
    assert firewall(icmp_error("8.8.8.8", A, echo(A, B, 8, query))) == ["default"]


def test_error_about_a_protocol_without_ports_passes() -> None:
    firewall = FirewallCase(default="drop", rules=[{"action": "accept", "src": f"{A}/32"}])
    gre = ip(A, B, 47, bytes(40))
    assert firewall(gre, icmp_error("8.8.8.8", A, gre)) == [None, None]


EXTENSIONS = {
    "options": (b"\x00", b"\x06\x00" + bytes(6)),
    "fragment": (b"\x2c", b"\x06\x00\x00\x01\x00\x00\x00\x07"),
    "both": (b"\x3c", b"\x2c\x00" + bytes(6) + b"\x06\x00\x00\x01\x00\x00\x00\x07"),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_packet_too_big_is_understood_behind_extension_headers(name: str) -> None:
    firewall = FirewallCase(**WEB)
    assert firewall(*handshake(A6, 9, B6, 80)) == [None] * 3
    plain = tcp(A6, 9, B6, 80, ACK, bytes(20), seq=101, ack=201)
    first, headers = EXTENSIONS[name]
    quoted = plain[:20] + first + plain[21:54] + headers + plain[54:]
    assert firewall(icmp_error("2001:db8::99", A6, quoted, 2, 120)) == [None]
    later = plain[:20] + b"\x2c" + plain[21:54] + b"\x06\x00\x01\x01\x00\x00\x00\x07" + plain[54:]
    assert firewall(icmp_error("2001:db8::99", A6, later, 2, 120)) == ["default"]


@pytest.mark.parametrize("kind", [130, 131, 133, 134, 135, 136, 143])
def test_neighbour_and_listener_discovery_pass_like_arp(kind: int) -> None:
    """RFC 4890 section 4.4.1."""
    frame = ip("fe80::1", "ff02::1:ff00:2", 58, bytes([kind]) + bytes(23))
    assert FirewallCase(default="drop")(frame) == [None]
    assert FirewallCase(default="drop", ndp="rules")(frame) == ["default"]
    accepting = FirewallCase(default="drop", ndp="rules", rules=[{"action": "accept"}])
    assert accepting(frame) == ["invalid"]


# -- tables that fill


def syn_of(number: int) -> bytes:
    return tcp(f"10.7.{number >> 8}.{number & 255}", 5, B, 80, SYN, seq=1)


def test_half_open_connections_give_way_oldest_first() -> None:
    firewall = FirewallCase(**WEB, max_connections=8)
    for number in range(8):
        assert firewall(syn_of(number)) == [None]
    assert firewall(*handshake()) == [None] * 3
    answers = [tcp(B, 80, f"10.7.0.{n}", 5, SYN | ACK, seq=5, ack=2) for n in (0, 1)]
    assert firewall(*answers) == ["default", None]


def test_established_connections_do_not_give_way() -> None:
    firewall = FirewallCase(**WEB, max_connections=4)
    for port in range(1, 5):
        assert firewall(*handshake(p=port)) == [None] * 3
    assert firewall(syn_of(1)) == ["table_full"]
    assert firewall(tcp(A, 1, B, 80, RST, seq=101), syn_of(1)) == [None, None]
    assert firewall(*[tcp(B, 80, A, p, ACK, seq=201, ack=101) for p in range(1, 5)]) == [
        "default", None, None, None,
    ]  # fmt: skip


def test_flood_of_syns_costs_newcomers_nothing() -> None:
    """Twice as many a second as the table could hold for their whole life."""
    firewall = FirewallCase(**WEB, max_connections=256)
    number = 0
    for t in range(1, 41):
        for _ in range(20):
            assert firewall(syn_of(number), t=t) == [None]
            number += 1
        assert firewall(*handshake(p=1000 + t), t=t) == [None] * 3
    alive = [tcp(B, 80, A, 1000 + t, ACK, seq=201, ack=101) for t in range(1, 41)]
    assert firewall(*alive, t=41) == [None] * 40


def test_idle_entry_is_not_believed() -> None:
    """With more slots than one turn looks at, on a quiet link, a day later."""
    firewall = FirewallCase(**WEB, max_connections=100_000)
    firewall(*handshake())
    assert firewall(there(ACK, b"x"), t=86_400) == ["default"]
    assert firewall(*handshake(), t=86_401) == [None] * 3


def test_idle_entries_go_without_traffic() -> None:
    """The timer looks at a tenth of the table each time."""
    firewall = FirewallCase(**WEB, max_connections=50_000)
    for number in range(100):
        firewall(syn_of(number))
    assert len(save(firewall.kernel, 0)) > 0
    assert sum(expire(firewall.kernel, 20 * NS) for _ in range(20)) == 0
    assert sum(expire(firewall.kernel, 31 * NS) for _ in range(11)) == 100
    assert save(firewall.kernel, 0) == b""


def test_conversation_without_a_reply_lives_shortly() -> None:
    for replies, lives_s in (((), 30), ((udp(B, 53, A, 9),), 300)):
        for t, passes in ((lives_s, True), (lives_s + 1, False)):
            firewall = FirewallCase(default="drop", rules=[{"action": "accept", "src": f"{A}/32"}])
            assert firewall(udp(A, 9, B, 53), *replies) == [None] * (1 + len(replies))
            assert (firewall(udp(B, 53, A, 9), t=t) == [None]) == passes


def test_source_may_have_so_many_connections() -> None:
    firewall = FirewallCase(**WEB, max_per_source=3)
    assert firewall(*[tcp(A, p, B, 80, SYN, seq=1) for p in range(1, 6)]) == [
        None, None, None, "source_limit", "source_limit",
    ]  # fmt: skip
    assert firewall(tcp(V, 1, B, 80, SYN)) == [None], "others have their own"
    firewall.idle(2, 40)
    assert firewall(tcp(A, 9, B, 80, SYN), t=40) == [None], "idle ones do not count"
    assert firewall(*[tcp(f"2001:db8::{n}", 1, B6, 80, SYN) for n in range(1, 6)], t=40) == [
        None, None, None, "source_limit", "source_limit",
    ]  # fmt: skip


def test_new_rules_keep_the_connections() -> None:
    allow = {
        "default": "drop",
        "rules": [{"action": "accept", "protocol": "tcp", "dst_ports": "80"}],
    }
    with Runner("firewall", config=allow) as runner:
        runner.run([tcp("10.0.0.1", 1, "10.0.0.2", 80, SYN)])
        runner.reconfigure({"default": "drop", "rules": []})
        opened = tcp("10.0.0.2", 80, "10.0.0.1", 1, SYN | ACK)
        new = tcp("10.0.0.1", 2, "10.0.0.2", 80, SYN)
        assert runner.run([opened], reverse=True).verdicts == [Verdict.NEXT]
        assert runner.run([new]).verdicts == [Verdict.DROP]
        with pytest.raises(ConfigError):
            runner.reconfigure({"default": "drop", "rules": [{"action": "nonsense"}]})
        assert runner.run([opened], reverse=True).verdicts == [Verdict.NEXT]
