"""Addresses to listen on over HTTP, and the tokens that protect them."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path

from onvm_sdk.errors import ConfigError

__all__ = ["Address", "is_right_token", "listen_address", "read_file_token", "read_token"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listen_address(value: object, field: str) -> tuple[Address, int]:
    """Address and port from ADDRESS:PORT.

    Raises:
        ConfigError: it is something else.
    """
    host, colon, port = str(value).rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]") if colon else "")
        number = int(port)
        if not isinstance(value, str) or not 0 <= number <= 65535:
            raise ValueError
    except ValueError:
        raise ConfigError(
            "expected ADDRESS:PORT, as in 127.0.0.1:9464", field=field, value=value
        ) from None
    return address, number


def read_token(path: Path | None, address: Address, field: str) -> str | None:
    """The token in a file; None: there is no file, and only this host reaches the address.

    Raises:
        ConfigError: the file cannot be read or is empty, or others reach the address.
    """
    if path is None:
        if not address.is_loopback:
            raise ConfigError(
                f"expected a {field} for an address that others can reach",
                field="listen",
                value=str(address),
            )
        return None
    return read_file_token(path, field)


def read_file_token(path: Path, field: str) -> str:
    """The token in a file.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"expected a file that can be read: {error.strerror}", field=field, value=str(path)
        ) from None
    if not token:
        raise ConfigError("expected a token in it", field=field, value=str(path))
    return token


def is_right_token(given: str, token: str | None) -> bool:
    """True if no token is wanted, or this is it."""
    return token is None or hmac.compare_digest(given.encode(), token.encode())
