# SPDX-License-Identifier: Apache-2.0
"""Where a plugin's build finds the C headers and libraries of onvm.

``python -P -m onvm_sdk.config --includedir`` and ``--libdir``, as ``numpy.get_include()`` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["include_dir", "library_dir", "main"]

_HERE = Path(__file__).resolve().parent


def include_dir() -> Path:
    """Give the folder that holds ``onvm/nf.h``."""
    return _HERE / "include"


def library_dir() -> Path:
    """Give the folder that holds ``libonvm_nf.so`` and ``libonvm_tables.so``."""
    return _HERE / "lib"


def main(arguments: list[str]) -> int:
    """Print what is asked for; 2 if it is not known."""
    known = {"--includedir": include_dir, "--libdir": library_dir}
    if len(arguments) != 1 or arguments[0] not in known:
        print(f"usage: python -P -m onvm_sdk.config {'|'.join(known)}", file=sys.stderr)
        return 2
    print(known[arguments[0]]())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
