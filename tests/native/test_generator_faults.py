"""Damaged packets for the generator, under sanitizers (native/tests/test_gen_fuzz.c)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("pkg-config") is None,
    reason="cc and pkg-config build the test program",
)
def test_damaged_packets_are_counted_and_freed(tmp_path: Path) -> None:
    flags = subprocess.run(
        ["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True, check=False
    )
    if flags.returncode != 0:
        pytest.skip("libdpdk's headers are not installed")
    program = tmp_path / "test_gen_fuzz"
    subprocess.run(
        [
            "cc",
            "-std=gnu11",
            "-g",
            "-O1",
            "-D_GNU_SOURCE",
            "-DALLOW_EXPERIMENTAL_API",
            "-DONVM_DEBUG",
            "-fsanitize=address,undefined",
            "-fno-sanitize=alignment",
            "-fno-sanitize-recover=all",
            *flags.stdout.split(),
            "-I",
            ROOT / "native/include",
            "-I",
            ROOT / "native/dataplane",
            ROOT / "native/tests/test_gen_fuzz.c",
            "-o",
            program,
        ],
        check=True,
    )
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
