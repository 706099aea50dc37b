"""A seccomp filter for NF hosts: a short list of system calls that none of them needs.

Everything else is allowed. What is on the list reaches into other processes, changes what the
kernel is made of, or opens a part of the kernel that has been a way out of sandboxes; a sandbox
without capabilities may not do most of it anyway, so the filter is the second lock on the door.

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
# Offsets in struct seccomp_data; of an argument the low half.
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16
_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_NEW_NAMESPACES = 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000
_X32 = 0x40000000
"""Numbers from here on are x86-64's second, 32-bit way to call; nothing here is built for it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """System-call numbers of an architecture; those of `DENIED` in its order."""

    audit: int
    """AUDIT_ARCH_ of linux/audit.h."""
    clone: int
    clone3: int
    socket: int
    denied: tuple[int, ...]
    has_x32: bool = False


DENIED = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "mount_setattr",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "open_by_handle_at",
    "setns",
    "unshare",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "syslog",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
)

MACHINES = {
    "x86_64": Machine(
        audit=0xC000003E,
        clone=56,
        clone3=435,
        socket=41,
        has_x32=True,
        denied=(
            101,
            310,
            311,
            438,
            165,
            166,
            155,
            161,
            442,
            428,
            429,
            430,
            431,
            432,
            433,
            304,
            308,
            272,
            250,
            248,
            249,
            321,
            298,
            323,
            425,
            426,
            427,
            175,
            313,
            176,
            246,
            320,
            169,
            167,
            168,
            163,
            179,
            103,
            164,
            227,
            159,
            305,
        ),
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        clone=220,
        clone3=435,
        socket=198,
        denied=(
            117,
            270,
            271,
            438,
            40,
            39,
            41,
            51,
            442,
            428,
            429,
            430,
            431,
            432,
            433,
            265,
            268,
            97,
            219,
            217,
            218,
            280,
            241,
            282,
            425,
            426,
            427,
            105,
            273,
            106,
            104,
            294,
            142,
            224,
            225,
            89,
            60,
            116,
            170,
            112,
            171,
            266,
        ),
    ),
}


def make_filter(machine: str | None = None) -> bytes:
    """The program for a machine as `platform.machine` names it; empty for one that is not known.

    Args:
        machine: None: this one.
    """
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
        # Other families than UNIX: some (vsock, alg) are not of a network namespace.
        _op(_EQUAL, found.socket, 0, 3),
        _op(_LOAD, _ARGUMENT_0),
        _op(_EQUAL, socket.AF_UNIX, 1, 0),
        _op(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def tighten(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile of a container engine, without what `make_filter` denies.

    Args:
        profile: as containers/common and the OCI runtime specification write it: an action for
            everything, and rules, each with names, an action and conditions on arguments.
    """
    taken = {*DENIED, "clone", "clone3", "socket"}
    rules = []
    for rule in profile.get("syscalls", ()):
        names = [name for name in rule["names"] if name not in taken]
        if names:
            rules.append({**rule, "names": names})

    def first_argument(value: int, comparison: str) -> list[dict[str, Any]]:
        return [{"index": 0, "value": value, "valueTwo": 0, "op": f"SCMP_CMP_{comparison}"}]

    unix = int(socket.AF_UNIX)
    rules += [
        {"names": list(DENIED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": first_argument(_NEW_NAMESPACES, "MASKED_EQ"),
        },
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": first_argument(unix, "EQ")},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.EAFNOSUPPORT,
            "args": first_argument(unix, "NE"),
        },
    ]
    return {**profile, "syscalls": rules}


def _op(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, constant)
