"""Bounds of rules at percentiles of a sample, written into a job file."""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from shardline.services.filter_report import FilterReport, RuleReport, percentile
from shardline_common.errors import UsageError
from shardline_consumer.curation.curator import Bounds

_DIGITS = 3


def calibrated_bounds(report: FilterReport, percent: float) -> dict[str, Bounds]:
    """For each rule that one parameter bounds, the bound that drops about `percent` % of the sample.

    A rule without a bound stays off, and one that measured nothing keeps its bound. Bounds are rounded to 3
    digits, away from what is kept.

    Returns:
        The bounds by reason.

    Raises:
        UsageError: the job has no such rule.
    """
    found = {}
    for rule in report.bounded:
        values = rule.measured
        if rule.parameter is None or not values:
            continue
        least, most = rule.bounds
        found[rule.reason] = Bounds(
            None if least is None else _rounded(_low(values, percent), like=least, up=False),
            None if most is None else _rounded(percentile(values, 100 - percent), like=most, up=True),
        )
    if not found:
        raise UsageError(
            "the job has no rule whose bound could be calibrated", hint='set "quality": {"preset": …}'
        )
    return found


def _low(values: list[float], percent: float) -> float:
    # The mirror image of the percentile of an upper bound: as many values lie below it.
    return values[min(len(values) - 1, math.floor(len(values) * percent / 100))]


def _rounded(value: float, *, like: float, up: bool) -> float:
    towards = math.ceil if up else math.floor
    if isinstance(like, int):
        return towards(value)
    if value == 0:
        return 0.0
    scale = 10.0 ** (_DIGITS - 1 - math.floor(math.log10(abs(value))))
    return towards(value * scale) / scale


def calibrated_job(body: bytes, rules: list[RuleReport], bounds: Mapping[str, Bounds]) -> bytes:
    """The job with these bounds: each as a parameter of its filter, beside those that the job has.

    Args:
        body: the job as its user wrote it, as JSON without comments; its placeholders stay.
        rules: the rules.
        bounds: the bounds by reason.
    """
    job: dict[str, Any] = orjson.loads(body)
    quality = dict(job.get("quality") or {})
    filters = [dict(one) for one in quality.get("filters") or ()]
    of_name = {one["name"]: one for one in filters}
    for rule in rules:
        found = bounds.get(rule.reason)
        if found is None or rule.parameter is None:
            continue
        bound = found.least if found.least is not None else found.most
        if "." not in rule.reason:
            quality[rule.parameter] = bound
            continue
        if rule.filter not in of_name:
            of_name[rule.filter] = {"name": rule.filter}
            filters.append(of_name[rule.filter])
        of_name[rule.filter][rule.parameter] = bound
    if filters:
        quality["filters"] = filters
    return orjson.dumps({**job, "quality": quality}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
