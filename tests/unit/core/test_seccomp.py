"""The seccomp filter decides as its list says, for every call, by a small BPF machine."""

from __future__ import annotations

import base64
import errno
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from onvm_core.launch.seccomp import DENIED, MACHINES, make_filter, tighten

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
THREAD = 0x3D0F00  # what glibc's pthread_create gives clone
FORK = 0x01200011
NEW_USER = 0x10000000


def decide(program: bytes, number: int, audit: int, argument: int = 0) -> int:
    """Run a program as the kernel does; what it returns."""
    data = struct.pack("<IIQ6Q", number, audit, 0, argument, *[0] * 5)
    operations = list(struct.iter_unpack("<HBBI", program))
    value, at = 0, 0
    while True:
        code, if_true, if_false, constant = operations[at]
        at += 1
        if code == 0x06:
            return int(constant)
        if code == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
            continue
        holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}
        at += if_true if holds[code] else if_false


@pytest.mark.parametrize("name", MACHINES)
def test_every_call_but_those_listed_is_allowed(name: str) -> None:
    machine, program = MACHINES[name], make_filter(name)
    assert len(machine.denied) == len(set(machine.denied)) == len(DENIED)
    special = {machine.clone3: errno.ENOSYS, machine.socket: errno.EAFNOSUPPORT}
    for number in range(1024):
        denied = errno.EPERM if number in machine.denied else special.get(number)
        expected = ALLOW if denied is None else ERRNO | denied
        assert decide(program, number, machine.audit) == expected, number


@pytest.mark.parametrize("name", MACHINES)
def test_calls_are_told_apart_by_their_argument(name: str) -> None:
    machine, program = MACHINES[name], make_filter(name)
    unix, inet, vsock = 1, 2, 40
    assert decide(program, machine.socket, machine.audit, unix) == ALLOW
    for family in (inet, vsock):
        assert decide(program, machine.socket, machine.audit, family) == ERRNO | errno.EAFNOSUPPORT
    wider = make_filter(name, has_network=True)
    for family, allowed in ((unix, True), (inet, True), (10, True), (16, True), (vsock, False)):
        expected = ALLOW if allowed else ERRNO | errno.EAFNOSUPPORT
        assert decide(wider, machine.socket, machine.audit, family) == expected
    assert decide(wider, machine.socket + 1000, machine.audit, vsock) == ALLOW
    assert decide(program, machine.clone, machine.audit, THREAD) == ALLOW
    assert decide(program, machine.clone, machine.audit, FORK) == ALLOW
    assert decide(program, machine.clone, machine.audit, FORK | NEW_USER) == ERRNO | errno.EPERM


def test_calls_of_another_architecture_end_the_process() -> None:
    i386, machine = 0x40000003, MACHINES["x86_64"]
    assert decide(make_filter("x86_64"), 1, i386) == KILL
    assert decide(make_filter("x86_64"), 0x40000001, machine.audit) == ERRNO | errno.ENOSYS


def test_unknown_machine_has_no_filter() -> None:
    assert make_filter("pdp11") == b""


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter for this machine")
def test_process_can_confine_itself() -> None:
    source = """
import base64, errno, socket, sys
from onvm_sdk._native.nf import confine
from onvm_sdk.errors import NativeError
try:
    confine(b"no program")
except NativeError as error:
    assert error.errno == errno.EINVAL, error
confine(base64.b64decode(sys.argv[1]))
socket.socket(socket.AF_UNIX).close()
try:
    socket.socket(socket.AF_INET)
except OSError as error:
    assert error.errno == errno.EAFNOSUPPORT, error
else:
    raise AssertionError("it may still make any socket")
"""
    program = base64.b64encode(make_filter()).decode()
    subprocess.run([sys.executable, "-P", "-c", source, program], check=True)


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter for this machine")
def test_numbers_are_those_of_this_system(tmp_path: Path) -> None:
    """As the C compiler has them."""
    machine = MACHINES[platform.machine()]
    source = tmp_path / "numbers.c"
    source.write_text("#include <sys/syscall.h>\n" + "".join(f"SYS_{n}\n" for n in DENIED))
    done = subprocess.run(
        ["cc", "-E", "-P", str(source)], capture_output=True, text=True, check=True
    )
    found = [line.strip() for line in done.stdout.splitlines() if line.strip()][-len(DENIED) :]
    # Headers older than a call leave its name as it is.
    known = [(name, int(n)) for name, n in zip(DENIED, found, strict=True) if n.isdecimal()]
    assert len(known) > len(DENIED) // 2
    assert known == [
        (n, v) for n, v in zip(DENIED, machine.denied, strict=True) if n in dict(known)
    ]


def test_tightened_profile_of_an_engine_denies_the_same() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "unshare", "clone", "clone3"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount", "bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["X"]}},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": []},
        ],
    }
    tight = tighten(profile)
    allowed = [rule for rule in tight["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    names = [name for rule in allowed for name in rule["names"]]
    assert names == ["read", "clone", "socket"]
    assert all(rule["args"] for rule in allowed[1:])
    wide = tighten(profile, has_network=True)["syscalls"]
    families = [rule for rule in wide if rule["names"] == ["socket"]]
    assert [(rule["action"], rule["args"][0]["value"]) for rule in families] == [
        ("SCMP_ACT_ALLOW", family) for family in (1, 2, 10, 16)
    ]
    (denied,) = (rule for rule in tight["syscalls"] if "unshare" in rule["names"])
    assert denied == {"names": list(DENIED), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    assert profile["syscalls"][0]["names"] == ["read", "unshare", "clone", "clone3"]
