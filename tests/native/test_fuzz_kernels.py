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
    "firewall": "static const struct onvm_acl_rule r[2]={"
    "{.protocol=6,.protocol_mask=255,.src_port_last=65535,.dst_port_first=1,.dst_port_last=2,"
    ".priority=9,.value=1},"
    "{.src_port_last=65535,.dst_port_last=65535,.priority=1,.value=9}};"
    "static const struct firewall_entry e[9]={{.action=2,.side=1},"
    "{.action=3,.nb_conditions=1},{.action=2,.answer=2,.first_condition=1,.nb_conditions=2},"
    "{.action=5,.next=4,.first_condition=3,.nb_conditions=2,.names_transport=1},"
    "{.action=4,.first_condition=5,.nb_conditions=2,.names_transport=1,.is_counted=1},"
    "{.action=2,.first_condition=7,.nb_conditions=1,.names_transport=1},"
    "{.action=1,.first_condition=8,.nb_conditions=2},{.action=0,.first_condition=10,"
    ".nb_conditions=1,.takes_invalid=1,.names_transport=1},{.action=0,.side=0,.next=7}};"
    "static const uint32_t w[7]={1,2,3,4,5,6,7},q[6]={18,2,1024,256,0,20},a4[2]={1,1u<<31};"
    "static const uint64_t a6[4]={1,0,1ull<<63,0};"
    "static const struct firewall_set t[1]={{a4,a6,1,1}};"
    "static const struct firewall_limit l[2]={{1000,9000,0,32,64,0,{0}},{500,600,1,20,33,1,{0}}};"
    "static const uint8_t m[6]={2,0,0,0,0,1};"
    "static const struct firewall_condition d[11]={{0,0,0,0,{0}},{0,0,1,0,{0}},{0,0,7,0,{0}},"
    "{0,1,2,1,{0}},{1,0,9,0,{0}},{0,1,1,0,{0}},{0,0,9,0,{0}},{1,1,3,1,{0}},{2,1,5,1,{0}},"
    "{0,1,6,1,{0}},{8,0,4,0,{0}}};"
    "static struct firewall_span n[70];for(uint32_t i=0;i<70;i++)n[i]=(struct firewall_span){"
    ".last_high=i%5==0||i%5==1?~0ull>>(i/10):0,.last_low=i%5==4?255:~0ull,.position=i/10,"
    ".field=i%5,.ip_version=i/5%2?6:4};"
    "struct firewall_config c={.rules4=r,.nb_rules4=2,.rules6=r,.nb_rules6=2,.entries=e,"
    ".nb_entries=9,.conditional=w,.nb_conditional=7,.spans=n,.nb_spans=70,.conditions=d,"
    ".nb_conditions=11,.pairs=q,.nb_pairs=3,.macs=m,.nb_macs=1,.sets=t,.nb_sets=1,.limits=l,"
    ".nb_limits=2,.nb_rules=1,.nb_columns=1,.max_limited=9,.reject_rate=1000000,.log_rate=9,"
    ".max_connections=64,.max_per_source=20,.is_stateful=1,.is_midstream=1,"
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
    sources = [str(Path(__file__).with_name("fuzz_kernels.c")), *map(str, folder.rglob("*.c"))]
    where = ["-I", get_include(), "-I", str(folder), "-I", str(ROOT / "native" / "tests")]
    linked = ["-L", get_lib(), "-lonvm_tables", f"-Wl,-rpath,{get_lib()}", "-o", str(program)]
    subprocess.run([compiler, *flags, *defines, *sources, *where, *linked], check=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # DPDK keeps its own
    done = subprocess.run(
        [program, "4000"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
