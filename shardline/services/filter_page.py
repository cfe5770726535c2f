"""The page of a filter report: one HTML file with its style and pictures in it, which names no other file."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from shardline.services.filter_report import Example, FilterReport, RuleReport
from shardline_common.job.spec import JobSpec

_WIDTH, _HEIGHT = 480, 96


def filter_page(spec: JobSpec, report: FilterReport) -> str:
    """The page. Texts of documents are escaped: they may hold markup."""
    environment = Environment(
        loader=PackageLoader("shardline.services"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    total = max(1, report.documents)
    rules = report.bounded
    return environment.get_template("filters.html").render(
        name=spec.name,
        preset=spec.quality.preset,
        documents=report.documents,
        kept=report.kept,
        measured=report.measured,
        share=report.kept / total,
        passes=[
            (name, count, count / max(1, report.measured))
            for name, count in report.passes().items()
            if any(rule.filter == name for rule in rules)
        ],
        rules=[_rule(rule, total) for rule in rules],
        examples=[
            (reason, report.kept if reason is None else report.rejected[reason], [*map(_example, shown)])
            for reason, shown in sorted(report.examples.items(), key=lambda item: item[0] or "")
        ],
        width=_WIDTH,
        height=_HEIGHT,
    )


def _rule(rule: RuleReport, total: int) -> dict[str, Any]:
    edges, counts = rule.histogram()
    return {
        "reason": rule.reason,
        "parameter": rule.parameter,
        "least": rule.bounds.least,
        "most": rule.bounds.most,
        "breaks": rule.breaks,
        "share": rule.breaks / total,
        "dropped": rule.dropped,
        "percentiles": rule.percentiles(),
        "bars": [*_bars(rule, edges, counts)],
        "lines": [
            _place(edges, bound)
            for bound in (rule.bounds.least, rule.bounds.most)
            if bound is not None and len(counts) > 1
        ],
        "low": edges[0] if edges else None,
        "high": edges[-1] if edges else None,
    }


def _bars(rule: RuleReport, edges: list[float], counts: list[int]) -> Iterator[dict[str, Any]]:
    """The bars of a histogram. A bar is dropped when its middle breaks a bound."""
    most = max(counts, default=1)
    for number, ((low, high), count) in enumerate(zip(pairwise(edges), counts, strict=True)):
        height = round(count / most * _HEIGHT, 1)
        step = _WIDTH / len(counts)
        yield {
            "x": round(number * step, 1),
            "y": _HEIGHT - height,
            "width": round(step - 1, 1),
            "height": height,
            "drops": rule.bounds.broken_by((low + high) / 2) is not None,
            "count": count,
            "from": low,
            "to": high,
        }


def _place(edges: list[float], bound: float) -> float:
    share = (bound - edges[0]) / (edges[-1] - edges[0])
    return round(min(1.0, max(0.0, share)) * _WIDTH, 1)


def _example(one: Example) -> dict[str, Any]:
    return {
        "id": one.document_id,
        "value": one.value,
        "before": ("…" if one.cut_before else "") + one.text[: one.start],
        "part": one.text[one.start : one.end],
        "behind": one.text[one.end :] + ("…" if one.cut_behind else ""),
    }
