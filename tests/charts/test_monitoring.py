"""Alerts and the dashboard ask only for metrics and labels that the operator's code has."""

import json
import re
from collections.abc import Iterator

import pytest

from eyas_operator.process.metrics import ProcessMetrics
from eyas_operator.telemetry import Telemetry
from eyas_operator.totals import TOTALS
from support.helm import CHART, MONITORING, of_kind, only, rendered

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
SCRAPE_LABELS = {"le"}
PROCESS = CHART.parents[1] / "operator" / "eyas_operator" / "process"


def known() -> dict[str, set[str]]:
    """Every series of the operator, with its labels."""
    found: dict[str, set[str]] = {}
    registry = Telemetry().registry
    metrics = ProcessMetrics(registry, "0", lambda: 0.0)
    # As `process.main` and `process.leader` do when they have something to ask.
    for name in ("leader", "queue_depth"):
        metrics.follow(name, "a gauge", lambda: 0.0)
    for metric in {id(entry): entry for entry in registry._names_to_collectors.values()}.values():
        labels = set(getattr(metric, "_labelnames", ()))
        for described in metric.describe() if hasattr(metric, "describe") else metric.collect():
            for suffix in SUFFIXES[described.type]:
                found[described.name + suffix] = labels | SCRAPE_LABELS
    return found


def uses(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every series that an expression reads, with the labels by which it selects or groups it."""
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
    for series, selector in re.findall(r"\b(eyas_[a-z0-9_]+)(\{[^}]*\})?", expression):
        yield series, set(re.findall(r"([a-z_]+)\s*[=!]~?", selector)) | grouped


def assert_known(expression: str) -> None:
    series = dict(uses(expression))
    assert series, expression
    for name, labels in series.items():
        assert name in known(), f"{name} in {expression}"
        assert labels <= known()[name], f"{labels - known()[name]} of {name} in {expression}"


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_every_panel_asks_for_series_that_exist(panel: dict[str, list[dict[str, str]]]) -> None:
    for target in panel["targets"]:
        assert_known(target["expr"])


def test_the_dashboards_variables_ask_for_series_that_exist() -> None:
    queries = [entry["query"]["query"] for entry in DASHBOARD["templating"]["list"] if entry["type"] == "query"]
    for query in queries:
        assert_known(query)
        assert re.search(r", ([a-z]+)\)$", query)[1] in known()["eyas_job_condition"]  # type: ignore[index]


def test_a_misspelt_series_or_label_would_be_found() -> None:
    for wrong in ("eyas_restart_total", 'eyas_restarts_total{pod="x"}', "sum by (pod) (eyas_restarts_total)"):
        with pytest.raises(AssertionError):
            assert_known(wrong)


def test_the_gauges_that_are_followed_here_are_followed_in_the_operator() -> None:
    source = "".join(path.read_text() for path in PROCESS.glob("*.py"))
    assert {"leader", "queue_depth"} <= set(re.findall(r'\.follow\("([a-z_]+)"', source))


@pytest.mark.chart
def test_every_alert_asks_for_series_that_exist_and_says_what_it_means() -> None:
    groups = only([m for m in rendered(MONITORING) if m["kind"] == "PrometheusRule"], "PrometheusRule")["spec"][
        "groups"
    ]
    alerts = [rule for group in groups for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) >= 7
    for alert in alerts:
        assert_known(alert["expr"])
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        said = set(re.findall(r"\$labels\.([a-z]+)", alert["annotations"]["summary"]))
        assert all(said <= labels for _, labels in uses(alert["expr"])), alert["alert"]


@pytest.mark.chart
def test_whatever_must_stay_0_is_a_critical_alert_at_once() -> None:
    rules = only([m for m in rendered(MONITORING) if m["kind"] == "PrometheusRule"], "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    zero = [total for total in TOTALS if total.text.startswith("Must stay 0")]
    assert len(zero) == 2
    for total in zero:
        (alert,) = [each for each in alerts if f"eyas_{total.name}_total" in each["expr"]]
        assert alert["expr"].endswith("> 0")
        assert (alert["labels"]["severity"], alert.get("for")) == ("critical", None)


@pytest.mark.chart
def test_thresholds_of_warnings_are_those_of_the_values() -> None:
    chosen = {"lostShare": 0.125, "replayedShare": 0.375, "goodput": 0.625}
    rules = of_kind(
        rendered(MONITORING | {"metrics": MONITORING["metrics"] | {"prometheusRule": {"enabled": True} | chosen}}),
        "PrometheusRule",
    )
    text = json.dumps(rules)
    for series, value in (("lost_total", "> 0.125"), ("replayed_total", "> 0.375"), ("goodput_ratio", "< 0.625")):
        assert re.search(rf"{series}[^>]*{value}", text), series


@pytest.mark.chart
def test_scraped_series_keep_the_labels_of_the_job() -> None:
    # Prometheus would else overwrite `job` and `namespace` by those of the scrape.
    (endpoint,) = of_kind(rendered(MONITORING), "ServiceMonitor")["eyas-operator"]["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True


@pytest.mark.chart
def test_the_dashboard_arrives_as_it_is() -> None:
    assert json.loads(of_kind(rendered(MONITORING), "ConfigMap")["eyas-dashboard"]["data"]["eyas.json"]) == DASHBOARD
