"""TLS with client certificates, and an ensemble that wants credentials."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, SessionClosedRequireSaslError
from kazoo.handlers.threading import KazooTimeoutError

from onvm_core.cluster.credentials import Credentials, Tls
from onvm_core.cluster.dev.local_ensemble import LocalEnsemble
from onvm_core.cluster.errors import NoEnsembleError
from onvm_core.cluster.tree.ensemble import Ensemble
from onvm_core.cluster.tree.foundation import make_cluster


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """A CA, a server and a client of it, and a client of another CA."""
    for ca, ends in (("ca", ("server", "client")), ("other-ca", ("stranger",))):
        openssl(
            folder,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={ca}",
            "-keyout",
            f"{ca}.key",
            "-out",
            f"{ca}.pem",
        )
        for end in ends:
            (folder / f"{end}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
            openssl(
                folder,
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                f"/CN={end}",
                "-keyout",
                f"{end}.key",
                "-out",
                f"{end}.csr",
            )
            openssl(
                folder,
                "x509",
                "-req",
                "-in",
                f"{end}.csr",
                "-CA",
                f"{ca}.pem",
                "-CAkey",
                f"{ca}.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-out",
                f"{end}.pem",
                "-extfile",
                f"{end}.ext",
            )
    both = (folder / "server.key").read_text() + (folder / "server.pem").read_text()
    (folder / "server-both.pem").write_text(both)


@pytest.fixture(scope="module")
def secured(credentials: Credentials) -> Iterator[tuple[LocalEnsemble, Path, int]]:
    """A server with TLS on a port of its own, that does nothing for clients without SASL."""
    with tempfile.TemporaryDirectory(prefix="onvm-tls-") as name:
        folder = Path(name)
        make_certificates(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings = [
            f"secureClientPort={port}",
            "secureClientPortAddress=127.0.0.1",
            f"ssl.keyStore.location={folder}/server-both.pem",
            f"ssl.trustStore.location={folder}/ca.pem",
            "ssl.clientAuth=need",
        ]
        with LocalEnsemble(
            folder, credentials=credentials, is_enforced=True, settings=settings, netty=True
        ) as made:
            yield made, folder, port


def test_tls_with_a_client_certificate(
    secured: tuple[LocalEnsemble, Path, int], credentials: Credentials
) -> None:
    _, folder, port = secured
    tls = Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    ensemble = Ensemble(f"127.0.0.1:{port}", credentials, tls=tls)
    ensemble.connect()
    with ensemble:
        make_cluster(ensemble, "secure")
        assert "secure" in ensemble.client.get_children("/onvm")


@pytest.mark.parametrize("who", ["stranger", None])
def test_without_the_right_certificate_there_is_no_connection(
    secured: tuple[LocalEnsemble, Path, int], credentials: Credentials, who: str | None
) -> None:
    _, folder, port = secured
    tls = None
    if who is not None:
        tls = Tls(folder / "ca.pem", folder / f"{who}.pem", folder / f"{who}.key")
    with pytest.raises(NoEnsembleError):
        Ensemble(f"127.0.0.1:{port}", credentials, tls=tls).connect(2)


def test_server_of_another_ca_is_not_trusted(
    secured: tuple[LocalEnsemble, Path, int],
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even if the system trusts it."""
    _, folder, port = secured
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    tls = Tls(folder / "other-ca.pem", folder / "client.pem", folder / "client.key")
    with pytest.raises(NoEnsembleError, match=r"is not trusted: .*certificate"):
        Ensemble(f"127.0.0.1:{port}", credentials, tls=tls).connect(2)


def test_server_with_another_name_is_not_trusted(
    secured: tuple[LocalEnsemble, Path, int], credentials: Credentials
) -> None:
    _, folder, port = secured
    tls = Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    with pytest.raises(NoEnsembleError, match=r"not trusted: Hostname mismatch.* \(localhost\)"):
        Ensemble(f"localhost:{port}", credentials, tls=tls).connect(2)


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_missing_or_wrong_credentials_are_one_line(
    secured: tuple[LocalEnsemble, Path, int],
    who: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server, _, _ = secured
    caplog.set_level("INFO")
    user = None if who == "nobody" else Credentials.make()
    begin = time.monotonic()
    with pytest.raises(NoEnsembleError) as caught:
        Ensemble(server.hosts, user).connect()
    assert time.monotonic() - begin < 8
    expected = "accepts nobody without credentials" if user is None else "not accept our"
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_enforcing_ensemble_does_nothing_without_credentials(
    secured: tuple[LocalEnsemble, Path, int],
) -> None:
    server, _, _ = secured
    stranger = KazooClient(hosts=server.hosts, timeout=2)
    stranger.start()
    try:
        with pytest.raises((SessionClosedRequireSaslError, KazooException, KazooTimeoutError)):
            stranger.get_children("/")
        with pytest.raises((SessionClosedRequireSaslError, KazooException, KazooTimeoutError)):
            stranger.create("/mine", b"")
    finally:
        stranger.stop()
        stranger.close()
