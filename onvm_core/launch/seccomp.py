"""A seccomp filter for NF hosts: a short list of system calls that none of them needs.

Everything else is allowed. The calls on the list reach into other processes, change the kernel
itself, or open a part of the kernel that has been a way out of sandboxes. A sandbox without
capabilities may not use most of them anyway, so the filter is a second line of defence.

The program is classic BPF (``struct sock_filter``: code, two jumps, a constant) over
``struct seccomp_data``, as linux/filter.h and linux/seccomp.h have them, little-endian.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DENIED", "MACHINES", "Machine", "make_filter", "tighten"]

# BPF: load a word, jump if equal, jump if greater or equal, jump if any bit is set, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data; for an argument, of its low half.
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16
_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_NEW_NAMESPACES = 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000
_X32 = 0x40000000
"""Numbers from here on belong to x86-64's 32-bit ABI (x32); nothing here is built for it."""


DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount_setattr": (442, 442),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "unshare": (272, 97),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
"""Names of the calls, each with its number on x86-64 and on AArch64."""


@dataclass(frozen=True, slots=True)
class Machine:
    """System-call numbers of an architecture; those of `DENIED` are in the same order."""

    audit: int
    """AUDIT_ARCH_ constants of linux/audit.h."""
    clone: int
    clone3: int
    socket: int
    denied: tuple[int, ...]
    has_x32: bool = False


MACHINES = {
    "x86_64": Machine(
        audit=0xC000003E,
        clone=56,
        clone3=435,
        socket=41,
        denied=tuple(x86_64 for x86_64, _ in DENIED.values()),
        has_x32=True,
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        clone=220,
        clone3=435,
        socket=198,
        denied=tuple(aarch64 for _, aarch64 in DENIED.values()),
    ),
}


def make_filter(machine: str | None = None, *, has_network: bool = False) -> bytes:
    """The program for a machine with a name of `platform.machine`; empty for an unknown one.

    Args:
        machine: None: this one.
        has_network: sockets of the internet families are allowed.
    """
    families = _families(has_network)
    found = MACHINES.get(machine or platform.machine())
    if found is None:
        return b""
    program = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, found.audit, 1, 0),
        _op(_RETURN, _KILL),  # a 32-bit call has other numbers
        _op(_LOAD, _NUMBER),
    ]
    if found.has_x32:
        program += [_op(_AT_LEAST, _X32, 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    for number in found.denied:
        program += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _ERRNO | errno.EPERM)]
    # clone3 has its flags behind a pointer, where a filter cannot look; libc falls back to clone.
    program += [_op(_EQUAL, found.clone3, 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    program += [
        _op(_EQUAL, found.clone, 0, 4),
        _op(_LOAD, _ARGUMENT_0),
        _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _op(_RETURN, _ERRNO | errno.EPERM),
        _op(_RETURN, _ALLOW),
        # Other families: some (vsock, alg) do not belong to a network namespace.
        _op(_EQUAL, found.socket, 0, 2 + len(families)),
        _op(_LOAD, _ARGUMENT_0),
        *(_op(_EQUAL, family, len(families) - i, 0) for i, family in enumerate(families)),
        _op(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _families(has_network: bool) -> tuple[int, ...]:
    """Families of sockets that are allowed. Name resolution needs netlink."""
    network = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK) if has_network else ()
    return tuple(map(int, (socket.AF_UNIX, *network)))


def tighten(profile: Mapping[str, Any], *, has_network: bool = False) -> dict[str, Any]:
    """A profile of a container engine, without what `make_filter` denies.

    Args:
        profile: in the form of containers/common and the OCI runtime specification: a default
            action, and rules, each with names, an action and conditions on arguments.
        has_network: as for `make_filter`.
    """
    taken = {*DENIED, "clone", "clone3", "socket"}
    rules = []
    for rule in profile.get("syscalls", ()):
        names = [name for name in rule["names"] if name not in taken]
        if names:
            rules.append({**rule, "names": names})

    def first_argument(value: int, comparison: str) -> list[dict[str, Any]]:
        return [{"index": 0, "value": value, "valueTwo": 0, "op": f"SCMP_CMP_{comparison}"}]

    rules += [
        {"names": list(DENIED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": first_argument(_NEW_NAMESPACES, "MASKED_EQ"),
        },
        *(
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": first_argument(family, "EQ")}
            for family in _families(has_network)
        ),
    ]
    if not has_network:  # else the default action denies the rest: a rule compares a value once
        rules.append(
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": errno.EAFNOSUPPORT,
                "args": first_argument(int(socket.AF_UNIX), "NE"),
            }
        )
    return {**profile, "syscalls": rules}


def _op(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, constant)
