"""Metrics over HTTP, and the alert rules and the dashboard that use them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snapshots import nf, snapshot

from onvm_core.export import prometheus
from onvm_core.export.prometheus import exposition
from onvm_core.export.prometheus_http import PrometheusHttp
from onvm_sdk.errors import ConfigError

parser = pytest.importorskip("prometheus_client.parser")

ROOT = Path(__file__).parents[3]
RULES = ROOT / "packaging/prometheus/onvm.rules.yml"
DASHBOARD = ROOT / "packaging/grafana/onvm.json"
NAMES = {f"onvm_{name}" for name in prometheus.HELP}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[PrometheusHttp]:
    (tmp_path / "token").write_text("secret\n")
    options = {"listen": "127.0.0.1:0", "token_file": "token"}
    with PrometheusHttp(options, tmp_path) as exporter:
        exporter.export(snapshot(nf(), nf(instance='nat-"2"')))
        yield exporter


def read(exporter: PrometheusHttp, path: str = "/metrics", token: str = "secret") -> str:
    host, port = exporter.address
    request = urllib.request.Request(
        f"http://{host}:{port}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_http_serves_what_the_file_has(served: PrometheusHttp) -> None:
    made = exposition(snapshot(nf(), nf(instance='nat-"2"')))
    assert series(read(served)) == series(made)


@pytest.mark.parametrize(
    ("path", "token", "status"), [("/", "secret", 404), ("/metrics", "x", 401)]
)
def test_http_refuses(served: PrometheusHttp, path: str, token: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        read(served, path, token)
    assert caught.value.code == status
    caught.value.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"listen": "0.0.0.0:9464"}, "listen: '0.0.0.0': expected a token_file for an address"),
        ({"listen": "here"}, "listen: 'here': expected ADDRESS:PORT, as in 127.0.0.1:9464"),
        ({"listen": "127.0.0.1:99999"}, "listen: '127.0.0.1:99999': expected ADDRESS:PORT"),
        ({"token_file": "none"}, "expected a file that can be read: No such file or directory"),
        ({"port": 1}, "port: 1: expected one of listen, token_file"),
    ],
)
def test_http_options_are_checked(options: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        PrometheusHttp(options, tmp_path)
    assert said in str(caught.value)


def test_alert_rules_use_metrics_that_exist() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    for rule in rules:
        used = set(re.findall(r"\bonvm_\w+", rule["expr"]))
        assert used, rule
        assert used <= NAMES, rule["alert"]
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_all_metrics_of_ports_and_nfs() -> None:
    text = json.dumps(json.loads(DASHBOARD.read_text()))
    used = set(re.findall(r"\bonvm_\w+", text))
    assert used <= NAMES
    assert len(used) >= 12


def test_the_manual_lists_every_metric() -> None:
    manual = (ROOT / "docs/operating.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in manual, name
