"""Network cards: addresses, what keeps one from use, and what DPDK is told of them."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from onvm_core.dataplane.values import DataplaneSettings
from onvm_core.manager import ports
from onvm_core.manager.ports import NULL, PCI, PortRequest, cards_of
from onvm_core.manager.startup.cards import (
    Card,
    bind_command,
    card_obstacle,
    cards_obstacle,
    needs_physical,
    network_cards,
    pci_address,
    read_card,
)
from onvm_core.manager.startup.environment import eal_arguments
from onvm_core.plugins.port_kind import DeviceOptions
from onvm_sdk.errors import ConfigError

ADDRESS = "0000:41:00.0"
MIB = 1 << 20


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def add_card(
    root: Path, address: str = ADDRESS, driver: str = "vfio-pci", group: str = "7", name: str = ""
) -> None:
    """A network card in a made-up /sys."""
    device = f"sys/bus/pci/devices/{address}"
    write(root, f"{device}/class", "0x020000\n")
    write(root, f"{device}/numa_node", "1\n")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (root / device / "driver").symlink_to(f"../../drivers/{driver}")
    if group:
        write(root, f"sys/kernel/iommu_groups/{group}/name", name)
        (root / device / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{group}")


def limit(root: Path, monkeypatch: pytest.MonkeyPatch, memlock: int) -> None:
    """A process without privileges that may lock so many bytes."""
    write(root, "proc/self/status", "CapEff:\t0000000000000000\n")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (memlock, memlock))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0000:41:00.0", ADDRESS),
        ("41:00.0", ADDRESS),
        ("0001:C1:1F.7", "0001:c1:1f.7"),
        ("", ""),
        ("..", ""),
        ("eth0", ""),
        ("41:00", ""),
        ("41:00.8", ""),
        ("0000:41:00.0,arg=1", ""),
    ],
)
def test_addresses_are_read_as_lspci_prints_them(text: str, address: str) -> None:
    assert pci_address(text) == address


def test_only_named_cards_are_probed() -> None:
    one = eal_arguments([0], cards=["0000:41:00.0", "0000:81:00.0"])
    assert one[-4:] == ["-a", "0000:41:00.0", "-a", "0000:81:00.0"]
    assert "--no-pci" not in one
    assert {"--no-huge", "--iova-mode=va"} <= {*one}
    assert "--no-pci" in eal_arguments([0])
    every = eal_arguments([0], cards=[])
    assert "-a" not in every
    assert "--no-pci" not in every


def test_without_an_iommu_all_memory_is_huge_pages() -> None:
    arguments = eal_arguments([0], cards=[ADDRESS], is_physical=True)
    assert {"--in-memory", "--iova-mode=pa"} <= {*arguments}
    assert "--no-huge" not in arguments


def test_card_bound_to_vfio_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_card(tmp_path)
    limit(tmp_path, monkeypatch, 600 * MIB)
    assert read_card(ADDRESS, tmp_path) == Card(ADDRESS, "vfio-pci", "7", True, 1)
    assert cards_obstacle([ADDRESS], 19 * MIB, tmp_path)[1] == ""
    assert not needs_physical([ADDRESS], tmp_path)


def test_card_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    add_card(tmp_path, "0000:02:00.0")
    assert card_obstacle(ADDRESS, tmp_path) == (
        "expected the address of a network card of this host (0000:02:00.0); run: lspci -D"
    )


def test_driver_of_the_kernel_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    add_card(tmp_path, driver="e1000e")
    write(tmp_path, f"sys/bus/pci/devices/{ADDRESS}/net/eth1/mtu")
    line = card_obstacle(ADDRESS, tmp_path)
    assert "is bound to e1000e, which makes it eth1; run: sudo sh -c" in line
    assert f"echo {ADDRESS} > /sys/bus/pci/devices/{ADDRESS}/driver/unbind" in line
    assert "\n" not in line


def test_card_without_a_driver_needs_no_unbinding(tmp_path: Path) -> None:
    add_card(tmp_path, driver="")
    line = card_obstacle(ADDRESS, tmp_path)
    assert "is bound to no driver; run: sudo sh -c" in line
    assert "unbind" not in line
    assert bind_command(network_cards(tmp_path)[0]) in line


def test_without_an_iommu_the_line_says_how_to_get_one(tmp_path: Path) -> None:
    add_card(tmp_path, driver="e1000e", group="")
    assert card_obstacle(ADDRESS, tmp_path).endswith("intel_iommu=on iommu=pt (AMD: iommu=pt)")
    option = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    write(tmp_path, option, "N\n")
    assert f"run: echo 1 | sudo tee /{option}" in card_obstacle(ADDRESS, tmp_path)
    write(tmp_path, option, "Y\n")
    assert "driver_override" in card_obstacle(ADDRESS, tmp_path)


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic"])
def test_without_an_iommu_huge_pages_are_counted(tmp_path: Path, driver: str) -> None:
    is_vfio = driver == "vfio-pci"
    add_card(tmp_path, driver=driver, group="0" if is_vfio else "", name="vfio-noiommu\n")
    assert needs_physical([ADDRESS], tmp_path)
    pages = "sys/kernel/mm/hugepages/hugepages-2048kB"
    write(tmp_path, f"{pages}/nr_hugepages", "100\n")
    write(tmp_path, f"{pages}/free_hugepages", "90\n")
    assert cards_obstacle([ADDRESS], 20 * MIB, tmp_path) == (
        ADDRESS,
        "expected 266 free huge pages for a card without an IOMMU, there are 90; run: "
        "echo 276 | sudo tee /proc/sys/vm/nr_hugepages",
    )
    write(tmp_path, f"{pages}/free_hugepages", "300\n")
    assert cards_obstacle([ADDRESS], 20 * MIB, tmp_path) == (ADDRESS, "")


def test_limit_of_locked_memory_counts_all_that_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(tmp_path)
    limit(tmp_path, monkeypatch, 64 * MIB)
    line = cards_obstacle([ADDRESS], 19 * MIB, tmp_path)[1]
    assert line == (
        "expected 531 MiB of locked memory, the limit is 64 MiB; run: "
        f"sudo prlimit --pid $$ --memlock={531 * MIB}"
    )
    write(tmp_path, "proc/self/status", f"CapEff:\t{1 << 14:016x}\n")
    assert cards_obstacle([ADDRESS], 19 * MIB, tmp_path)[1] == ""


def test_card_that_a_process_holds_is_refused_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(tmp_path)
    write(tmp_path, "dev/vfio/7")

    def busy(*_arguments: object) -> int:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("onvm_core.manager.startup.cards.os.open", busy)
    assert "a process has its group 7; run: sudo fuser -v /dev/vfio/7" in card_obstacle(
        ADDRESS, tmp_path
    )
    (tmp_path / "proc/4242/fd").mkdir(parents=True)
    (tmp_path / "proc/4242/fd/9").symlink_to("/dev/vfio/7")
    assert card_obstacle(ADDRESS, tmp_path) == (
        "expected a card that is free, process 4242 has its group 7; run: ps -fp 4242"
    )


KINDS = {"pci": PCI, "null": NULL}


def test_ports_without_cards_need_no_pci() -> None:
    assert cards_of({"--in": "null:", "--out": "null:"}, KINDS, DataplaneSettings()) is None


def test_cards_of_ports_are_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "cards_obstacle", lambda *_: ("", ""))
    uris = {"ports.a.uri": "pci:41:00.0?mtu=9000", "ports.b.uri": "null:"}
    assert cards_of(uris, KINDS, DataplaneSettings()) == [ADDRESS]
    assert PCI.device is not None
    request = PortRequest("a", "41:00.0", DeviceOptions(), "both")
    assert PCI.device(request).arguments == ADDRESS


@pytest.mark.parametrize(
    ("uris", "line"),
    [
        (
            {"ports.a.uri": "pci:"},
            "f.toml: ports.a.uri: 'pci:': expected the address of a network card, as in "
            "pci:0000:01:00.0; run: lspci -D",
        ),
        (
            {"ports.a.uri": "pci:41:00.0", "ports.b.uri": f"pci:{ADDRESS}"},
            f"f.toml: ports.b.uri: 'pci:{ADDRESS}': expected a card of its own, ports.a.uri has "
            "this one",
        ),
        (
            {"ports.a.uri": "pci:41:00.0"},
            "f.toml: ports.a.uri: 'pci:41:00.0': expected the moon",
        ),
    ],
)
def test_mistakes_name_the_port(
    uris: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "cards_obstacle", lambda *_: (ADDRESS, "expected the moon"))
    with pytest.raises(ConfigError) as error:
        cards_of(uris, KINDS, DataplaneSettings(), file="f.toml")
    assert str(error.value) == line
