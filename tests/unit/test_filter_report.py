"""What a preview says about filters: shares, percentiles, histograms, examples, and calibrated bounds."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.cli.preview_filters import marked_text
from shardline.services.calibration import calibrated_bounds, calibrated_job
from shardline.services.filter_page import filter_page
from shardline.services.filter_report import Example, FilterReport, RuleReport, percentile
from shardline.services.judging import JudgedContent
from shardline.services.preview import Preview, preview_job
from shardline_common.curation.filter import Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.errors import UsageError
from shardline_common.job.messages import Facts
from shardline_common.settings.load import Settings
from shardline_consumer.curation.curator import Bounds, Curator, NamedRule
from tests.make import job


def chars(facts: TextFacts) -> float:
    return len(facts.text)


def first_x(facts: TextFacts) -> tuple[int, int] | None:
    start = facts.text.find("x")
    return None if start < 0 else (start, start + 1)


RULES = (
    NamedRule("length.short", Rule("short", chars, least=3, parameter="min_chars")),
    NamedRule("length.long", Rule("long", chars, most=8, parameter="max_chars", find=first_x)),
    NamedRule("length.off", Rule("off", chars, parameter="unused")),
    NamedRule("odd.nothing", Rule("nothing", lambda _: math.nan, least=1.5, parameter="ratio")),
)


def report_of(texts: list[str], **quality: Any) -> FilterReport:
    spec = job(quality={"min_score": 0, **quality})
    curator = Curator(spec.quality.min_score, RULES)
    report = FilterReport(spec, curator)
    for number, text in enumerate(texts):
        head = b'{"text":' + orjson.dumps(text) + b',"metadata":{},"source":"files","quality_score":'
        found = curator.judge(Facts(len(text), 1, 0, not text, 0.0), head, b"}")
        judged = JudgedContent(b"", found.reason, False, found.facts, float(found.score_text), found.value)
        report.add(f"d{number}", judged, text, {})
    return report


def test_values_and_counts_are_those_of_the_rules() -> None:
    report = report_of(["ab", "abc", "abcdefghi", "", "x" * 20, "abcd"])
    by_name = {rule.reason: rule for rule in report.rules}
    assert list(by_name) == ["below_min_score", "length.short", "length.long", "odd.nothing"]
    short, long = by_name["length.short"], by_name["length.long"]
    # An empty document is measured by no rule.
    assert short.measured == [2, 3, 4, 9, 20]
    assert (short.breaks, short.dropped, long.breaks, long.dropped) == (1, 1, 2, 2)
    assert (report.documents, report.kept, report.rejected) == (
        6,
        2,
        {"length.short": 1, "length.long": 2, "empty": 1},
    )
    assert report.passes() == {"below_min_score": 5, "length": 2, "odd": 5}
    assert by_name["odd.nothing"].percentiles() == {}
    assert by_name["odd.nothing"].histogram() == ([], [])


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (25, 1), (26, 2), (50, 2), (75, 3), (100, 4)]
)
def test_a_percentile_is_a_value_of_the_sample(percent: float, expected: float) -> None:
    assert percentile([1, 2, 3, 4], percent) == expected


@pytest.mark.parametrize(
    "values", [[1.0], [2.0] * 50, [float(n) for n in range(1000)], [0.0] * 99 + [5.0], [-3.0, 0.0, 1e9]]
)
def test_a_histogram_has_every_value_once(values: list[float]) -> None:
    rule = RuleReport("a.b", None, Bounds(0, None))
    rule.values.extend(values)
    edges, counts = rule.histogram()
    assert sum(counts) == len(values)
    assert len(edges) == len(counts) + 1
    assert edges == sorted(edges)


def test_calibrated_bounds_drop_about_the_share_that_was_asked_for() -> None:
    report = report_of(["y" * size for size in range(1, 1001)])
    bounds = calibrated_bounds(report, 2)
    # A rule that is off or measured nothing, and a score that drops nothing, stay as they are.
    assert bounds == {"length.short": Bounds(21, None), "length.long": Bounds(None, 980)}
    assert report.passes_with(bounds) == 960


def test_a_calibrated_job_keeps_what_its_user_wrote() -> None:
    report = report_of(["y" * size for size in range(1, 101)])
    body = orjson.dumps(
        {
            "name": "laws ${window}",
            "quality": {
                "preset": "clara",
                "filters": [{"name": "other", "a": 1}, {"name": "length", "min_lines": 2}],
            },
        }
    )
    changed = orjson.loads(calibrated_job(body, report.rules, calibrated_bounds(report, 10)))
    assert changed == {
        "name": "laws ${window}",
        "quality": {
            "preset": "clara",
            "filters": [
                {"name": "other", "a": 1},
                {"name": "length", "min_lines": 2, "min_chars": 11, "max_chars": 90},
            ],
        },
    }


def test_nothing_to_calibrate_is_a_sentence() -> None:
    report = FilterReport(job(quality={"min_score": 0}), None)
    with pytest.raises(UsageError, match="no rule"):
        calibrated_bounds(report, 2)


def test_an_example_shows_the_part_that_its_rule_names() -> None:
    report = report_of(["a" * 300 + "x" + "b" * 900])
    one = report.examples["length.long"][0]
    assert one.text[one.start : one.end] == "x"
    assert (one.cut_before, one.cut_behind) == (True, True)
    assert one.value == 1201
    shown = Example("d", "r", None, "one\ntwo <b>", 4, 7, cut_before=False, cut_behind=True)
    assert marked_text(shown) == "one »two« <b>…"


def test_the_page_escapes_texts_and_names_no_other_file() -> None:
    report = report_of(["<script>alert(1)</script>", "abcd", "ab"])
    page = filter_page(job(name="<i>laws</i>"), report)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in page
    for outside in ("http:", "https:", "src=", "url("):
        assert outside not in page


async def previewed(folder: Path, **quality: Any) -> Preview:
    spec = job(source={"type": "files", "paths": [str(folder / "in.jsonl")]}, quality=quality)
    return await preview_job(spec, Settings(), documents=1000, seconds=60)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    lines = [{"document_id": f"d{n}", "content": "ein Wort " * n} for n in range(1, 101)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_preview_measures_with_the_filters_of_the_job(documents: Path) -> None:
    found = asyncio.run(previewed(documents, min_score=0, filters=[{"name": "length", "min_words": 11}]))
    rule = found.filters.rules[1]
    assert (rule.reason, rule.dropped, rule.measured[0], rule.measured[-1]) == (
        "length.too_few_words",
        5,
        2,
        200,
    )
    assert found.filters.kept == len(found.sample.rows) == 95
    shown = found.to_json(0)["filters"]
    assert shown["rules"][1]["breaks"] == 5
    assert {one["reason"] for one in shown["examples"]} == {None, "length.too_few_words"}


def test_the_command_writes_a_page_and_a_job_that_runs(
    documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(documents)
    body = {
        "name": "laws",
        "source": {"type": "files", "paths": ["in.jsonl"]},
        "quality": {"min_score": 0, "filters": [{"name": "length", "min_words": 11, "max_words": 150}]},
    }
    Path("job.json").write_text(json.dumps(body))
    options = ["--html", "f.html", "--calibrate", "new.json", "--percentile", "10"]
    found = CliRunner().invoke(app, ["preview", "job.json", *options])
    assert found.exit_code == 0, found.output
    assert "length.too_few_words" in found.stdout
    assert "they keep 80.0% of the sample" in " ".join(found.stderr.split())
    assert Path("f.html").read_text().startswith("<!doctype html>")
    again = CliRunner().invoke(app, ["preview", "new.json", "--json"])
    assert orjson.loads(again.stdout)["sample"]["rows"] == 80
