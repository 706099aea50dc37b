"""Paths of onvm's headers and libraries, for the build of a plugin, and bindings of its headers.

``python -P -m onvm_sdk.config --includedir`` and ``--libdir`` print the paths for a meson.build.
``--bind MODULE HEADER... -o FILE.c`` writes the C source of a cffi module with the functions and
constants of the headers, and the types that they need.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from onvm_sdk import _cdef

__all__ = ["get_include", "get_lib"]


def get_include() -> str:
    """Return the folder that contains ``onvm/nf.h``."""
    return str(_installed("include/onvm/nf.h").parents[1])


def get_lib() -> str:
    """Return the folder that contains ``libonvm_nf.so`` and ``libonvm_tables.so``."""
    return str(_installed("lib/libonvm_tables.so").parent)


def _installed(name: str) -> Path:
    # An editable install has its files where they are written or built, not in one folder.
    return Path(str(files("onvm_sdk").joinpath(*name.split("/")))).resolve()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="onvm_sdk.config", description=__doc__)
    parser.add_argument("--includedir", action="store_true", help="print the folder of headers")
    parser.add_argument("--libdir", action="store_true", help="print the folder of libraries")
    parser.add_argument("--bind", metavar="MODULE", help="write the C source of a cffi module")
    _cdef.add_arguments(parser)
    arguments = parser.parse_args()
    if not (arguments.includedir or arguments.libdir or arguments.bind):
        parser.error("expected --includedir, --libdir or --bind")
    if arguments.includedir:
        print(get_include())
    if arguments.libdir:
        print(get_lib())
    if arguments.bind:
        if not (arguments.headers and arguments.output):
            parser.error("--bind: expected headers and -o")
        arguments.folders.append(get_include())
        _cdef.run(arguments.bind, arguments)


if __name__ == "__main__":
    _main()
