# SPDX-License-Identifier: Apache-2.0
"""Checks of backends over the network of the host, with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from functools import cache
from typing import TYPE_CHECKING

from onvm_nf_lb.check import Check, Target
from onvm_sdk.headers import checksum

if TYPE_CHECKING:
    import ssl

__all__ = ["has_network", "may_send_icmp", "probe"]

_LINE_MAX = 8192
_ABORT = struct.pack("ii", 1, 0)


class _FailedError(Exception):
    """A check has failed; its text says why."""


async def probe(target: Target) -> str | None:
    """Check once; return why it failed, or None."""
    kind = target.check.type
    try:
        async with asyncio.timeout(target.check.timeout_s):
            if kind == "tcp":
                await _tcp(target)
            elif kind == "icmp":
                await _icmp(target.address)
            elif kind == "script":
                await _script(target)
            else:
                await _http(target)
    except TimeoutError:
        return f"no answer within {target.check.timeout_s:g} s"
    except _FailedError as error:
        return str(error)
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        return (text or type(error).__name__).lower()
    return None


def has_network() -> bool:
    """Whether this process has any interface but the loopback."""
    return any(name != "lo" for _, name in socket.if_nameindex())


def may_send_icmp() -> bool:
    """Whether this process may open the sockets that checks by ICMP need."""
    try:
        _icmp_socket(socket.AF_INET).close()
    except PermissionError:
        return False
    return True


async def _tcp(target: Target) -> None:
    _, writer = await asyncio.open_connection(target.address, target.port)
    # A reset leaves no socket behind that waits for a minute.
    handle = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()


@cache
def _tls() -> ssl.SSLContext:
    """Any certificate: a check asks whether the server works, and sends nothing secret."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(target: Target) -> None:
    check = target.check
    is_tls = check.type == "https"
    reader, writer = await asyncio.open_connection(
        target.address,
        target.port,
        limit=_LINE_MAX,
        ssl=_tls() if is_tls else None,
        server_hostname=(check.host or target.address) if is_tls else None,
    )
    try:
        host = check.host or str(target)
        writer.write(
            f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: onvm-nf-lb\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            line = await reader.readline()
        except ValueError:
            raise _FailedError("no status line of HTTP") from None
    finally:
        writer.transport.abort()
    _judge(line, check)


def _judge(line: bytes, check: Check) -> None:
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        raise _FailedError("no status line of HTTP")
    status = int(parts[1])
    if not any(first <= status <= last for first, last in check.status):
        raise _FailedError(f"status {status}")


async def _script(target: Target) -> None:
    process = await asyncio.create_subprocess_exec(
        *target.check.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "ONVM_LB_ADDRESS": target.address,
            "ONVM_LB_PORT": str(target.port),
        },
    )
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status != 0:
        raise _FailedError(f"exit status {status}")


def _icmp_socket(family: int) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:  # the group is not within net.ipv4.ping_group_range
        return socket.socket(family, socket.SOCK_RAW, protocol)


async def _icmp(address: str) -> None:
    is_4 = ":" not in address
    loop, token = asyncio.get_running_loop(), os.urandom(16)
    with _icmp_socket(socket.AF_INET if is_4 else socket.AF_INET6) as sock:
        sock.setblocking(False)
        body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + token
        head = b"\x08\0" if is_4 else b"\x80\0"
        total = checksum(head + b"\0\0" + body)  # the kernel makes that of ICMPv6 itself
        sock.connect((address, 0))
        await loop.sock_sendall(sock, head + total.to_bytes(2, "big") + body)
        while True:
            data = await loop.sock_recv(sock, 2048)
            at = data.find(token) - 8
            if at >= 0 and data[at] == (0 if is_4 else 129):
                return
