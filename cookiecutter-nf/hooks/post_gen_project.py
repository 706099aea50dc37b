"""Remove what was not asked for."""

import shutil
from pathlib import Path

KIND, LICENSE, CI = (
    "{{ cookiecutter.kind }}", "{{ cookiecutter.license }}", "{{ cookiecutter.ci }}"
)

if KIND != "c":
    shutil.rmtree("native")
    Path("meson.build").unlink()
    Path("{{ cookiecutter.package }}", "kernel.py").unlink()
    Path("{{ cookiecutter.package }}", "_kernel.pyi").unlink()
if LICENSE == "none":
    Path("LICENSE").unlink()
if CI not in ("github", "both"):
    shutil.rmtree(".github")
if CI not in ("gitlab", "both"):
    Path(".gitlab-ci.yml").unlink()
