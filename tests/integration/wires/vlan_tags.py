"""VLAN tags on all traffic of an interface, on kernels with and without VLAN interfaces.

``vlan_tags.py INTERFACE TAG...`` puts tags (the inner one first) on the frames that the interface
sends, and takes as many off those that it receives, as a VLAN interface on top of it would. It says
"ready", and goes on until it is killed. Two BPF programs do the work, attached by tcx, which Linux
has since 6.6.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}
PROG_LOAD, LINK_CREATE = 5, 28
TYPE_SCHED_CLS, TCX_INGRESS, TCX_EGRESS = 3, 46, 47
VLAN_PUSH, VLAN_POP = 18, 19
TPID = 0x8100
TCX_NEXT = -1
ATTRIBUTES_BYTES = 128


def obstacle() -> str:
    """Why tags cannot be had here, or ""."""
    if platform.machine() not in SYS_BPF:
        return f"no BPF system call known for {platform.machine()}"
    numbers = platform.release().split(".")
    if (int(numbers[0]), int(numbers[1])) < (6, 6):
        return "tcx needs Linux 6.6"
    return ""


def _instruction(code: int, to: int = 0, source: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, 0, value)


def _call(function: int) -> bytes:
    return _instruction(0x85, value=function)


def _program(steps: list[bytes]) -> bytes:
    """Steps, each of which finds the packet in register 6."""
    keep = _instruction(0xBF, to=6, source=1)
    end = _instruction(0xB7, to=0, value=TCX_NEXT) + _instruction(0x95)
    return keep + b"".join(steps) + end


def push(tag: int) -> bytes:
    return (
        _instruction(0xBF, to=1, source=6)
        + _instruction(0xB7, to=2, value=socket.htons(TPID))
        + _instruction(0xB7, to=3, value=tag)
        + _call(VLAN_PUSH)
    )


def pop() -> bytes:
    return _instruction(0xBF, to=1, source=6) + _call(VLAN_POP)


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTES_BYTES)
    number = SYS_BPF[platform.machine()]
    descriptor = int(libc.syscall(number, command, buffer, ATTRIBUTES_BYTES))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def attach(interface: str, where: int, code: bytes) -> None:
    """It stays attached until this process ends."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    program = _bpf(
        PROG_LOAD,
        struct.pack(
            "=IIQQ",
            TYPE_SCHED_CLS,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(license_text),
        ),
    )
    _bpf(LINK_CREATE, struct.pack("=IIII", program, socket.if_nametoindex(interface), where, 0))


def main(interface: str, *tags: str) -> None:
    attach(interface, TCX_EGRESS, _program([push(int(tag)) for tag in tags]))
    attach(interface, TCX_INGRESS, _program([pop() for _ in tags]))
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
