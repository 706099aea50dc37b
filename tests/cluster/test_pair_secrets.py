"""Secrets of pairs of hosts: both ends compute the same, and no others do."""

from __future__ import annotations

import pytest
import zmq

from onvm_core.cluster.member import pair_secrets
from onvm_core.cluster.member.pair_secrets import SECRET_BYTES, PairSecrets, check_installed
from onvm_sdk.errors import ConfigError


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def test_both_ends_have_the_secret_and_others_have_another() -> None:
    hosts = [keys() for _ in range(4)]
    ends = [PairSecrets(*host, "cluster-1") for host in hosts]
    secrets = {
        frozenset((i, k)): {ends[i].of(hosts[k][0]), ends[k].of(hosts[i][0])}
        for i in range(4)
        for k in range(i)
    }
    assert all(len(both) == 1 for both in secrets.values())
    assert len(set.union(*secrets.values())) == len(secrets)
    assert all(
        len(bytes.fromhex(text)) == SECRET_BYTES for both in secrets.values() for text in both
    )


def test_two_clusters_of_the_same_hosts_have_different_secrets() -> None:
    own, other = keys(), keys()
    assert PairSecrets(*own, "a").of(other[0]) != PairSecrets(*own, "b").of(other[0])


def test_host_without_a_key_has_no_secret() -> None:
    assert PairSecrets(*keys(), "a").of("") == ""


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(pair_secrets, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'onvm\[cluster\]'"):
        check_installed()
