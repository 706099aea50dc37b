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
    for subject in ("capabilities", "IOMMU", "vfio-pci", "/dev/net/tun"):
        assert found[subject].health is Health.LACK
        assert found[subject].fix
        assert found[subject].purpose
    assert "enable_unsafe_noiommu_mode" not in found["IOMMU"].fix, "this kernel has no such option"


def add_card(root: Path, driver: str) -> None:
    device = "sys/bus/pci/devices/0000:41:00.0"
    write(root, f"{device}/class", "0x020000")
    write(root, f"{device}/numa_node", "1")
    (root / device / "driver").symlink_to(f"../../drivers/{driver}")


def test_cards_are_listed_with_the_line_that_binds_them(tmp_path: Path) -> None:
    add_card(tmp_path, "e1000e")
    write(tmp_path, "sys/bus/pci/devices/0000:41:00.0/net/eth1/mtu")
    write(tmp_path, "sys/kernel/iommu_groups/7/type")
    (tmp_path / "sys/bus/pci/devices/0000:41:00.0/iommu_group").symlink_to(
        "../../../../kernel/iommu_groups/7"
    )
    card = findings(tmp_path)["card 0000:41:00.0"]
    assert card.found == "e1000e, eth1, NUMA node 1, IOMMU group 7"
    assert card.health is Health.OK
    assert card.fix.endswith("  # the kernel loses eth1")
    assert "drivers_probe" in card.fix


def test_card_that_vfio_would_not_take_has_no_line_that_binds_it(tmp_path: Path) -> None:
    add_card(tmp_path, "virtio-pci")
    write(tmp_path, "sys/bus/pci/devices/0000:41:00.0/virtio0/net/eth0/mtu")
    card = findings(tmp_path)["card 0000:41:00.0"]
    assert (card.found, card.fix) == ("virtio-pci, eth0, NUMA node 1, no IOMMU", "")


def test_huge_pages_are_optional_unless_a_card_has_no_iommu(tmp_path: Path) -> None:
    assert findings(tmp_path)["huge pages"].health is Health.OK
    add_card(tmp_path, "uio_pci_generic")
    assert findings(tmp_path)["huge pages"].health is Health.LACK
    assert findings(tmp_path)["huge pages"].fix.startswith("echo ")


def test_locked_memory_counts_what_a_manager_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (64 << 20, 64 << 20))
    lack = findings(tmp_path)["locked memory"]
    assert (lack.found, lack.health) == ("64 MiB", Health.LACK)
    assert lack.fix.startswith("sudo prlimit --pid $$ --memlock=")
    write(tmp_path, "proc/self/status", f"CapEff:\t{1 << 14:016x}\n")
    assert findings(tmp_path)["locked memory"].health is Health.OK


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
    assert {"net_af_xdp", "net_memif", "net_virtio", "net_e1000", "net_i40e"} <= set(dpdk_drivers())
    assert tuple(map(int, dpdk_version().split(".")[:2])) >= (22, 11)
