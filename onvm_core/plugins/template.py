"""Write a new NF package from the template that comes with onvm."""

from __future__ import annotations

import keyword
import re
import tempfile
import time
from enum import Enum
from importlib import resources
from pathlib import Path

import onvm_sdk
from onvm_sdk.errors import ConfigError, PluginError
from onvm_sdk.manifest import NF_NAME_LETTERS

__all__ = ["Ci", "License", "NfKind", "render"]


class NfKind(Enum):
    """The way in which an NF handles packets."""

    COLUMNS = "columns"
    PACKETS = "packets"
    KERNEL = "kernel"
    C = "c"


class License(Enum):
    """A licence by its SPDX identifier."""

    APACHE = "Apache-2.0"
    MIT = "MIT"
    BSD = "BSD-3-Clause"
    NONE = "none"


class Ci(Enum):
    """The services that get files for tests and releases."""

    NONE = "none"
    GITHUB = "github"
    GITLAB = "gitlab"
    BOTH = "both"


def render(
    name: str,
    kind: NfKind,
    output_dir: Path,
    *,
    description: str = "",
    author: str = "",
    license: License = License.APACHE,
    ci: Ci = Ci.NONE,
) -> Path:
    """Write the package ``onvm-nf-NAME``.

    Args:
        name: name of the NF: lower-case letters, digits and hyphens.
        kind: the way in which its first version handles packets.
        output_dir: parent of its folder; made if missing.
        description: its purpose, in one line; "" leaves that of the template.
        author: for its metadata and licence; "" leaves it out.
        license: its licence.
        ci: the services that test and publish it.

    Returns:
        The new folder.

    Raises:
        ConfigError: an argument is not valid, or the folder exists already.
        PluginError: cookiecutter is not installed.
    """
    _check_name(name)
    for option, text in (("--description", description), ("--author", author)):
        if not text.isprintable():
            raise ConfigError("expected one line of text", field=option, value=text)
    folder = output_dir / f"onvm-nf-{name}"
    _check_folder(output_dir, folder)
    try:
        from cookiecutter.main import cookiecutter
    except ImportError as error:
        raise PluginError(
            "expected the extra 'author'; run: pip install 'onvm[author]'", field="nf new"
        ) from error
    answers = {"description": description, "author": author}
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
            extra_context={
                "name": name,
                "kind": kind.value,
                "license": license.value,
                "ci": ci.value,
                "class_name": _class_name(name),
                "year": time.strftime("%Y"),
                **{key: text for key, text in answers.items() if text},
            },
        )
    return Path(made)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            "expected lower-case letters, digits and single hyphens, a letter first",
            field="nf new",
            value=name,
        )
    if len(name) > NF_NAME_LETTERS:
        raise ConfigError(
            f"expected at most {NF_NAME_LETTERS} letters; this has {len(name)}",
            field="nf new",
            value=name,
        )


def _check_folder(parent: Path, folder: Path) -> None:
    """See that `folder` can be made in `parent`."""
    if folder.exists():
        raise ConfigError(
            "expected a folder that does not exist yet", field="nf new", value=str(folder)
        )
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        reason = "it is a file" if parent.exists() and not parent.is_dir() else error.strerror
        raise ConfigError(
            f"expected a folder that can be written: {reason}",
            field="--output-dir",
            value=str(parent),
        ) from None


def _class_name(name: str) -> str:
    """The name in capitals; none that the package needs for something else."""
    words = "".join(word.capitalize() for word in name.split("-"))
    taken = keyword.iskeyword(words) or words in (*onvm_sdk.__all__, "Any")
    return f"{words}Nf" if taken else words
