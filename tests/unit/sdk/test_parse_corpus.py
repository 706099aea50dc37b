"""parse.h and the columns against tshark-checked expectations, on every packet of every capture."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from onvm_sdk._native._nf import ffi, lib

L3 = {0: "ok", 1: "nonip", 2: "short", 3: "badver", 4: "badihl", 5: "badlen"}
L4 = {0: "ok", 1: "na", 2: "short", 3: "frag", 4: "badhdr"}


def parsed(frame: bytes, headers: Any) -> dict[str, str]:
    """What the native parser says of a frame, in the words of the expectations."""
    data = ffi.from_buffer("uint8_t[]", frame)
    l3 = L3[lib.onvm_parse_frame(data, len(frame), headers)]
    result = {"l3_replay": l3}
    result["ethertype"] = f"{headers.ethertype:04x}" if len(frame) >= 14 else ""
    if l3 != "ok":  # the oracle guesses on; we read no transport header of such a packet
        return result
    sums = lib.onvm_verify_frame(data, headers)
    if sums >> 4 == 1:
        result["l3_replay"] = "badsum"
    at = headers.l3_offset
    if headers.ip_version == 4:
        src, dst = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
    else:
        src, dst = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    l4 = L4[headers.l4_status]
    if l4 == "ok" and (headers.more_fragments or headers.fragment_offset):
        l4 = "frag"
    elif l4 == "ok":
        l4 = {0: "ok", 1: "badsum", 2: "nosum", 3: "na"}[sums & 15]
    result |= {
        "ipver": str(headers.ip_version),
        "src": str(ipaddress.ip_address(src)),
        "dst": str(ipaddress.ip_address(dst)),
        "proto": str(headers.protocol),
        "frag_off": str(headers.fragment_offset),
        "frag_mf": str(int(headers.more_fragments)),
        "l4_replay": l4,
    }
    if headers.has_ports:
        result["sport"] = str(headers.src_port)
        result["dport"] = str(headers.dst_port)
    elif headers.protocol in (1, 58) and L4[headers.l4_status] == "ok":
        result["sport"] = str(headers.src_port)
        if headers.src_port >> 8 in ((0, 8) if headers.protocol == 1 else (128, 129)):
            result["dport"] = str(headers.dst_port)
    if headers.protocol == 6 and headers.has_ports:
        result["tcp_flags"] = str(headers.tcp_flags)
    return result


@pytest.mark.once
def test_parser_agrees_on_every_packet(packets: list[tuple[dict[str, str], bytes]]) -> None:
    headers = ffi.new("struct onvm_headers *")
    wrong = []
    for row, frame in packets:
        got = parsed(frame, headers)
        bad = {k: (v, row[k]) for k, v in got.items() if v != row[k]}
        if bad:
            wrong.append((row["n"], bad))
    assert not wrong[:5], f"{len(wrong)} of {len(packets)}: {wrong[:5]}"
