# SPDX-License-Identifier: Apache-2.0
"""Declarations for cffi are those of the headers, with what they need and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cffi
import pytest

from onvm_sdk._cdef import make_cdef

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

TYPES = """
#include <stdint.h>
#include <assert.h>
#define LENGTH 8
enum colour { RED, GREEN = 1 << 2 };
struct inner { uint8_t colour[GREEN]; };
struct unused { int x; };
typedef struct { int y; } pair_t;
typedef int (*callback)(void *arg);
static_assert(sizeof(struct inner) == 4, "size; { of it");
int elsewhere(void);
"""
BOUND = """
#include "types.h"
#define TWICE (LENGTH * 2u) /* an integer */
#define CALL(x) x
#define TEXT "text"
#define NOTHING
#define TYPE uint8_t
struct opaque;
struct outer {
	struct inner inner[TWICE];
	_Alignas(64) uint32_t word;
	callback call;
};
__attribute__((visibility("default"))) int
shown(const struct outer *outer, pair_t pair);
int hidden(struct opaque *opaque);
static inline int
inlined(int x)
{
	if (x) {
		return 1;
	}
	return 0;
}
#ifdef ONVM_CDEF
extern "Python" int back(void *handle);
#endif
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "types.h").write_text(TYPES)
    (tmp_path / "bound.h").write_text(BOUND)
    return str(tmp_path)


def test_a_module_gets_what_its_headers_declare_and_the_types_that_needs(folder: str) -> None:
    cdef = make_cdef(["bound.h"], [folder])
    for part in ("shown", "hidden", "back", "TWICE", "struct inner {", "pair_t", "callback"):
        assert part in cdef
    for part in ("inlined", "elsewhere", "unused", "LENGTH", "TEXT", "CALL", "NOTHING", "TYPE"):
        assert part not in cdef


def test_cffi_reads_it(folder: str) -> None:
    ffi = cffi.FFI()
    ffi.cdef(make_cdef(["types.h"], [folder]).replace("#define LENGTH ...", ""))
    assert ffi.sizeof("struct inner") == 4
    assert ffi.typeof("enum colour").relements == {"RED": 0, "GREEN": 4}
    ffi = cffi.FFI()
    ffi.cdef(make_cdef(["bound.h"], [folder]))


def test_hidden_functions_stay_out_of_what_a_library_exports(folder: str) -> None:
    cdef = make_cdef(["bound.h"], [folder], is_exported_only=True)
    assert "shown" in cdef and "back" in cdef
    assert "hidden" not in cdef


def test_the_compiler_places_aligned_members(folder: str) -> None:
    outer = next(
        line for line in make_cdef(["bound.h"], [folder]).splitlines() if "outer {" in line
    )
    assert "_Alignas" not in outer
    assert "...;" in outer


def test_make_learns_which_headers_were_read(folder: str, tmp_path: Path) -> None:
    depfile = tmp_path / "bound.d"
    make_cdef(["bound.h"], [folder], depfile=(str(depfile), "bound.c"))
    rule = depfile.read_text()
    assert rule.startswith("bound.c:")
    assert f"{folder}/types.h" in rule
