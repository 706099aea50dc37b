"""The two ends of a wire under test.

``wire_ends.py serve BLOB`` says "ready" and serves on all addresses: BLOB over HTTP, the bytes that
arrive over TCP, and datagrams backwards. The other commands are clients. They fail unless all
answers come, and are right.

    ping HOST COUNT BYTES       ICMP echo in IP packets of so many bytes, which nothing may cut
    fetch HOST                  the SHA-256 of BLOB
    ask HOST COUNT BYTES        datagrams one after the other, each from a port of its own
    pieces HOST COUNT BYTES     as `ask`, in fragments: the last one first, one of them twice
    flood HOST COUNT BYTES      datagrams that nothing answers, as fast as possible
    talk HOST CONNECTIONS BYTES connections at the same time, each of which gets back what it sends
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import socket
import socketserver
import struct
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

HTTP_PORT, ECHO_PORT, DATAGRAM_PORT = 8000, 8001, 8002
DISCARD_PORT = 9
ANSWER_S = 10.0
ECHO = struct.Struct("!BBHHH")
MTU_DISCOVER = {socket.IPPROTO_IP: 10, socket.IPPROTO_IPV6: 23}
PMTUDISC_DO = 2
BLOCK_BYTES = 1 << 16


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


class _DatagramServer(socketserver.UDPServer):
    address_family = socket.AF_INET6
    max_packet_size = 1 << 16


class _Blob(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while block := self.request.recv(BLOCK_BYTES):
            self.request.sendall(block)


class _Backwards(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        asked, answers = self.request
        answers.sendto(asked[::-1], self.client_address)


def serve(blob: str) -> None:
    _Blob.content = Path(blob).read_bytes()
    servers = [
        _Server(("::", HTTP_PORT), _Blob),
        _Server(("::", ECHO_PORT), _Echo),
        _DatagramServer(("::", DATAGRAM_PORT), _Backwards),
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    threads[0].join()


def ping(host: str, count: str, n_bytes: str) -> None:
    """Ask one after the other; `ping` itself gives up soon after its last request."""
    is_v6 = ":" in host
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    request, reply, header_bytes = (128, 129, 40) if is_v6 else (8, 0, 20)
    payload = bytes(int(n_bytes) - header_bytes - ECHO.size)
    identifier = os.getpid() & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as one:
        level = socket.IPPROTO_IPV6 if is_v6 else socket.IPPROTO_IP
        one.setsockopt(level, MTU_DISCOVER[level], PMTUDISC_DO)
        one.settimeout(ANSWER_S)
        for number in range(int(count)):
            message = ECHO.pack(request, 0, 0, identifier, number) + payload
            # The kernel makes the checksum of ICMPv6 only.
            checksum = 0 if is_v6 else _checksum(message)
            asked = ECHO.pack(request, 0, checksum, identifier, number)
            one.sendto(asked + payload, (host, 0))
            while True:
                answer = one.recv(1 << 16)[0 if is_v6 else header_bytes :]
                kind, _, _, *rest = ECHO.unpack_from(answer)
                if kind == reply and rest == [identifier, number]:
                    break


def _checksum(message: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def fetch(host: str) -> None:
    place = f"[{host}]" if ":" in host else host
    with urllib.request.urlopen(f"http://{place}:{HTTP_PORT}/", timeout=ANSWER_S) as answer:
        print(hashlib.sha256(answer.read()).hexdigest())


def ask(host: str, count: str, n_bytes: str) -> None:
    for _ in range(int(count)):
        asked = os.urandom(int(n_bytes))
        with socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        ) as one:
            one.settimeout(ANSWER_S)
            one.sendto(asked, (host, DATAGRAM_PORT))
            if one.recv(1 << 16) != asked[::-1]:
                raise ValueError("another answer")


def pieces(host: str, count: str, n_bytes: str) -> None:
    is_v6 = ":" in host
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    for number in range(int(count)):
        asked = os.urandom(int(n_bytes))
        with (
            socket.socket(family, socket.SOCK_DGRAM) as one,
            socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        ):
            one.settimeout(ANSWER_S)
            one.connect((host, DATAGRAM_PORT))
            source, port = one.getsockname()[:2]
            src, dst = (socket.inet_pton(family, address) for address in (source, host))
            udp = struct.pack("!4H", port, DATAGRAM_PORT, 8 + len(asked), 0) + asked
            pseudo = src + dst + struct.pack("!II", len(udp), socket.IPPROTO_UDP)
            udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp) or 0xFFFF) + udp[8:]
            made = [
                _fragment(src, dst, udp, first, 1000 + number) for first in range(0, len(udp), 1200)
            ]
            for fragment in (*made[:0:-1], made[1], made[0]):
                raw.sendto(fragment, (host, 0))
            if one.recv(1 << 16) != asked[::-1]:
                raise ValueError("another answer")


def _fragment(src: bytes, dst: bytes, whole: bytes, first: int, number: int) -> bytes:
    """1,200 bytes of an IP packet's payload as a fragment."""
    part = whole[first : first + 1200]
    more = first + len(part) < len(whole)
    if len(src) == 4:
        place = first // 8 | more << 13
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), number, place, 64, 17, 0)
        return head + src + dst + part  # the kernel makes the checksum
    head = struct.pack("!IHBB", 6 << 28, 8 + len(part), 44, 64) + src + dst
    return head + struct.pack("!BBHI", 17, 0, first | more, number) + part


def flood(host: str, count: str, n_bytes: str) -> None:
    with socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
    ) as one:
        for _ in range(int(count)):
            with contextlib.suppress(ConnectionRefusedError):
                one.sendto(bytes(int(n_bytes)), (host, DISCARD_PORT))


def _send(one: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):  # the receiver says what is missing
        one.sendall(content)


def talk(host: str, connections: str, n_bytes: str) -> None:
    content = os.urandom(int(n_bytes))
    # All are open before the first one says anything.
    opened = [
        socket.create_connection((host, ECHO_PORT), timeout=ANSWER_S)
        for _ in range(int(connections))
    ]
    errors: list[str] = []

    def exchange(one: socket.socket) -> None:
        got = bytearray()
        # It sends while it receives: the server's buffers do not hold all of it.
        sender = threading.Thread(target=_send, args=(one, content))
        sender.start()
        try:
            while len(got) < len(content) and (block := one.recv(BLOCK_BYTES)):
                got += block
        except OSError as error:
            errors.append(str(error))
        sender.join()
        one.close()
        if got != content:
            errors.append(f"{len(got)} bytes, and not those that were sent")

    threads = [threading.Thread(target=exchange, args=(one,)) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ValueError(f"{len(errors)} connections: {errors[0]}")


if __name__ == "__main__":
    commands = {
        "serve": serve,
        "ping": ping,
        "fetch": fetch,
        "ask": ask,
        "pieces": pieces,
        "flood": flood,
        "talk": talk,
    }
    commands[sys.argv[1]](*sys.argv[2:])
