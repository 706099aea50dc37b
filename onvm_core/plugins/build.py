"""Compile the Python of an NF package with Cython, in place, for NFs that handle packet by packet.

Python looks for a compiled module before it looks for its source, so the NF runs compiled from its
next start on; `clean` brings the source back. Modules with a kernel stay as they are: numba
compiles it, and needs its source.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from onvm_core.plugins.discovery import MANIFEST, find
from onvm_sdk.errors import PluginError

__all__ = ["build", "clean", "package_folder"]


def package_folder(target: str) -> Path:
    """The folder with the modules of an installed NF, or of a package's source folder.

    Raises:
        PluginError: there is none.
    """
    folder = Path(target)
    if folder.is_dir():
        manifests = sorted(folder.glob(f"*/{MANIFEST}"))
        if not manifests:
            raise PluginError(
                f"expected a package with {MANIFEST} beside its modules",
                field="nf build",
                value=target,
            )
        return manifests[0].parent
    path = find(target).manifest_path
    if path is None or path.suffix == ".py":
        raise PluginError("expected the NF of a package", field="nf build", value=target)
    return path.parent


def build(folder: Path) -> list[Path]:
    """Compile the modules of a package, but for those with kernels.

    Returns:
        The compiled modules.

    Raises:
        PluginError: Cython or a C compiler is missing, a module cannot be compiled, or none handles
            packet by packet.
    """
    if importlib.util.find_spec("Cython") is None:
        raise PluginError(
            "expected the extra 'build'; run: pip install 'onvm[build]'", field="nf build"
        )
    clean(folder)
    modules = [file for file in sorted(folder.rglob("*.py")) if not _has_kernel(file)]
    if not modules:
        raise PluginError(
            "expected a module without kernels, which numba compiles",
            field="nf build",
            value=str(folder),
        )
    if not any(_handles_packets(file) for file in modules):
        raise PluginError(
            "expected an NF with process_packet; NFs in C or with columns gain nothing",
            field="nf build",
            value=folder.name,
        )
    # Annotations stay what Python takes them for; and generated C does not stay.
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "--force", "-3"]
    options = ["-X", "annotation_typing=False", "--quiet"]
    done = subprocess.run(
        [*command, *options, *map(str, modules)],
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -O3 -w"},
    )
    for module in modules:
        module.with_suffix(".c").unlink(missing_ok=True)
    made = _compiled(folder)
    if done.returncode != 0 or len(made) != len(modules):
        clean(folder)
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or ".py:" in line]
        raise PluginError(
            f"expected modules that Cython can compile: {(errors or lines or ['no output'])[0]}",
            file=folder,
        )
    return made


def clean(folder: Path) -> list[Path]:
    """Remove compiled modules that have their source beside them; return those there were."""
    found = _compiled(folder)
    for file in found:
        file.unlink()
    return found


def _compiled(folder: Path) -> list[Path]:
    """Compiled modules beside a source of the same name."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    return [
        file
        for source in sorted(folder.rglob("*.py"))
        for suffix in suffixes
        if (file := source.with_name(source.stem + suffix)).is_file()
    ]


def _handles_packets(file: Path) -> bool:
    """True if a class of a module has the method for single packets."""
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "process_packet"
        for node in ast.walk(_tree(file))
    )


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(), str(file))
    except SyntaxError as error:
        raise PluginError(f"expected Python: {error}", field="nf build", value=str(file)) from None


def _has_kernel(file: Path) -> bool:
    """True if a function of a module is a kernel, so that numba needs its source."""
    decorators = [
        node.func if isinstance(node, ast.Call) else node
        for function in ast.walk(_tree(file))
        if isinstance(function, ast.FunctionDef)
        for node in function.decorator_list
    ]
    return any(isinstance(node, ast.Name) and node.id == "kernel" for node in decorators)
