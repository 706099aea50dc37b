"""The secrets that this host shares with each other one, for their managers' packets.

Both hosts of a pair compute the same secret from their own CURVE key and the other's public one
(X25519, RFC 7748, then HKDF, RFC 5869). It is never sent. The managers agree on the keys for their
datagrams under it, and on new ones each hour, without any agent.

Threads: one.
"""

from __future__ import annotations

from importlib.util import find_spec

from zmq.utils import z85

from onvm_sdk.errors import ConfigError

__all__ = ["SECRET_BYTES", "PairSecrets", "check_installed"]

SECRET_BYTES = 32
_PURPOSE = b"onvm data network"


def check_installed() -> None:
    """Check that secrets can be computed here.

    Raises:
        ConfigError: the package for that is missing.
    """
    if find_spec("cryptography") is None:
        raise ConfigError(
            "expected the package cryptography; run: pip install 'onvm[cluster]'",
            field="onvm cluster",
        )


class PairSecrets:
    """The secrets of one host.

    Args:
        key, key_secret: CURVE keys of its agent, in Z85.
        cluster_id: so that hosts of two clusters have different ones.
    """

    def __init__(self, key: str, key_secret: str, cluster_id: str) -> None:
        self._key = key
        self._key_secret = key_secret
        self._cluster_id = cluster_id
        self._known: dict[str, str] = {}

    def of(self, peer_key: str) -> str:
        """The secret shared with the host of this public key, in hexadecimal; "": it has no key."""
        if peer_key and peer_key not in self._known:
            self._known[peer_key] = self._compute(peer_key).hex()
        return self._known.get(peer_key, "")

    def _compute(self, peer_key: str) -> bytes:
        # Only agents need it, and only those with peers.
        from cryptography.hazmat.primitives.asymmetric.x25519 import (
            X25519PrivateKey,
            X25519PublicKey,
        )
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        own = X25519PrivateKey.from_private_bytes(z85.decode(self._key_secret))
        shared = own.exchange(X25519PublicKey.from_public_bytes(z85.decode(peer_key)))
        both = "".join(sorted((self._key, peer_key))).encode()
        salt = self._cluster_id.encode()
        return HKDF(SHA256(), SECRET_BYTES, salt=salt, info=_PURPOSE + both).derive(shared)
