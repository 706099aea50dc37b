"""The exporter "otlp": what a collector of OpenTelemetry gets, and one that does not answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from snapshots import nf, snapshot

from onvm_core.export.otlp import Otlp
from onvm_core.export.prometheus import families
from onvm_sdk.errors import ConfigError

proto = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")


class Collector(ThreadingHTTPServer):
    """It keeps what it gets, and answers with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[Any, Any]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/metrics"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(
            (self.headers, proto.ExportMetricsServiceRequest.FromString(body))
        )
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_collector_gets_every_metric(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    shot = snapshot(nf(), number=1)
    options = {"endpoint": collector.url, "token_file": "token"}
    with Otlp(options, tmp_path) as exporter:
        exporter.export(shot)
    ((headers, request),) = collector.requests
    assert headers["Authorization"] == "Bearer secret"
    (resource,) = request.resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (attributes["service.name"], attributes["service.instance.id"]) == ("onvm", shot.manager)
    metrics = {one.name: one for one in resource.scope_metrics[0].metrics}
    for name, help_text, series in families(shot):
        metric = metrics.pop(name)
        assert metric.description == help_text
        if name.endswith("_total"):
            assert metric.sum.is_monotonic
            assert metric.sum.aggregation_temporality == 2  # cumulative
        points = metric.sum.data_points if name.endswith("_total") else metric.gauge.data_points
        got = {
            tuple((label.key, label.value.string_value) for label in point.attributes): (
                point.as_double if point.HasField("as_double") else point.as_int
            )
            for point in points
        }
        assert got == {labels[1:]: value for labels, value in series}  # without the manager
        for point in metric.sum.data_points:
            assert point.time_unix_nano - point.start_time_unix_nano == int(shot.uptime_s * 1e9)
    assert metrics == {}


def test_an_outage_is_two_lines(
    collector: Collector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Otlp({"endpoint": collector.url}, tmp_path) as exporter, caplog.at_level(logging.WARNING):
        for collector.status in (400, 400, 200, 200):
            exporter.export(snapshot(nf()))
    assert len(collector.requests) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"exporter otlp: {collector.url} does not answer; it gets what comes later",
        f"exporter otlp: {collector.url} answers again",
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"endpont": "http://a"}, "endpont: 'http://a': expected one of endpoint, token_file; did"),
        ({"endpoint": "localhost:4318"}, "endpoint: 'localhost:4318': expected a URL, as in http:"),
        ({"token_file": "none"}, "token_file: '/.*/none': expected a file that can be read"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, str], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Otlp(options, tmp_path)
