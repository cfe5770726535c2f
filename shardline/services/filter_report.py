"""What the rules of a job measure in a sample: how values are spread, what each rule drops, and examples."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline.services.judging import JudgedContent
from shardline_common.curation.filter import Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.job.spec import JobSpec
from shardline_consumer.curation.curator import Bounds, Curator, NamedRule
from shardline_consumer.filters.clara import Rejection

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_BINS = 24
_EXAMPLES, _EXCERPT, _BEFORE = 10, 480, 120


@dataclass(frozen=True, slots=True)
class Example:
    """A document of the sample. `text` is the part that a reader should look at, at [start, end) of it.

    `cut_before` and `cut_behind`: there is more of the text on that side.
    """

    document_id: str
    reason: str | None
    value: float | None
    text: str
    start: int
    end: int
    cut_before: bool
    cut_behind: bool


@dataclass(slots=True)
class RuleReport:
    """One rule in the sample.

    `values`: what it measured in each document, in their order; NaN: nothing. `dropped`: the documents that
    it dropped, because no rule before it did.
    """

    reason: str
    parameter: str | None
    bounds: Bounds
    values: "array[float]" = field(default_factory=lambda: array("d"))
    dropped: int = 0

    @property
    def filter(self) -> str:
        """The filter that it belongs to."""
        return self.reason.partition(".")[0]

    @property
    def measured(self) -> list[float]:
        """The finite values, sorted."""
        return sorted(value for value in self.values if math.isfinite(value))

    @property
    def breaks(self) -> int:
        """How many documents the rule would drop by itself."""
        return sum(_breaks(self.bounds, value) for value in self.values)

    def percentiles(self) -> dict[int, float]:
        """The values at PERCENTILES; empty when nothing was measured."""
        values = self.measured
        return {percent: percentile(values, percent) for percent in PERCENTILES} if values else {}

    def histogram(self) -> tuple[list[float], list[int]]:
        """The edges of up to 24 bins of one width, and how many values each has.

        The first and the last bin hold what lies outside of the middle 98 % too.
        """
        values = self.measured
        if not values:
            return [], []
        low, high = percentile(values, 1), percentile(values, 99)
        if low == high:
            low, high = values[0], values[-1]
        if low == high:
            return [low, high], [len(values)]
        edges = [low + (high - low) * number / _BINS for number in range(_BINS + 1)]
        behind = [bisect_right(values, edge) for edge in edges[1:-1]]
        counts = [after - before for before, after in zip([0, *behind], [*behind, len(values)], strict=True)]
        return edges, counts

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        edges, counts = self.histogram()
        return {
            "reason": self.reason,
            "parameter": self.parameter,
            "least": self.bounds.least,
            "most": self.bounds.most,
            "breaks": self.breaks,
            "dropped": self.dropped,
            "percentiles": {str(percent): value for percent, value in self.percentiles().items()},
            "histogram": {"edges": edges, "counts": counts},
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The value at a percentile of sorted values: the smallest with at least so many at or below it."""
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]


class FilterReport:
    """Collects what the rules of a job measure in the documents of a sample.

    The score of Clara is the first of the rules. Texts are those of the rows: what is redacted in them is
    redacted here.
    """

    def __init__(self, spec: JobSpec, curator: Curator | None) -> None:
        self.documents = 0
        self.kept = 0
        score = Bounds(spec.quality.min_score, None)
        self.score = RuleReport(Rejection.BELOW_MIN_SCORE.value, "min_score", score)
        self._named: Sequence[NamedRule] = () if curator is None else curator.rules
        self._of_rules = [
            RuleReport(one.reason, one.rule.parameter, Bounds(one.rule.least, one.rule.most))
            for one in self._named
        ]
        self.examples: dict[str | None, list[Example]] = {}
        self.rejected: dict[str, int] = {}

    @property
    def rules(self) -> list[RuleReport]:
        """All rules, in the order in which they are asked."""
        return [self.score, *self._of_rules]

    def add(self, document_id: str, judged: JudgedContent, text: str, metadata: Mapping[str, Any]) -> None:
        """Measure a document of the sample, with the text and metadata of its row. A dead letter is none."""
        if judged.dead or judged.quality_score is None:
            return
        self.documents += 1
        document = TextFacts(text, metadata)
        # An empty document reaches no rule: its values would bend percentiles that decide about others.
        is_empty = judged.reason == Rejection.EMPTY.value
        self.score.values.append(math.nan if is_empty else judged.quality_score)
        for report, named in zip(self._of_rules, self._named, strict=True):
            report.values.append(math.nan if is_empty else float(named.rule.measure(document)))
        if judged.reason is None:
            self.kept += 1
        else:
            self.rejected[judged.reason] = self.rejected.get(judged.reason, 0) + 1
            for report in self.rules:
                report.dropped += report.reason == judged.reason
        shown = self.examples.setdefault(judged.reason, [])
        if len(shown) < _EXAMPLES:
            rules = {one.reason: one.rule for one in self._named}
            shown.append(_example(document_id, judged, document, rules))

    @property
    def bounded(self) -> list[RuleReport]:
        """The rules that can drop a document: each one but a score of which any value is enough."""
        return self.rules if self.score.bounds.least else self._of_rules

    @property
    def measured(self) -> int:
        """How many documents are not empty. No rule is asked about the others."""
        return self.documents - self.rejected.get(Rejection.EMPTY.value, 0)

    def passes(self) -> dict[str, int]:
        """How many documents that are not empty pass each filter by itself, by its name."""
        broken: dict[str, set[int]] = {}
        for report in self.rules:
            found = broken.setdefault(report.filter, set())
            found.update(
                number for number, value in enumerate(report.values) if _breaks(report.bounds, value)
            )
        return {name: self.measured - len(numbers) for name, numbers in broken.items()}

    def passes_with(self, bounds: Mapping[str, Bounds]) -> int:
        """How many documents would pass all rules with other bounds, by reason."""
        broken = set[int]()
        for report in self.rules:
            changed = bounds.get(report.reason, report.bounds)
            broken.update(number for number, value in enumerate(report.values) if _breaks(changed, value))
        return self.measured - len(broken)

    def to_json(self) -> dict[str, Any]:
        """The report as `preview --json` prints it."""
        return {
            "documents": self.documents,
            "measured": self.measured,
            "kept": self.kept,
            "passes": self.passes(),
            "rules": [report.to_json() for report in self.rules],
            "examples": [
                {
                    "document_id": one.document_id,
                    "reason": one.reason,
                    "value": one.value,
                    "text": one.text,
                    "part": [one.start, one.end],
                }
                for shown in self.examples.values()
                for one in shown
            ],
        }


def _breaks(bounds: Bounds, value: float) -> bool:
    return math.isfinite(value) and bounds.broken_by(value) is not None


def _example(
    document_id: str, judged: JudgedContent, document: TextFacts, rules: Mapping[str, Rule]
) -> Example:
    text, part = document.text, None
    rule = rules.get(judged.reason or "")
    if rule is not None and rule.find is not None:
        part = rule.find(document)
    start, end = part or (0, 0)
    first = max(0, start - _BEFORE)
    last = min(len(text), first + _EXCERPT)
    return Example(
        document_id,
        judged.reason,
        judged.value,
        text[first:last],
        min(start, last) - first,
        min(end, last) - first,
        first > 0,
        last < len(text),
    )
