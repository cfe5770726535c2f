"""The rules of Prometheus, checked by promtool, and their runbooks."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Histogram

from shardline_common.telemetry.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """The rules of a kind, by name."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def promtool(*arguments: str) -> None:
    """Run promtool; what it says against the rules is the failure."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing; on Debian: apt-get install prometheus"
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")


def test_rules_pass_their_promtool_cases() -> None:
    promtool("test", "rules", "rules.test.yml")


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = yaml.safe_load((FOLDER / "rules.test.yml").read_text(encoding="utf-8"))["tests"]
    fires, silent = set[str](), set[str]()
    for case in cases:
        for check in case.get("alert_rule_test", []):
            (fires if check.get("exp_alerts") else silent).add(check["alertname"])
    assert fires == silent == set(rules("alert"))
    tested = {check["expr"] for case in cases for check in case.get("promql_expr_test", [])}
    assert tested == set(rules("record"))


def exported() -> set[str]:
    """The names of all series that processes export."""
    names = set()
    for name, item in CATALOGUE.items():
        ends = ("_bucket", "_sum", "_count") if item.kind is Histogram else ("",)
        names |= {f"shardline_{name}{end}" for end in ends}
    return names


def test_rules_use_exported_metrics_only() -> None:
    for rule in [*rules("alert").values(), *rules("record").values()]:
        asked = set(re.findall(r"\bshardline_\w+", rule["expr"]))
        assert asked <= exported(), rule["expr"]


def test_alerts_and_runbooks_correspond() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"index"}
    assert pages == set(rules("alert"))


@pytest.mark.parametrize("name", sorted(rules("alert")))
def test_a_runbook_has_symptom_check_and_remedy(name: str) -> None:
    rule, text = rules("alert")[name], (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{name}"
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert text.startswith(f"# {name}\n")
    assert headings == ["Symptom", "Check", "Cure", "Tried"]
    assert "```" in text.split("## Check")[1].split("## Cure")[0]
    index = (RUNBOOKS / "index.md").read_text(encoding="utf-8")
    assert f"[{name}]({name}.md)" in index
