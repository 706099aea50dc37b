"""``onvm nf image``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from onvm_core.cli.options import JsonOption
from onvm_core.cli.output import print_json
from onvm_core.launch.engine import Engine, find_engine
from onvm_core.launch.image import LABEL, reference, write_archive
from onvm_sdk.errors import ConfigError, OnvmError

__all__ = ["image"]

MB = 1_000_000


def image(
    nfs: Annotated[
        list[str],
        typer.Argument(metavar="NF[,NF]", help="Installed NFs; with commas between fused ones."),
    ],
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Container engine: podman or docker.",
            show_default="the first that works here",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write an archive, to load elsewhere.",
            show_default="give it to the engine",
        ),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="PACKAGE",
            help="Another installed package to put in; may be repeated.",
            show_default="none",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make images of installed NFs for the launcher "container".

    Neither a registry nor the network is asked. Older images of the same NFs are removed.

    Examples:
        onvm nf image firewall nat
        onvm nf image nat,lb -o nat-lb.tar
    """
    groups = [tuple(filter(None, group.split(","))) for group in nfs]
    if output is not None and len(groups) != 1:
        raise ConfigError("expected one image for it", field="--output", value=str(output))
    found = None if output is not None else find_engine(engine, field="--engine")
    made = [_make(group, found, output, extra or []) for group in groups]
    if as_json:
        print_json(made)
        return
    for one in made:
        new = "" if one["is_new"] else " (was there)"
        print(f"{one['image']}: {one['bytes'] / MB:,.1f} MB{new}")


def _make(
    nfs: tuple[str, ...], engine: Engine | None, output: Path | None, extra: list[str]
) -> dict[str, Any]:
    name = reference(nfs)
    if engine is None:
        assert output is not None
        try:
            write_archive(output, nfs, extra)
        except OSError as error:
            raise ConfigError(
                f"expected a file that can be written: {error.strerror}",
                field="--output",
                value=str(output),
            ) from None
        return {"image": name, "bytes": output.stat().st_size, "is_new": True}
    is_new = bool(extra) or not engine.has_image(name)
    if is_new:
        with tempfile.TemporaryDirectory(prefix="onvm-image-") as folder:
            archive = Path(folder) / "image.tar"
            write_archive(archive, nfs, extra)
            engine.load(archive)
        _remove_older(engine, nfs, name)
    return {"image": name, "bytes": engine.image_bytes(name), "is_new": is_new}


def _remove_older(engine: Engine, nfs: tuple[str, ...], kept: str) -> None:
    for name in engine.images(LABEL, "+".join(nfs)):
        if name != kept and not name.startswith("<none>"):
            try:
                engine.remove_image(name)
            except OnvmError as error:  # a container still uses it
                typer.echo(f"note: {name} stays: {error}", err=True)
