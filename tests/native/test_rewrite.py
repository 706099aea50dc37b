# SPDX-License-Identifier: Apache-2.0
"""onvm/rewrite.h gives the bytes that an independent rewrite gave."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from ipaddress import ip_address
from typing import Any

import cffi
import pytest
from shared_data import need_data

from onvm_sdk.config import get_include

SOURCE = """
#include <onvm/rewrite.h>
int rewrite(uint8_t *data, uint32_t length, int side, const uint8_t *address, const uint8_t *port)
{
	struct onvm_headers headers;
	if (onvm_parse(data, length, &headers) != ONVM_L3_OK)
		return -1;
	if (side == 2) {
		onvm_rewrite_icmp_id(data, &headers, port);
		return 0;
	}
	const uint8_t *l3 = data + headers.l3_offset;
	const uint32_t size = headers.ip_version == 4 ? 4 : 16;
	uint8_t same[16];
	memcpy(same, l3 + (headers.ip_version == 4 ? 12 : 8) + side * size, size);
	onvm_rewrite_end(data, &headers, (enum onvm_side)side, address ? address : same, port);
	return 0;
}
"""


@pytest.fixture(scope="module")
def rewrite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("rewrite")
    (folder / "rewrite.c").write_text(SOURCE)
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-I", get_include(), "-o", str(folder / "r.so"), str(folder / "rewrite.c")]
    subprocess.run(command, check=True)
    ffi = cffi.FFI()
    ffi.cdef("int rewrite(uint8_t *, uint32_t, int, const uint8_t *, const uint8_t *);")
    library = ffi.dlopen(str(folder / "r.so"))

    def call(frame: bytes, side: int, address: str | None, port: int | None) -> bytes:
        data = ffi.new("uint8_t[]", frame)
        given = ffi.NULL if address is None else ffi.new("uint8_t[]", ip_address(address).packed)
        number = ffi.NULL if port is None else ffi.new("uint8_t[]", port.to_bytes(2, "big"))
        assert library.rewrite(data, len(frame), side, given, number) == 0
        return bytes(ffi.buffer(data, len(frame)))

    return call


def test_rewrites_agree_with_vectors(rewrite: Any) -> None:
    path = need_data("checksum", "rewrite_vectors.json.gz")
    vectors = json.loads(gzip.decompress(path.read_bytes()))["vectors"]
    checked = 0
    for vector in vectors:
        asked = vector["rewrite"]
        if asked.get("ttl_dec"):
            continue  # not the subject here
        frame = bytes.fromhex(vector["input"])
        if asked.get("src") or asked.get("sport") is not None:
            frame = rewrite(frame, 0, asked.get("src"), asked.get("sport"))
        if asked.get("dst") or asked.get("dport") is not None:
            frame = rewrite(frame, 1, asked.get("dst"), asked.get("dport"))
        if asked.get("icmp_id") is not None:
            frame = rewrite(frame, 2, None, asked["icmp_id"])
        allowed = [vector["expected"], *([vector["also_ok"]] if vector.get("also_ok") else [])]
        assert frame.hex() in allowed, (vector["src"], vector["packet"], asked)
        checked += 1
    assert checked > 100
