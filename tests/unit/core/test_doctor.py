"""`onvm doctor` sees what is there and names the line that fixes what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from onvm_core.doctor import Finding, Health, dpdk_drivers, dpdk_version, examine


def findings(root: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(root)}


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_bare_host_lacks_and_every_lack_that_can_be_fixed_says_how(tmp_path: Path) -> None:
    found = findings(tmp_path)
    for subject in ("huge pages", "capabilities", "IOMMU", "vfio-pci", "/dev/net/tun"):
        assert found[subject].health is Health.LACK
        assert found[subject].fix
        assert found[subject].purpose


def test_well_equipped_host_is_fine(tmp_path: Path) -> None:
    pages = "sys/kernel/mm/hugepages/hugepages-2048kB"
    write(tmp_path, f"{pages}/nr_hugepages", "512\n")
    write(tmp_path, f"{pages}/free_hugepages", "500\n")
    write(tmp_path, "proc/self/status", "Name:\tonvm\nCapEff:\t000001ffffffffff\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 4194304 kB\n")
    write(tmp_path, "sys/class/iommu/dmar0/id")
    write(tmp_path, "sys/bus/pci/drivers/vfio-pci/bind")
    write(tmp_path, "dev/net/tun")
    write(tmp_path, "sys/devices/system/node/node0/cpulist", "0")
    write(tmp_path, "sys/devices/system/node/node1/cpulist", "1")
    found = findings(tmp_path)
    assert found["huge pages"].found == "500 of 512 free (2 MB)"
    assert found["memory"].found == "4096 MB available"
    assert found["NUMA nodes"].found == "2"
    assert found["capabilities"].found == "net_admin net_raw ipc_lock sys_admin"
    for subject in ("huge pages", "capabilities", "IOMMU", "vfio-pci", "/dev/net/tun", "memory"):
        assert found[subject].health is Health.OK
        assert found[subject].fix == ""


def test_only_missing_capabilities_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", f"CapEff:\t{1 << 12 | 1 << 13:016x}\n")
    capabilities = findings(tmp_path)["capabilities"]
    assert capabilities.found == "net_admin net_raw"
    assert "+ipc_lock,+sys_admin" in capabilities.fix
    assert "+net_admin" not in capabilities.fix


def test_runtime_directory_must_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert findings(tmp_path)["runtime directory"].health is Health.OK
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    assert findings(tmp_path)["runtime directory"].health is Health.LACK


def test_drivers_for_every_port_kind_are_linked() -> None:
    assert {"net_null", "net_pcap", "net_af_packet", "net_tap", "net_memif"} <= set(dpdk_drivers())
    assert tuple(map(int, dpdk_version().split(".")[:2])) >= (22, 11)
