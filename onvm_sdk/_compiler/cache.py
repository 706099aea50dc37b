# mypy: ignore-errors
# llvmlite has no types to check against; tests/unit/sdk/test_kernel_cache.py checks this.
"""Object code of kernels on disk, and how it comes back to life without numba.

numba's own cache needs a function in a file and pickles closures; a kernel's burst function is
made at run time. So the key is ours: the function's code and all it refers to, the types of its
state, this SDK's build, numba, LLVM and the CPU. Kernels that refer to something
without a name (a ctypes function is an address of this process) are not kept.

Loading needs llvmlite alone: importing numba takes most of a second. Its runtime (NRT) is code
that numba registers when it compiles; object code that was linked in a process where nothing was
compiled had null pointers in place of it *and* of every symbol after it. So a file says which
symbols it needs, and is loaded only after each of them is there.

A file is used only if it belongs to this user and no other user can write to it.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import json
import math
import os
import stat
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from onvm_sdk._native import _nf

__all__ = ["Entry", "cache_file", "load", "prepare", "store"]

_OWN = "onvm_"
NATIVE = frozenset(
    {
        "onvm_ctx_hold",
        "onvm_ctx_release",
        "onvm_flow_key",
        "onvm_layout_word",
        "onvm_originate",
        "onvm_pkt_has_rare",
        "onvm_pkt_rare_load",
        "onvm_pkt_rare_store",
        "onvm_pkt_append_bytes",
        "onvm_pkt_make_checksums",
        "onvm_pkt_payload",
        "onvm_pkt_time",
    }
)
"""Functions of the SDK's native part that kernels call."""
_DESTRUCTOR = "NRT_MemInfo_call_dtor"
_RUNTIME = ("NRT_", "numba_", "Py", "_Py")
_MAGIC = b"onvm kernel 1\n"


class _UnnamedError(Exception):
    """Something whose value cannot be written into a key."""


def cache_file(function: Callable[..., Any], state: str, is_bounds_checked: bool) -> Path | None:
    """The path of exactly this kernel; None if an object that it refers to cannot be named."""
    try:
        seen = [*_describe_function(function, set()), state, str(is_bounds_checked)]
    except _UnnamedError:
        return None
    seen += [*_tools(), llvmlite.__version__, llvm.get_host_cpu_name()]
    seen.append(llvm.get_host_cpu_features().flatten())
    name = hashlib.sha256("\0".join(seen).encode()).hexdigest()
    return _folder() / f"{name}.o"


def _folder() -> Path:
    numba_folder = os.environ.get("NUMBA_CACHE_DIR")
    if numba_folder:
        return Path(numba_folder) / "onvm"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "onvm" / "kernels"


def _tools() -> Iterator[str]:
    """Name the builds of the SDK and of numba that made the code."""
    sdk = Path(__file__).parents[1]
    constants = sdk / "five_tuple.py", sdk / "_native" / "tables.py"
    for file in (*sorted(Path(__file__).parent.glob("*.py")), *constants):
        yield file.read_text()
    for file in sorted(Path(_nf.__file__).parent.glob("_*.so")):
        built = file.stat()
        yield f"{file.name} {built.st_size} {built.st_mtime_ns}"
    numba = importlib.util.find_spec("numba")
    if numba is not None and numba.origin is not None:
        yield Path(numba.origin).with_name("_version.py").read_text()


def _describe_function(function: Any, above: set[int]) -> Iterator[str]:
    if id(function) in above:
        return
    above.add(id(function))
    yield function.__qualname__
    yield from _describe_code(function.__code__, function.__globals__, above)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()):
        yield from _describe(value, above)
    for cell in function.__closure__ or ():
        yield from _describe(cell.cell_contents, above)


def _describe_code(code: types.CodeType, names: dict[str, Any], above: set[int]) -> Iterator[str]:
    yield code.co_code.hex()
    yield code.co_exceptiontable.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _describe_code(constant, names, above)
        else:
            yield from _describe(constant, above)
    for name in code.co_names:
        if name in names:
            yield name
            yield from _describe(names[name], above)


def _describe(value: Any, above: set[int]) -> Iterator[str]:
    if isinstance(value, (bool, int, float, str, bytes, type(None), np.generic)):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, (tuple, frozenset)):
        for part in sorted(value, key=repr) if isinstance(value, frozenset) else value:
            yield from _describe(part, above)
    elif isinstance(value, type) and issubclass(value, enum.Enum):
        yield repr([(member.name, member.value) for member in value])
    elif (
        value is np
        or value is math
        or getattr(value, "__module__", None) in ("numpy", "builtins", "math")
    ):
        yield f"{getattr(value, '__module__', '')} {value.__name__}"
    elif isinstance(value, types.FunctionType):
        yield from _describe_function(value, above)
    elif isinstance(getattr(value, "py_func", None), types.FunctionType):  # numba.njit
        yield repr(sorted(value.targetoptions.items()))
        yield from _describe_function(value.py_func, above)
    else:
        raise _UnnamedError(repr(value))


class Entry:
    """A kernel's object code.

    Args:
        name: symbol of the burst function.
        symbols: what the code takes from the process.
        code: an ELF object.
    """

    def __init__(self, name: str, symbols: list[str], code: bytes) -> None:
        self.name = name
        self.symbols = symbols
        self.code = code


def store(path: Path, entry: Entry) -> None:
    """Keep an entry; a cache is a convenience, so a read-only home stops no NF."""
    head = json.dumps({"name": entry.name, "symbols": entry.symbols})
    digest = hashlib.sha256(head.encode() + entry.code).hexdigest()
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.write_bytes(_MAGIC + f"{digest}\n{head}\n".encode() + entry.code)
        part.chmod(0o600)
        part.replace(path)
    except OSError:
        return


def load(path: Path) -> Entry | None:
    """Read an entry; None when there is none, it is damaged or not ours alone."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            content = file.read()
    except OSError:
        return None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    if not content.startswith(_MAGIC):
        return None
    digest, _, rest = content[len(_MAGIC) :].partition(b"\n")
    head, _, code = rest.partition(b"\n")
    if hashlib.sha256(head + code).hexdigest().encode() != digest:
        return None
    values = json.loads(head)
    return Entry(values["name"], values["symbols"], code)


def prepare(symbols: list[str]) -> bool:
    """Make the symbols known to LLVM; False when one of them is not to be had."""
    own = NATIVE
    for name in sorted(own):
        llvm.add_symbol(name, _address(_nf, name))
    tables = [name for name in symbols if name.startswith(_OWN) and name not in own]
    if tables:
        from onvm_sdk._native import _tables

        for name in tables:
            llvm.add_symbol(name, _address(_tables, name))
    needed = [name for name in symbols if not name.startswith(_OWN)]
    if "numba" not in sys.modules and set(needed) <= {_DESTRUCTOR}:
        # Arrays of a state have no owner that numba knows, so nothing is ever destroyed by it.
        if needed:
            llvm.add_symbol(_DESTRUCTOR, _address(_nf, "onvm_layout_word"))
        return True
    if any(name.startswith(_RUNTIME) for name in needed):
        from numba.core.registry import cpu_target
        from numba.core.runtime import rtsys

        rtsys.initialize(cpu_target.target_context)
    return all(llvm.address_of_symbol(name) is not None for name in needed)


def _address(module: Any, name: str) -> int:
    """Address of a function of a cffi module."""
    return int(module.ffi.cast("uintptr_t", module.ffi.addressof(module.lib, name)))


def link(entry: Entry) -> tuple[int, object]:
    """Give the address of the burst function, and what keeps it there."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(entry.code))
    engine.finalize_object()
    return engine.get_function_address(entry.name), engine
