# SPDX-License-Identifier: Apache-2.0
"""The documentation site: ``make docs`` builds it into ``build/site``.

A page with ``{{ NAME }}`` in a line of its own has that part written from the code, see
`_reference`. Links to files outside of ``docs`` lead to the repository.
"""

from __future__ import annotations

import posixpath
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _reference  # noqa: E402

_URLS = metadata.metadata("onvm").get_all("Project-URL", [])
_REPOSITORY = dict(line.split(", ", 1) for line in _URLS)["Source"]
_PLACEHOLDER = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)
_LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)((?:#[^)]*)?\))")

project = "onvm"
author = project_copyright = "the onvm authors"
release = version = metadata.version("onvm")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]
nitpicky = False
default_role = "code"
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_typehints = "signature"
html_theme = "furo"
html_title = f"onvm {release}"
html_theme_options = {"source_repository": _REPOSITORY, "source_directory": "docs/"}


def _write(_app: Any, name: str, source: list[str]) -> None:
    folder = posixpath.dirname(name)

    def leave(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        if target.startswith("docs/"):
            return found[0]
        return f"{found[1]}{_REPOSITORY}/blob/main/{target}{found[3]}"

    text = _PLACEHOLDER.sub(lambda found: _reference.PAGES[found[1]](), source[0])
    source[0] = _LINK.sub(leave, text)


def setup(app: Any) -> None:
    """Register what this site adds to Sphinx."""
    app.connect("source-read", _write)
