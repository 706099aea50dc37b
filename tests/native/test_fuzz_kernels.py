# SPDX-License-Identifier: Apache-2.0
"""Every plugin's kernel under AddressSanitizer and UBSan; the plan is in fuzz_kernels.c."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from onvm_sdk.config import get_include, get_lib

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "firewall": "static const uint8_t a[3]={1,0,1},side[3]={0,2,1};"
    "static const struct onvm_acl_rule r[3]={"
    "{.protocol=6,.protocol_mask=255,.src_port_last=65535,.dst_port_first=1,.dst_port_last=2,"
    ".priority=3,.value=1},"
    "{.protocol=17,.protocol_mask=255,.src_port_last=65535,.dst_port_last=65535,.priority=2,"
    ".value=2},"
    "{.src_port_last=65535,.dst_port_last=65535,.priority=1,.value=3}};"
    "struct firewall_config c={.rules4=r,.nb_rules4=3,.rules6=r,.nb_rules6=3,.accepts=a,"
    ".sides=side,"
    ".nb_accepts=3,.max_connections=64,.max_per_source=20,.is_stateful=1,.is_midstream=1,"
    ".passes_fragments=1,.passes_ip_options=1,.passes_kind={1,0,1,0,1,1},"
    ".tcp_syn_ns=1000000000,.tcp_syn_received_ns=2000000000,.tcp_established_ns=5000000000,"
    ".tcp_transitory_ns=1000000000,.tcp_closing_ns=1000000,.udp_ns=1,.udp_unreplied_ns=1,"
    ".icmp_ns=1000000,.other_ns=1000}",
    "nat": "struct nat_config c={.externals={{192,0,2,1},{198,51,100,10}},.nb_externals=2,"
    ".first_port=0,.end_port=6,.max_sessions=16,.subscriber_ports=4,.filtering=1,.keeps_parity=1,"
    ".subscriber_sessions=3,.port_rest_ns=1000000,.idle_ns={1000000000,1000000000,1000,"
    "9000000000,9000000000,5000000000,9000000000,5000000000}}",
    "lb": "static const uint32_t t[3]={0,1,0};static const struct lb_backend b[2]={"
    "{.address={203,0,113,1}},{.address={10,0,0,2}}};static const struct lb_vip v[2]={"
    "{.address={198,51,100,10},.ip_version=4,.protocol=6,.nb_backends=2,.table_size=3,.table=t},"
    "{.address={198,51,100,10},.ip_version=4,.protocol=17,.port={0,2},.nb_backends=2,"
    ".table_size=3,.table=t}};"
    "struct lb_config c={.vips=v,.backends=b,.nb_vips=2,.nb_backends=2,.max_connections=40,"
    ".idle_ns={1000,1000000000,1000,5000000000},.rejects=1}",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_kernel_survives_garbage_under_sanitizers(name: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder, program = ROOT / "plugins" / name / "native", tmp_path / name
    flags = [
        "-std=gnu11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    defines = [
        f'-DKERNEL_HEADER="{name}.h"',
        f"-DKERNEL_NEW(s)={CONFIGS[name]};s={name}_create(&c)",
        f"-DKERNEL_BURST={name}_burst",
        f"-DKERNEL_FREE={name}_free",
    ]
    sources = [str(Path(__file__).with_name("fuzz_kernels.c")), *map(str, folder.glob("*.c"))]
    where = ["-I", get_include(), "-I", str(folder), "-I", str(ROOT / "native" / "tests")]
    linked = ["-L", get_lib(), "-lonvm_tables", f"-Wl,-rpath,{get_lib()}", "-o", str(program)]
    subprocess.run([compiler, *flags, *defines, *sources, *where, *linked], check=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # DPDK keeps its own
    done = subprocess.run(
        [program, "4000"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
