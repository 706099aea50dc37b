"""What stands about the project outside its code: versions, the changelog, the citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECTS = [ROOT, *(path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml")))]
TYPES = [
    kind["directory"]
    for kind in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
]


def meson_version(project: Path) -> str:
    found = re.search(
        r"^project\([^)]*?version: '([^']+)'", (project / "meson.build").read_text(), re.M
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_the_version_stands_once(project: Path) -> None:
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert "version" in table["dynamic"]
    assert meson_version(project) == meson_version(ROOT)


def test_the_installed_package_has_it() -> None:
    assert version("onvm") == meson_version(ROOT)
    assert {url.split(",")[0] for url in metadata("onvm").get_all("Project-URL") or []} >= {
        "Source",
        "Documentation",
        "Changelog",
        "Issues",
    }


def test_the_citation_names_it() -> None:
    assert f"\nversion: {meson_version(ROOT)}\n" in (ROOT / "CITATION.cff").read_text()


def test_fragments_follow_their_rule() -> None:
    for path in (ROOT / "changelog.d").iterdir():
        if path.name == "README.md":
            continue
        pattern = rf"(\d+|\+[a-z][a-z0-9-]*)\.({'|'.join(TYPES)})(\.\d+)?\.md"
        assert re.fullmatch(pattern, path.name), path.name
        assert path.read_text().strip(), path.name


def test_the_changelog_can_be_made() -> None:
    pytest.importorskip("towncrier", reason="towncrier is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "## 9.9.9" in done.stdout
