"""Exporter "prometheus-http": the same metrics as "prometheus", served over HTTP.

prometheus-client writes them, in the text format or as OpenMetrics, as the scraper wants. The
server listens on loopback unless told otherwise. Anywhere else it wants a token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onvm_core.export.listen import is_right_token, listen_address, read_token
from onvm_core.export.prometheus import families
from onvm_core.export.snapshot import Snapshot
from onvm_sdk.errors import ConfigError, PluginError
from onvm_sdk.spelling import one_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["PrometheusHttp"]

DEFAULT_LISTEN = "127.0.0.1:9464"
_OPTIONS = ("listen", "token_file")


class PrometheusHttp:
    """Options: ``listen`` (ADDRESS:PORT) and ``token_file``, a file with a bearer token.

    Attributes:
        address: where it listens, once it does.

    Raises:
        ConfigError: an option is wrong, or an address that others reach has no token.
        PluginError: prometheus-client is missing.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(
                    f"expected {one_of(_OPTIONS, name)}", field=name, value=options[name]
                )
        try:
            import prometheus_client  # noqa: F401  here, so that --check finds that it is missing
        except ImportError:
            raise PluginError(
                "expected the package prometheus-client; run: pip install 'onvm[metrics]'",
                field="exporter prometheus-http",
            ) from None
        self._host, self._port = listen_address(options.get("listen", DEFAULT_LISTEN), "listen")
        file = options.get("token_file")
        self._token = read_token(
            None if file is None else folder / str(file), self._host, "token_file"
        )
        self._last: Snapshot | None = None
        self._server: ThreadingHTTPServer | None = None
        self.address = ("", 0)

    def __enter__(self) -> PrometheusHttp:
        kind = _Server6 if self._host.version == 6 else ThreadingHTTPServer
        self._server = kind((str(self._host), self._port), _handler(self))
        self._server.daemon_threads = True
        self.address = self._server.server_address[:2]  # type: ignore[assignment]
        threading.Thread(
            target=self._server.serve_forever, name="onvm-metrics", daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def export(self, snapshot: Snapshot) -> None:
        """Serve this snapshot from now on."""
        self._last = snapshot

    def collect(self) -> Iterator[Metric]:
        """The metrics of the last snapshot, for prometheus-client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        last = self._last
        for name, help_text, series in families(last) if last is not None else ():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            keys = list(dict.fromkeys(key for labels, _ in series for key, _ in labels))
            family = kind(name, help_text, labels=keys)
            for labels, value in series:
                given = dict(labels)
                family.add_metric([given.get(key, "") for key in keys], value)
            yield family

    def allows(self, authorization: str) -> bool:
        """True if a request with this header may read the metrics."""
        return is_right_token(authorization.removeprefix("Bearer "), self._token)


class _Server6(ThreadingHTTPServer):
    import socket

    address_family = socket.AF_INET6


def _handler(exporter: PrometheusHttp) -> type[BaseHTTPRequestHandler]:
    from prometheus_client.exposition import choose_encoder

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not exporter.allows(self.headers.get("Authorization", "")):
                self._answer(401, "text/plain", b"expected a bearer token\n")
            elif self.path.partition("?")[0] != "/metrics":
                self._answer(404, "text/plain", b"expected /metrics\n")
            else:
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, kind, encode(exporter))

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log no requests: there is one every few seconds."""

    return Handler
