"""The secret that lets a host into the cluster: from a file or the environment, nowhere else.

One line, ``user:password``. It is never an argument and never logged. A file that others may read
is refused.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from onvm_sdk.errors import ConfigError

__all__ = ["Credentials", "Tls", "check_private", "read_credentials", "write_secret"]

FILE_VARIABLE = "ONVM_CLUSTER_CREDENTIALS_FILE"
VARIABLE = "ONVM_CLUSTER_CREDENTIALS"
DEFAULT_USER = "onvm"
LINE = re.compile(r"([A-Za-z0-9_.-]{1,63}):([!#-\[\]-~]{8,128})")  # no space, '"' or '\': for JAAS


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the ensemble; the password is not shown."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def make(cls, user: str = DEFAULT_USER) -> Credentials:
        """Make new credentials with a random password."""
        return cls(user, secrets.token_urlsafe(24))

    @property
    def line(self) -> str:
        """The line as it stands in a file."""
        return f"{self.user}:{self.password}\n"

    @property
    def jaas(self) -> str:
        """The configuration with which ZooKeeper's servers accept them."""
        return (
            "Server {\n"
            "    org.apache.zookeeper.server.auth.DigestLoginModule required\n"
            f'    user_{self.user}="{self.password}";\n'
            "};\n"
        )


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS with a client certificate; PEM."""

    ca: Path
    certificate: Path
    key: Path


def read_credentials(path: Path | None) -> Credentials | None:
    """Read credentials from a file; without one, from the file or the line in the environment; or
    None.

    Raises:
        ConfigError: the file cannot be read, others may read it, or its content is something else.
    """
    if path is None and FILE_VARIABLE in os.environ:
        path = Path(os.environ[FILE_VARIABLE])
    if path is None:
        line = os.environ.get(VARIABLE)
        return None if line is None else _parse(line, VARIABLE)
    check_private(path)
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read ({error.strerror})", file=path
        ) from None
    return _parse(text, str(path))


def _parse(text: str, file: str) -> Credentials:
    match = LINE.fullmatch(text.strip())
    if match is None:  # the message must not contain the content
        raise ConfigError(
            "expected one line user:password, with 8 to 128 printable characters "
            "but spaces, '\"' and '\\'",
            file=file,
        )
    return Credentials(match[1], match[2])


def check_private(path: Path) -> None:
    """Check that a secret belongs to its owner alone.

    Raises:
        ConfigError: the file does not exist, or others may read or write it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read ({error.strerror})", file=path
        ) from None
    if status.st_mode & 0o077:
        raise ConfigError(
            f"expected mode 0600; run: chmod 600 {path}",
            file=path,
            field="mode",
            value=f"{status.st_mode & 0o777:04o}",
        )
    if status.st_uid not in (os.getuid(), 0):
        raise ConfigError("expected a file of this user or root", file=path)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only its owner may read.

    Raises:
        ConfigError: the file exists already, or cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            "expected a file that does not exist; remove this one first", file=path
        ) from None
    except OSError as error:
        raise ConfigError(
            f"expected a place for a new file ({error.strerror})", file=path
        ) from None
