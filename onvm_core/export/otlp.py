"""Exporter "otlp": the metrics of "prometheus", sent to a collector of OpenTelemetry.

They go as OTLP over HTTP, by the library of OpenTelemetry. Counters are cumulative sums since the
manager started, all others gauges. The name of the manager is that of the resource. A collector
that does not answer is reported once, and again when it answers.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onvm_core.export.listen import read_file_token
from onvm_core.export.prometheus import families
from onvm_core.export.snapshot import Snapshot
from onvm_sdk.errors import ConfigError, PluginError
from onvm_sdk.spelling import one_of

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import Metric, MetricsData

__all__ = ["Otlp"]

log = logging.getLogger("onvm.otlp")

DEFAULT_ENDPOINT = "http://127.0.0.1:4318/v1/metrics"
TIMEOUT_S = 5.0
_OPTIONS = ("endpoint", "token_file")
_NS_IN_S = 1_000_000_000


class Otlp:
    """Options: ``endpoint``, a URL, and ``token_file``, a file with a bearer token.

    Raises:
        ConfigError: an option is wrong.
        PluginError: the library is missing.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        for name in options:
            if name not in _OPTIONS:
                raise ConfigError(
                    f"expected {one_of(_OPTIONS, name)}", field=name, value=options[name]
                )
        try:
            import opentelemetry.exporter.otlp.proto.http  # noqa: F401  so that --check finds it
        except ImportError:
            raise PluginError(
                "expected the package opentelemetry-exporter-otlp-proto-http; "
                "run: pip install 'onvm[otlp]'",
                field="exporter otlp",
            ) from None
        self._endpoint = options.get("endpoint", DEFAULT_ENDPOINT)
        if not isinstance(self._endpoint, str) or not self._endpoint.startswith(
            ("http://", "https://")
        ):
            raise ConfigError(
                f"expected a URL, as in {DEFAULT_ENDPOINT}", field="endpoint", value=self._endpoint
            )
        file = options.get("token_file")
        token = None if file is None else read_file_token(folder / str(file), "token_file")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._answers = True
        self._exporter: OTLPMetricExporter | None = None

    def __enter__(self) -> Otlp:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        # It logs every failure, with a traceback; one line for each outage is enough.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = OTLPMetricExporter(
            endpoint=self._endpoint, headers=self._headers, timeout=TIMEOUT_S
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        assert self._exporter is not None
        self._exporter.shutdown()

    def export(self, snapshot: Snapshot) -> None:
        """Send it; a collector that does not answer loses it."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        assert self._exporter is not None
        result = self._exporter.export(metrics_of(snapshot))
        answers = result is MetricExportResult.SUCCESS
        if answers != self._answers:
            state = "answers again" if answers else "does not answer; it gets what comes later"
            log.warning("exporter otlp: %s %s", self._endpoint, state)
        self._answers = answers


def metrics_of(snapshot: Snapshot) -> MetricsData:
    """A snapshot in the form of the library."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    resource = Resource(
        {
            "service.name": "onvm",
            "service.instance.id": snapshot.manager,
            "host.name": socket.gethostname(),
        }
    )
    metrics = ScopeMetrics(InstrumentationScope("onvm"), _metrics(snapshot), "")
    return MetricsData([ResourceMetrics(resource, [metrics], "")])


def _metrics(snapshot: Snapshot) -> list[Metric]:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Metric,
        NumberDataPoint,
        Sum,
    )

    now = int(snapshot.time * _NS_IN_S)
    start = now - int(snapshot.uptime_s * _NS_IN_S)
    made = []
    for name, help_text, series in families(snapshot):
        points = [
            NumberDataPoint(
                {key: label for key, label in labels if key != "manager"}, start, now, value
            )
            for labels, value in series
        ]
        kind: Sum | Gauge = Gauge(points)
        if name.endswith("_total"):
            kind = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        made.append(Metric(name, help_text, "", kind))
    return made
