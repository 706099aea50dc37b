"""Images of the benchmark's NFs: built for a benchmark, and removed after it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onvm_core.bench.elastic import PASS
from onvm_core.bench.scenario import Scenario, run_scenario
from onvm_core.bench.turns import TWIN
from onvm_core.launch.engine import Engine, find_engine
from onvm_core.launch.image import reference, write_archive
from onvm_sdk.errors import OnvmError

__all__ = ["images"]

_NEEDS = {PASS: (), TWIN: ("numpy", "numba")}
"""Distributions that the NFs import, besides the SDK."""


@contextlib.contextmanager
def images() -> Iterator[bool]:
    """Build the missing images; returns whether containers can be measured.

    If not, the reason goes to stderr.
    """
    made: list[tuple[Engine, str]] = []
    is_there = False
    try:
        engine = find_engine("")
        # Compiled kernels go into the image: in a read-only one they would be compiled each time.
        run_scenario(Scenario(kind="elastic_through", seconds=0.1))
        for nf, needs in _NEEDS.items():
            name = reference((nf,))
            if not engine.has_image(name):
                made.append((engine, name))
                _make(engine, nf, needs)
        is_there = True
    except OnvmError as error:
        print(f"not measured: launcher container: {error}", file=sys.stderr)
    try:
        yield is_there
    finally:
        for engine, name in made:
            with contextlib.suppress(OnvmError):
                engine.remove_image(name)


def _make(engine: Engine, nf: str, needs: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="onvm-image-") as folder:
        archive = Path(folder) / "image.tar"
        write_archive(archive, (nf,), needs)
        engine.load(archive)
