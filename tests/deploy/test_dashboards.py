"""The dashboards: up to date, well-formed, and every query returns data of a real run."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy.dashboards.boards import DASHBOARDS, FOLDER, dashboards
from tests.deploy.observed import DEAD, DOCUMENTS, JOB, Observed, observed_run
from tests.deploy.test_rules import exported, rules
from tests.services import S3

Panel = dict[str, Any]


def panels() -> list[tuple[str, Panel]]:
    """(file, panel) of everything that shows values, from the files that Grafana reads."""
    return [
        (path.name, panel)
        for path in sorted(FOLDER.glob("*.json"))
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        if panel["type"] != "row"
    ]


def queries() -> list[tuple[str, str]]:
    """(where it stands, query) of every dashboard."""
    return [
        (f"{name}: {panel['title']}: {target['legendFormat']}", target["expr"])
        for name, panel in panels()
        for target in panel["targets"]
    ]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, kafka: str, seaweed: S3) -> Iterator[Observed]:
    with observed_run(tmp_path_factory.mktemp("observed"), kafka, seaweed) as found:
        yield found


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_dashboards_are_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == dashboards()[name], "run `make docs`"


def test_there_are_no_other_dashboards() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(dashboards())


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_a_dashboard_has_title_variables_and_descriptions(board: Any) -> None:
    found = json.loads((FOLDER / f"{board.uid}.json").read_text(encoding="utf-8"))
    assert (found["uid"], found["title"]) == (board.uid, board.title)
    kinds = {item["name"]: item["type"] for item in found["templating"]["list"]}
    assert kinds["datasource"] == "datasource"
    assert ("dataset_job" in kinds) == board.job
    numbers = [panel["id"] for panel in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in found["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["description"].endswith((".", ")"))


def test_panels_link_to_existing_runbooks() -> None:
    linked = {
        link["url"].removeprefix("${runbooks}/") for _, panel in panels() for link in panel.get("links", [])
    }
    # What is down shows in every panel, and in the list of alerts, which leads to each runbook by name.
    assert linked == set(rules("alert")) - {"ShardlineDown"}
    tables = [panel for _, panel in panels() if panel["type"] == "table"]
    assert [table["fieldConfig"]["defaults"]["links"][0]["url"] for table in tables] == [
        "${runbooks}/${__data.fields.alertname}"
    ]


def test_queries_use_exported_metrics_only() -> None:
    for where, query in queries():
        assert set(re.findall(r"\bshardline_\w+", query)) <= exported(), where


def test_grafana_is_provisioned() -> None:
    folder = FOLDER / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert [item["type"] for item in source["datasources"]] == ["prometheus"]
    config = yaml.safe_load((FOLDER.parent / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    scraped = config["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == scraped
    provider = yaml.safe_load((folder / "dashboards" / "shardline.yaml").read_text(encoding="utf-8"))
    assert Path(provider["providers"][0]["options"]["path"]).is_absolute()


@pytest.mark.parametrize(("where", "query"), queries(), ids=[where for where, _ in queries()])
def test_every_query_returns_data_of_a_real_run(observed: Observed, where: str, query: str) -> None:
    asked = query.replace("$__rate_interval", "10s").replace("$__range", "2m").replace("$dataset_job", JOB)
    assert "$" not in asked, where
    found = observed.prometheus.series(asked, observed.start, observed.end)
    values = [float(value) for series in found for _, value in series["values"]]
    assert any(map(math.isfinite, values)), asked


@pytest.mark.parametrize("name", sorted(rules("record")))
def test_every_recording_rule_returns_data_of_a_real_run(observed: Observed, name: str) -> None:
    found = observed.prometheus.series(name, observed.start, observed.end)
    assert any(math.isfinite(float(value)) for series in found for _, value in series["values"])


def test_jobs_can_be_selected_by_name(observed: Observed) -> None:
    asked = {
        "match[]": "shardline_job_progress_ratio",
        "start": str(observed.start),
        "end": str(observed.end),
    }
    url = f"{observed.prometheus.url}/api/v1/label/dataset_job/values"
    assert JOB in requests.get(url, params=asked, timeout=10).json()["data"]


def test_alerts_match_the_faults_of_the_run(observed: Observed) -> None:
    found = observed.prometheus.series('ALERTS{alertstate="firing"}', observed.start, observed.end)
    assert {series["metric"]["alertname"] for series in found} == {
        "ShardlineDeadLetters",
        "ShardlineJobFailed",
    }


def test_figures_equal_those_of_the_run(observed: Observed) -> None:
    def most(query: str) -> float:
        found = observed.prometheus.series(query, observed.start, observed.end)
        return max(float(value) for series in found for _, value in series["values"])

    assert most('shardline_attempts_ended_total{ending="failed"}') == 1
    assert most('shardline_dead_letters_sent_total{of="document"}') == DEAD
    assert most(f'shardline_job_documents{{dataset_job="{JOB}", stage="produced"}}') == DOCUMENTS + DEAD
    assert most('shardline_gateway_streams_total{outcome="complete"}') == 5
    assert most('sum (increase(shardline_gateway_streams_total{outcome="complete"}[2m]))') > 4
    assert 0 < most(f'shardline_lag_seconds{{dataset_job="{JOB}"}}') < observed.end - observed.start
    assert 0 < most(f'shardline_backlog_ratio{{dataset_job="{JOB}"}}') < 1
    assert most("shardline_spool_written_bytes") > 0
    assert most("shardline_spool_disk_free_bytes") > 0


def test_series_of_a_job_end_with_the_job(observed: Observed) -> None:
    assert observed.left == []
