"""Images of NFs for podman and docker, made from the packages installed here.

An image is written as the archive that ``docker save`` makes and both programs load: layers as tar
files, a configuration, and ``manifest.json`` (Docker image specification 1.2). No registry and no
base image is used. Its name contains a digest of the NFs' files, the SDK and their requirements: a
reinstalled NF needs a new image, and an old image is never run by mistake.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import py_compile
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from onvm_core.launch import image_files
from onvm_core.launch.image_files import HOME, Layer

__all__ = ["ATTACH_FOLDER", "LABEL", "reference", "write_archive"]

ATTACH_FOLDER = PurePosixPath("/run/onvm")
LABEL = "onvm.nfs"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOLDERS = ("dev", "proc", "sys", "etc", "tmp", "var", "run", str(ATTACH_FOLDER).lstrip("/"))
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": str(HOME / "lib"),
    "PATH": str(HOME / "python/bin"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHOME": str(HOME / "python"),
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": str(HOME / "site"),
    "XDG_CACHE_HOME": str(HOME / "cache"),
    "XDG_RUNTIME_DIR": "/tmp",
}


def reference(nfs: Sequence[str]) -> str:
    """Name and tag of the image of these NFs, as they are installed now.

    Raises:
        ConfigError: an NF is not installed.
    """
    sources = image_files.find_sources(nfs)
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(nfs).lower()).strip("-")
    return f"localhost/onvm-nf-{name}:{image_files.digest(sources)}"


def write_archive(path: Path, nfs: Sequence[str], extra: Iterable[str] = ()) -> str:
    """Write an image of NFs to a file, for ``podman load`` or ``docker load``; return its name.

    Args:
        extra: distributions to put in besides those that the NFs require.

    Raises:
        ConfigError: an NF, or one of its requirements, is not installed.
    """
    name = reference(nfs)
    layers = image_files.collect(image_files.find_sources(nfs), extra)
    layers[-1].files |= _compiled_kernels()
    with tempfile.TemporaryDirectory(prefix="onvm-image-") as folder:
        digests = []
        for number, layer in enumerate(layers):
            file = Path(folder) / f"{number}.tar"
            _write_layer(file, layer, with_folders=number == 0)
            digests.append(_sha256(file))
        config = json.dumps(_config(nfs, layers, digests)).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [
            {
                "Config": config_name,
                "RepoTags": [name],
                "Layers": [f"{digest}/layer.tar" for digest in digests],
            }
        ]
        with tarfile.open(path, "w") as archive:
            for number, digest in enumerate(digests):
                archive.add(Path(folder) / f"{number}.tar", f"{digest}/layer.tar")
            _add_bytes(archive, config_name, config)
            _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
    return name


def _config(nfs: Sequence[str], layers: Sequence[Layer], digests: Sequence[str]) -> object:
    machine = platform.machine()
    return {
        "architecture": _MACHINES.get(machine, machine),
        "os": "linux",
        "created": datetime.now(UTC).isoformat(),
        "config": {
            "Env": [f"{key}={value}" for key, value in _ENVIRONMENT.items()],
            "Entrypoint": [str(HOME / "python/bin/python3"), "-P", "-m", "onvm_sdk.runtime"],
            "WorkingDir": "/tmp",
            "Labels": {LABEL: "+".join(nfs)},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": f"onvm nf image: {layer.text}"} for layer in layers],
    }


def _write_layer(file: Path, layer: Layer, *, with_folders: bool) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        if with_folders:
            for folder in _FOLDERS:
                _add_folder(archive, folder, 0o1777 if folder == "tmp" else 0o755)
            link = tarfile.TarInfo("var/run")  # DPDK's tables have their lock there
            link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
            archive.addfile(link)
            _add_bytes(archive, "etc/passwd", b"root:x:0:0:root:/tmp:/nonexistent\n")
        # docker makes folders without an entry, with all rights for root alone.
        for folder in sorted(_folders_of(layer.files)):
            _add_folder(archive, folder, 0o755)
        for target, path in sorted(layer.files.items()):
            _add_file(archive, target, path)
        _add_byte_code(archive, layer.files)


def _folders_of(files: Mapping[PurePosixPath, Path]) -> set[str]:
    """Folders above the files and their byte code, except those that each image has anyway."""
    above = {folder for target in files for folder in target.parents}
    above |= {target.parent / "__pycache__" for target in files if target.suffix == ".py"}
    return {str(folder).strip("/") for folder in above} - {"", ".", *_FOLDERS}


def _add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, target: PurePosixPath, path: Path) -> None:
    status = path.stat()
    entry = tarfile.TarInfo(str(target).lstrip("/"))
    entry.size = status.st_size
    entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
    # Exact: byte code and compiled kernels belong to a source, or a build, of exactly that time.
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    entry.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
    with open(path, "rb") as content:
        archive.addfile(entry, content)


def _add_byte_code(archive: tarfile.TarFile, files: Mapping[PurePosixPath, Path]) -> None:
    """Add the byte code that modules lack: a read-only image cannot keep it between starts."""
    tag = sys.implementation.cache_tag
    with tempfile.TemporaryDirectory(prefix="onvm-image-") as folder:
        scratch = Path(folder) / "code.pyc"
        for target, path in sorted(files.items()):
            code = target.parent / "__pycache__" / f"{target.stem}.{tag}.pyc"
            if target.suffix != ".py" or code in files:
                continue
            try:
                py_compile.compile(str(path), str(scratch), str(target), doraise=True)
            except py_compile.PyCompileError:
                continue  # a template, or for another version; the NF reports it if it is needed
            os.utime(scratch, ns=(0, path.stat().st_mtime_ns))  # the same layer each time
            _add_file(archive, code, scratch)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _compiled_kernels() -> dict[PurePosixPath, Path]:
    """Kernels that NFs have compiled on this host; their names tell what they are for."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "onvm" / "kernels"
    return {HOME / "cache/onvm/kernels" / path.name: path for path in sorted(folder.glob("*.o"))}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
