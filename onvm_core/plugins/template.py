"""Write a new NF package from the template that comes with onvm."""

from __future__ import annotations

import re
import tempfile
from enum import Enum
from importlib import resources
from pathlib import Path

from onvm_sdk.errors import ConfigError, PluginError

__all__ = ["NfKind", "render"]


class NfKind(Enum):
    """The way in which an NF handles packets."""

    COLUMNS = "columns"
    PACKETS = "packets"
    KERNEL = "kernel"
    C = "c"


def render(
    name: str, kind: NfKind, output_dir: Path, answers: dict[str, str] | None = None
) -> Path:
    """Write the package ``onvm-nf-NAME``.

    Args:
        name: name of the NF: lower-case letters, digits and hyphens.
        kind: the way in which its first version handles packets.
        output_dir: parent of its folder; made if missing.
        answers: the template's other variables, such as ``author``.

    Returns:
        The new folder.

    Raises:
        ConfigError: the name is not valid, or the folder exists already.
        PluginError: cookiecutter is not installed.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            "expected lower-case letters, digits and single hyphens, a letter first",
            field="nf new",
            value=name,
        )
    folder = output_dir / f"onvm-nf-{name}"
    if folder.exists():
        raise ConfigError(
            "expected a folder that does not exist yet", field="nf new", value=str(folder)
        )
    try:
        from cookiecutter.main import cookiecutter
    except ImportError as error:
        raise PluginError(
            "expected the extra 'author'; run: pip install 'onvm[author]'", field="nf new"
        ) from error
    # A file keeps its path in an editable install, a folder does not.
    template = Path(
        str(resources.files("onvm_core") / "templates/cookiecutter-nf/cookiecutter.json")
    )
    with tempfile.TemporaryDirectory(prefix="onvm-template-") as scratch:
        # cookiecutter would keep a replay file and a cache of templates in the home directory.
        settings = Path(scratch) / "config.yaml"
        settings.write_text(
            f"replay_dir: {scratch}/replay\ncookiecutters_dir: {scratch}/templates\n"
        )
        made = cookiecutter(
            str(Path(str(template)).parent),
            no_input=True,
            output_dir=str(output_dir),
            config_file=str(settings),
            extra_context={"name": name, "kind": kind.value, **(answers or {})},
        )
    return Path(made)
