"""NFs are found without being imported, in one order, and a bad one harms no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onvm_core.plugins import NfStatus, discover, find
from onvm_sdk.errors import PluginError

MANIFEST = 'schema = 1\nname = "{name}"\nservice = "{name}"\nsdk = ">=0.1,<1"\n'
BOMB = "raise SystemExit('imported')\n"


def distribution(
    site: Path, dist: str, nf: str, manifest: str | None = MANIFEST, version: str = "1.0"
) -> None:
    """Write what pip leaves behind for a distribution with one NF."""
    module = f"nf_{dist.replace('-', '_')}"
    info = site / f"{dist.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[onvm.nf]\n{nf} = {module}:Nf\n")
    (site / module).mkdir()
    (site / module / "__init__.py").write_text(BOMB)
    if manifest is not None:
        (site / module / "onvm-nf.toml").write_text(manifest.format(name=nf))


def test_order_does_not_depend_on_the_path(tmp_path: Path) -> None:
    distribution(tmp_path / "a", "zz-router", "router")
    distribution(tmp_path / "a", "mm-meter", "meter")
    distribution(tmp_path / "b", "aa-firewall", "firewall")
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    forwards, backwards = discover(paths), discover(paths[::-1])
    assert [package.name for package in forwards] == ["firewall", "meter", "router"]
    assert forwards == backwards
    assert all(package.status is NfStatus.OK for package in forwards)


def test_nothing_is_imported(tmp_path: Path) -> None:
    distribution(tmp_path, "onvm-nf-bomb", "bomb")
    code = (
        "import sys; from onvm_core.plugins import discover;"
        f"sys.path.insert(0, {str(tmp_path)!r}); names = [p.name for p in discover()];"
        "assert 'bomb' in names; assert not [m for m in sys.modules if m.startswith('nf_')]"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "expected onvm-nf.toml beside module nf_bad"),
        ("name = [", "TOML"),
        ("schema = 99\nname = 'bad'\nsdk = '>=0.1'\n", "schema"),
        (MANIFEST.replace("{name}", "other"), "'other': expected 'bad'"),
        ("\0", ""),
    ],
    ids=["missing", "not-toml", "future-schema", "other-name", "binary"],
)
def test_broken_one_is_listed_and_harms_no_other(
    tmp_path: Path, manifest: str | None, reason: str
) -> None:
    distribution(tmp_path, "bad", "bad", manifest)
    distribution(tmp_path, "good", "good")
    bad, good = discover([str(tmp_path)])
    assert (bad.status, good.status) == (NfStatus.BROKEN, NfStatus.OK)
    assert bad.manifest is None
    assert bad.reason
    assert reason in bad.reason


def test_distribution_without_metadata_harms_no_other(tmp_path: Path) -> None:
    distribution(tmp_path, "good", "good")
    (tmp_path / "half-1.0.dist-info").mkdir()
    (tmp_path / "rubbish-1.0.dist-info").mkdir()
    (tmp_path / "rubbish-1.0.dist-info" / "entry_points.txt").write_text("[onvm.nf\n= = =\n")
    assert [package.name for package in discover([str(tmp_path)])] == ["good"]


def test_entry_points_that_cannot_be_read_harm_no_other(tmp_path: Path) -> None:
    distribution(tmp_path, "bad", "bad")
    (tmp_path / "bad-1.0.dist-info" / "entry_points.txt").write_bytes(b"[onvm.nf]\n\xff\xfe = =\n")
    distribution(tmp_path, "good", "good")
    packages = {package.name: package for package in discover([str(tmp_path)])}
    assert packages["good"].status is NfStatus.OK
    assert packages["bad"].status is NfStatus.BROKEN


def test_of_two_distributions_with_one_name_the_first_goes_on(tmp_path: Path) -> None:
    distribution(tmp_path, "bob-nat", "nat")
    distribution(tmp_path, "alice-nat", "nat")
    for number, dist in enumerate(("bob_nat", "alice_nat"), 1):
        os.utime(tmp_path / f"{dist}-1.0.dist-info" / "entry_points.txt", (number, number))
    distribution(tmp_path, "good", "good")
    packages = discover([str(tmp_path)])
    assert [package.distribution for package in packages] == ["good", "bob-nat", "alice-nat"]
    assert [package.status for package in packages[1:]] == [NfStatus.OK, NfStatus.CONFLICT]
    assert packages[2].reason == "'nat' belongs to bob-nat, which was there first"
    assert find("nat", packages).distribution == "bob-nat"
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from onvm_sdk._hosting.plugin import load_plugin;"
        "print(load_plugin('nat').entry_point.module)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.PIPE)
    assert done.stdout == b"nf_bob_nat\n"
    assert find("good", packages).distribution == "good"


def test_one_distribution_twice_on_the_path_counts_once(tmp_path: Path) -> None:
    distribution(tmp_path / "a", "onvm-nf-nat", "nat", version="2.0")
    distribution(tmp_path / "b", "onvm_nf_nat", "nat", version="1.0")
    (package,) = discover([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (package.version, package.status) == ("2.0", NfStatus.OK)


def test_find_names_what_is_there(tmp_path: Path) -> None:
    distribution(tmp_path, "good", "good")
    distribution(tmp_path, "bad", "bad", None)
    packages = discover([str(tmp_path)])
    with pytest.raises(PluginError, match="'nope': expected an installed NF: one of good"):
        find("nope", packages)
    with pytest.raises(PluginError, match="broken: expected onvm-nf"):
        find("bad", packages)
