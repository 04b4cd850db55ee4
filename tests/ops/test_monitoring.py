"""Every metric that the dashboard and the alerts name exists, and every alert says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.metrics import MetricWrapperBase
from ruamel.yaml import YAML

import streams.archiver.metrics
import streams.metrics
import training.job.worker
from api.metrics import Metrics
from testing.process import ROOT

OPS = ROOT / "ops"
ALERTS = OPS / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((OPS / "grafana").glob("*.json"))
CONFIGURATIONS = sorted((OPS / "prometheus").glob("prometheus*.yml"))
OF_PROMETHEUS = {"up", "ALERTS"}
LABELS_OF_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate"}
LABEL_OF_WORKERS = "worker"
"""Added by an API of several workers."""
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)"
)


def _yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def _metrics() -> Iterator[MetricWrapperBase]:
    """Every metric of our processes."""
    for module in (streams.metrics, streams.archiver.metrics, training.job.worker):
        yield from (
            value for value in vars(module).values() if isinstance(value, MetricWrapperBase)
        )
    yield from (value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase))


def _series() -> dict[str, set[str]]:
    """Name of each series that a process may serve -> its labels."""
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    return {
        family.name + suffix: set(metric._labelnames)
        for metric in _metrics()
        for family in metric.describe()
        for suffix in suffixes[family.type]
    }


def _rules() -> list[dict[str, Any]]:
    return [rule for group in _yaml(ALERTS)["groups"] for rule in group["rules"]]


def _panels() -> Iterator[tuple[str, str]]:
    """Title and query of every query of the dashboards."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]


def _expressions() -> Iterator[tuple[str, str]]:
    yield from _panels()
    yield from ((rule["alert"], rule["expr"]) for rule in _rules())


def test_every_metric_that_dashboard_and_alerts_name_exists() -> None:
    series = _series()
    labels = set().union(*series.values()) | LABELS_OF_PROMETHEUS | {LABEL_OF_WORKERS}
    names: set[str] = set()
    for where, expression in _expressions():
        text = re.sub(r'"[^"]*"', '""', expression)
        for name in re.findall(r"\b(?:eddyline_\w+|up|ALERTS)\b", text):
            assert name in series or name in OF_PROMETHEUS, f"{where}: no metric {name}"
            names.add(name)
        for braces in re.findall(r"\{([^}]*)\}", text):
            for label in re.findall(r"(\w+)\s*[=!]", braces):
                assert label in labels, f"{where}: no label {label}"
        for grouping in re.findall(r"\bby \(([^)]*)\)", text):
            assert set(grouping.split(", ")) <= labels, f"{where}: by ({grouping})"
    assert len(names) > 40


def test_every_label_in_a_legend_or_a_summary_is_grouped_by() -> None:
    for rule in _rules():
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in rule["expr"], f"{rule['alert']}: {label}"


def test_the_values_of_labels_in_the_alerts_are_values_that_processes_set() -> None:
    """A misspelt value would never fire."""
    text = " ".join(expression for _, expression in _expressions())
    code = "".join(
        path.read_text()
        for room in ("api", "streams", "training", "store")
        for path in (ROOT / room).rglob("*.py")
    )
    for pattern in re.findall(r'(?:outcome|state|degraded|status)[=!]~?"([^"]*)"', text):
        for value in pattern.split("|"):
            assert value in {"5..", "firing", "true"} or f'"{value}"' in code, value


def test_every_alert_says_in_the_docs_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, section = page.partition("\n### Alerts\n")
    documented = re.findall(r"^\| `(Eddyline\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert documented == [rule["alert"] for rule in _rules()]


def test_every_job_of_the_alerts_is_scraped_with_and_without_docker() -> None:
    jobs = set(re.findall(r'job="(\w+)"', ALERTS.read_text()))
    assert jobs
    for path in CONFIGURATIONS:
        assert {job["job_name"] for job in _yaml(path)["scrape_configs"]} == jobs, path.name


def test_prometheus_of_the_compose_file_scrapes_the_ports_of_its_services() -> None:
    services = _yaml(ROOT / "docker-compose.yml")["services"]
    for job in _yaml(OPS / "prometheus" / "prometheus.yml")["scrape_configs"]:
        discovery = job["dns_sd_configs"][0]
        environment = services[discovery["names"][0]]["environment"]
        port = environment.get("API_PORT") or environment["METRICS_PORT"]
        assert discovery["port"] == port, job["job_name"]


def test_the_panels_of_a_dashboard_have_numbers_of_their_own_and_a_source() -> None:
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(
            panel["datasource"]["uid"] == "${datasource}"
            for panel in panels
            if panel["type"] != "row"
        )


def test_the_names_of_the_metrics_page_of_ingest_are_those_of_its_registry() -> None:
    """The series above are derived from the type of a metric; here from what a process serves."""
    served = set(re.findall(r"^(eddyline_\w+?)[ {]", _text(), re.MULTILINE))
    created = {name for name in served if name.endswith("_created")}
    assert served - created <= set(_series())
    assert "eddyline_ingest_applied_seconds_bucket" in served


def _text() -> str:
    return prometheus_client.generate_latest().decode() + Metrics().render().decode()


@promtool
@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_promtool_accepts_the_configuration_and_its_alerts(path: Path) -> None:
    _promtool("check", "config", str(path))


@promtool
def test_promtool_accepts_every_query_of_the_dashboards(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(_panels())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    _promtool("check", "rules", str(path))


@promtool
def test_alerts_fire_when_they_should_and_stay_silent_otherwise() -> None:
    _promtool("test", "rules", str(ROOT / "tests" / "ops" / "alerts_test.yml"))


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
