# SPDX-License-Identifier: Apache-2.0
"""A NAT to test, and what tests read of packets."""

from __future__ import annotations

from onvm_nf_nat.config import NatConfig, load
from onvm_nf_nat.kernel import make_kernel

from onvm_sdk.headers import checksum, read_headers
from onvm_sdk.testing.frames import ip, is_sound, tcp, udp
from onvm_sdk.testing.kernel import DROP, NEXT, KernelRunner, Packet

REASONS = [
    "malformed",
    "fragment",
    "protocol",
    "no_mapping",
    "filtered",
    "exhausted",
    "table_full",
    "not_ip",
    "unroutable",
    "subscriber_limit",
    "too_big",
    "ttl",
]
COUNTERS = [
    "translated_out",
    "translated_in",
    "hairpinned",
    "icmp_errors",
    "passed",
    "mappings_opened",
    "mappings_closed",
    "sessions_opened",
    "sessions_expired",
    "sessions_evicted",
    "flows_refused",
    "errors_sent",
    "errors_limited",
    "translated_64",
    "translated_46",
    "events_lost",
]
NS = 1_000_000_000
KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
I1, I2, O1, O2, E = "10.0.0.1", "10.0.0.2", "198.51.100.1", "198.51.100.2", "192.0.2.1"


class Nat:
    """One NAT with a clock. It sends no errors of its own unless it is told to."""

    def __init__(self, **config: object) -> None:
        self.use(load({"icmp_errors_per_s": 0} | config))
        self.now_s = 1

    def use(self, config: NatConfig) -> None:
        self.kernel = make_kernel(config, KEY)
        self.runner = KernelRunner(self.kernel, nb_loaned=64)

    def wait(self, seconds: int) -> None:
        """Let time pass, with a burst at its end."""
        self.now_s += seconds
        self.runner.run([], self.now_s * NS)

    def count(self, name: str) -> int:
        return self.runner.counters[COUNTERS.index(name)]

    def _run(self, frame: bytes, reverse: bool) -> Packet:
        packet = Packet(frame, reverse, port=3)
        return self.runner.run([packet], self.now_s * NS)[0]

    def out(self, frame: bytes) -> bytes:
        """Send one packet outwards; it must pass, with right checksums."""
        done = self._run(frame, False)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def back(self, frame: bytes) -> bytes:
        done = self._run(frame, True)
        assert done.verdict == NEXT
        assert is_sound(done.data)
        return done.data

    def dropped(self, frame: bytes, *, reverse: bool = True) -> str:
        done = self._run(frame, reverse)
        assert done.verdict == DROP
        return REASONS[done.destination]


def src(frame: bytes) -> tuple[bytes, int]:
    h = read_headers(frame)
    if h.protocol == 1:
        return h.src, int.from_bytes(frame[h.l4_offset + 4 : h.l4_offset + 6], "big")
    return h.src, h.src_port


def turned(frame: bytes) -> bytes:
    """The frame with its MAC addresses exchanged."""
    return frame[6:12] + frame[:6] + frame[12:]


MAKERS = [udp, tcp]
NO_HOSTS = ["224.0.0.251", "239.255.255.250", "255.255.255.255", "127.0.0.1", "0.0.0.0", "0.1.2.3"]


def tagged(frame: bytes, *vlans: int) -> bytes:
    tags = b"".join(b"\x81\0" + vlan.to_bytes(2, "big") for vlan in vlans)
    return frame[:12] + tags + frame[12:]


def fragments(src: str, dst: str, protocol: int, l4: bytes, identifier: int) -> list[bytes]:
    """Cut a datagram into fragments of 16 bytes; the checksum of the whole is in the first."""
    whole = ip(src, dst, protocol, l4)[34:]
    made = []
    for at in range(0, len(whole), 16):
        more = 0x2000 if at + 16 < len(whole) else 0
        frame = bytearray(ip(src, dst, 255, whole[at : at + 16], more | at // 8))
        frame[18:20] = identifier.to_bytes(2, "big")
        frame[23] = protocol
        frame[24:26] = bytes(2)
        frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
        made.append(bytes(frame))
    return made


def passed(nat: Nat, frame: bytes, reverse: bool = False) -> bytes:
    done = nat._run(frame, reverse)
    assert done.verdict == NEXT
    return done.data
