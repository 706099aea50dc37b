"""Remove what only NFs with a C kernel need."""

import shutil
from pathlib import Path

if "{{ cookiecutter.kind }}" != "c":
    shutil.rmtree("native")
    Path("meson.build").unlink()
    Path("{{ cookiecutter.package }}", "kernel.py").unlink()
