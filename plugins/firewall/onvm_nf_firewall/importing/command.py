# SPDX-License-Identifier: Apache-2.0
"""``onvm nf import firewall``."""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from onvm_nf_firewall.config import load
from onvm_nf_firewall.importing import classbench, iptables, nft
from onvm_nf_firewall.importing.imported import Imported
from onvm_sdk.errors import ConfigError

__all__ = ["main"]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}", file=str(path)
        ) from None
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return data.decode("utf-8", errors="replace")


def _report(made: Imported, path: Path) -> None:
    for number, line, reason in made.left_out:
        print(f"{path}: line {number}: left out: {reason}: {line}", file=sys.stderr)
    for number, text in made.notes:
        place = f"line {number}: " if number else ""
        print(f"{path}: {place}note: {text}", file=sys.stderr)
    kept = made.total - sum(not why.startswith("table ") for _, _, why in made.left_out)
    print(f"{path}: {kept} of {made.total} rules expressed", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Write the configuration to standard output, and what is left out to standard error."""
    parser = argparse.ArgumentParser(
        prog="onvm nf import firewall",
        description="Write a configuration with the rules of other software.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--iptables", metavar="FILE", type=Path, help="output of iptables-save")
    source.add_argument("--nft", metavar="FILE", type=Path, help="output of nft list ruleset")
    source.add_argument("--classbench", metavar="FILE", type=Path, help="filters of ClassBench")
    parser.add_argument(
        "--chain",
        metavar="NAME",
        default=None,
        help="the chain of the kernel that every packet meets (default: forward)",
    )
    options = parser.parse_args(arguments)
    path: Path = options.iptables or options.nft or options.classbench
    text = _text(path)
    if options.iptables:
        made = iptables.read(text, options.chain or "FORWARD")
    elif options.nft:
        made = nft.read(text, options.chain)
    else:
        made = classbench.read(text)
    load(made.config(), file=str(path))  # what is written can be read
    sys.stdout.write("\n".join(made.toml()) + "\n")
    _report(made, path)
    return 0
