"""A host of a cluster that is the test itself, written from the description of the protocol alone.

It speaks to a manager as another manager does: it agrees on keys with its probes and seals what it
sends. It can also do what no manager does.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Any

from cluster_hosts import TUNNEL_PORT, VNI, is_probe
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROBE_BYTES, FULL_BYTES, TAG_BYTES = 138, 1570, 16
BFD_AT, KEYS_AT, TAG_AT = 50, 74, 122
IP_RECVTTL = 12
"""Linux; the module socket has it from Python 3.14 on."""
NONE = bytes(16)
DOWN, INIT, UP = 1, 2, 3
LABEL = b"onvm datagrams 1\0"


def mapped(address: str) -> bytes:
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


@dataclass
class Probe:
    """What a probe says."""

    state: int = DOWN
    mine: int = 0
    yours: int = 0
    sequence: int = 0
    nonce: bytes = NONE
    heard: bytes = NONE
    key: int = 0
    unheard_ms: int = 0
    vni: int = VNI
    ttl: int = 255
    tx_us: int = 500_000
    """Promised; so a test that is late is not taken for dead."""
    rx_us: int = 30_000

    def write(self, length: int = PROBE_BYTES) -> bytes:
        """The probe without its tag and padding; `length` is what its headers say."""
        ip = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            length - 22,
            0,
            0,
            self.ttl,
            17,
            0,
            b"\x7f\0\0\1",
            b"\x7f\0\0\2",
        )
        udp = struct.pack("!HHHH", 49152, 3784, length - 42, 0)
        bfd = struct.pack(
            "!BBBBIIIII",
            1 << 5,
            self.state << 6,
            4,
            24,
            self.mine,
            self.yours,
            self.tx_us,
            self.rx_us,
            0,
        )
        keys = b"onv1" + struct.pack("!Q", self.sequence) + self.nonce + self.heard
        keys += struct.pack("!BBH", self.key, 0, self.unheard_ms)
        vxlan = struct.pack("!BBBBI", 0x0D, 0, 0, 3, self.vni << 8)
        return vxlan + bytes(12) + b"\x08\0" + ip + udp + bfd + keys

    @classmethod
    def read(cls, data: bytes) -> Probe:
        _, flags, _, _, mine, yours, *_ = struct.unpack_from("!BBBBIIIII", data, BFD_AT)
        (sequence,) = struct.unpack_from("!Q", data, KEYS_AT + 4)
        key, _, unheard_ms = struct.unpack_from("!BBH", data, KEYS_AT + 44)
        return cls(
            state=flags >> 6,
            mine=mine,
            yours=yours,
            sequence=sequence,
            nonce=data[KEYS_AT + 12 : KEYS_AT + 28],
            heard=data[KEYS_AT + 28 : KEYS_AT + 44],
            key=key,
            unheard_ms=unheard_ms,
            ttl=data[30],
        )


@dataclass
class SecuredPeer:
    """One end of an agreement.

    Attributes:
        here, there: addresses.
        secret: of the pair; b"": no security.
        said: the probes that were sent, to send them again.
    """

    here: str
    there: str
    secret: bytes = b""
    encrypts: bool = False
    probe: Probe = field(default_factory=lambda: Probe(mine=0x1234567, key=9))
    number: int = 0
    stream: int = 3
    heard: Probe | None = None
    said: list[bytes] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    tells_full: bool = True

    def __post_init__(self) -> None:
        self.socket = self._open(TUNNEL_PORT)
        self.out = self._open(0)
        self.begin()

    def _open(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.here, port))
        made.settimeout(0.05)
        made.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        return made

    def close(self) -> None:
        self.socket.close()
        self.out.close()

    def begin(self) -> None:
        """Draw a nonce, as a host that has just started."""
        self.probe.nonce = os.urandom(16) if self.secret else NONE
        self.probe.heard = NONE
        self.probe.state, self.probe.yours = DOWN, 0

    def tag(self, data: bytes) -> bytes:
        ends = mapped(self.here) + mapped(self.there)
        return hmac.digest(self.secret, ends + data[:TAG_AT], "sha256")[:TAG_BYTES]

    def send(self, data: bytes, out: socket.socket | None = None) -> None:
        (out or self.out).sendto(data, (self.there, TUNNEL_PORT))

    def make_probe(self, length: int = PROBE_BYTES, **changes: Any) -> bytes:
        self.probe.sequence += 1
        data = replace(self.probe, **changes).write(length)
        data += self.tag(data) if self.secret else bytes(TAG_BYTES)
        return data + bytes(length - len(data))

    def say(self, length: int = PROBE_BYTES) -> None:
        self.said.append(self.make_probe(length))
        self.send(self.said[-1])

    def listen(self, seconds: float) -> None:
        """Take in what comes; packets are kept."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return
            if is_probe(data):
                self._hear(data)
            else:
                self.packets.append(data)

    def _hear(self, data: bytes) -> None:
        heard = Probe.read(data)
        assert heard.ttl == 255
        if self.secret:
            ends = mapped(self.there) + mapped(self.here)
            right = hmac.digest(self.secret, ends + data[:TAG_AT], "sha256")[:TAG_BYTES]
            assert data[TAG_AT:PROBE_BYTES] == right
        self.heard = heard
        self.probe.heard = heard.nonce
        if self.secret and heard.heard != self.probe.nonce:
            return
        self.probe.yours = heard.mine
        if heard.state == DOWN and self.probe.state == UP:
            self.probe.state = DOWN
        elif heard.state == DOWN:
            self.probe.state = INIT
        else:
            self.probe.state = UP

    def talk(self, seconds: float) -> None:
        """Exchange probes for so long, every 20 ms."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.say()
            if self.tells_full:
                self.say(FULL_BYTES)
            self.listen(0.02)

    def meet(self) -> None:
        """Talk until both ends are up."""
        end = time.monotonic() + 10
        while self.heard is None or self.heard.state != UP or self.probe.state != UP:
            assert time.monotonic() < end, "no session"
            self.talk(0.02)
        self.talk(0.05)

    # ---- packets ----

    def _key(self, sender: bytes, receiver: bytes, number: int) -> AESGCM:
        data = LABEL + sender + receiver + bytes([number])
        return AESGCM(hmac.digest(self.secret, data, "sha256")[:16])

    def seal(self, datagram: bytes, port: int | None = None, **changes: int) -> bytes:
        """A sealed datagram; `changes` are key, stream and number, as they are put into it."""
        assert self.heard is not None
        self.number += 1
        key = changes.get("key", self.heard.key)
        number = changes.get("number", self.number)
        word = struct.pack("!Q", key << 56 | self.stream << 48 | number)
        nonce = struct.pack("!HH", 0, port or self.out.getsockname()[1]) + word
        cipher = self._key(self.probe.nonce, self.heard.nonce, self.heard.key)
        clear = 8 if self.encrypts else len(datagram)
        sealed = cipher.encrypt(nonce, datagram[clear:], datagram[:clear])
        return datagram[:clear] + sealed[:-16] + word + sealed[-16:]

    def open(self, data: bytes, port: int) -> bytes:
        """The datagram that the manager has sealed.

        Raises:
            InvalidTag: it has not.
        """
        assert self.heard is not None
        text, word, tag = data[:-24], data[-24:-16], data[-16:]
        if word[0] != self.probe.key:
            raise InvalidTag
        clear = 8 if self.encrypts else len(text)
        cipher = self._key(self.heard.nonce, self.probe.nonce, self.probe.key)
        nonce = struct.pack("!HH", 0, port) + word
        return text[:clear] + cipher.decrypt(nonce, text[clear:] + tag, text[:clear])
