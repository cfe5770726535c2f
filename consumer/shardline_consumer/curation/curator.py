"""Judges the documents of a job with filters. Workers, previews and streams get every verdict from it.

A job without filters has no curator: its documents are judged by their facts alone, and are never parsed.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import orjson

from shardline_common.curation.filter import Rule
from shardline_common.curation.text_facts import TextFacts
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.blank import is_blank
from shardline_common.job.columns import REPAIRED
from shardline_common.job.messages import Facts
from shardline_common.job.row_text import count_words, escaped, text_json
from shardline_consumer.curation.personal_data import Redactor
from shardline_consumer.curation.verdicts import NOT_MEASURED, NOTHING, Bounds, Curated
from shardline_consumer.filters.clara import Judge, Rejection

__all__ = ["Bounds", "Curated", "Curator", "NamedRule"]

_SCORE_UNITS = 10_000


class NamedRule(NamedTuple):
    """A rule of a filter, with the reason that it gives."""

    reason: str
    rule: Rule


class Curator:
    """Judges the documents of one job.

    In this order: its text is repaired, personal data is replaced, then comes `empty`, `below_min_score`,
    and the rules in theirs.

    Args:
        min_score: the lowest score that is kept.
        rules: the rules of all filters.
        redactor: replaces personal data; None: the job does not ask for it.
        counter: counts personal data in rows; None: the job does not ask for it.
        repair: repairs a text; None: the job does not ask for it.
    """

    def __init__(
        self,
        min_score: float,
        rules: Sequence[NamedRule],
        redactor: Redactor | None = None,
        counter: Redactor | None = None,
        repair: Callable[[str], str] | None = None,
    ) -> None:
        self._redactor, self._counter, self._repair = redactor, counter, repair
        self._min_score = min_score
        self._judge = Judge(min_score)
        # A rule without a bound drops nothing, so its value is never asked for.
        self.rules = [one for one in rules if one.rule.least is not None or one.rule.most is not None]
        self._rules = [
            (one.reason, one.rule.measure, Bounds(one.rule.least, one.rule.most)) for one in self.rules
        ]

    @property
    def reasons(self) -> list[str]:
        """The reasons of rejections; there are no others."""
        return [*(reason.value for reason in Rejection), *(reason for reason, _, _ in self._rules)]

    @property
    def bounds(self) -> dict[str, Bounds]:
        """What each rule that measures something compares it with, by reason."""
        own = {Rejection.BELOW_MIN_SCORE.value: Bounds(self._min_score, None)}
        return own | {reason: bounds for reason, _, bounds in self._rules}

    def judge(self, facts: Facts, head: bytes, tail: bytes) -> Curated:
        """Judge a document.

        Args:
            facts: those of its message.
            head: the bytes of its row before the score.
            tail: those behind it.

        Raises:
            JobFailed: a rule failed (`filter_failed`).
            ValueError, TypeError: this is no row.
        """
        row: dict[str, Any] | None = None
        replaced: Mapping[str, int] = NOTHING
        if self._repair is not None or self._redactor is not None:
            row = _parsed(head, b"0", tail)
            try:
                facts, head, replaced = self._changed(row, facts, head)
            except Exception as error:
                raise _failed("the change of its text", row, error) from error
        reason, score, number = self._judge(facts.chars, facts.present, facts.blank, facts.relevance)
        if reason is not None:
            measured = score / _SCORE_UNITS if reason is Rejection.BELOW_MIN_SCORE else NOT_MEASURED
            limit = self._min_score if reason is Rejection.BELOW_MIN_SCORE else NOT_MEASURED
            return Curated(reason.value, head, number, tail, score, facts, measured, limit)
        if row is None:
            row = _parsed(head, number, tail)
        document = TextFacts(row["text"], row.get("metadata") or {})
        broken = self._first_broken(document, row)
        if broken is not None:
            dropped, value, threshold = broken
            return Curated(dropped, head, number, tail, score, facts, value, threshold)
        if self._counter is not None:
            replaced = self._counter.count(document.text, document.metadata)
        return Curated(None, head, number, tail, score, facts, pii=replaced)

    def _changed(
        self, row: dict[str, Any], facts: Facts, head: bytes
    ) -> tuple[Facts, bytes, Mapping[str, int]]:
        """Change text and metadata of a row. Returns its facts, its new head, and what was replaced."""
        replaced: Mapping[str, int] = NOTHING
        text, metadata = row["text"], row["metadata"]
        if self._repair is not None:
            repaired = self._repair(text)
            text, metadata = repaired, metadata | {REPAIRED: repaired != text}
        if self._redactor is not None:
            text, metadata, replaced = self._redactor.redact(text, metadata)
        if self._repair is not None or replaced:
            row["text"], row["metadata"] = text, metadata
            return _facts_of(text, facts), _head_of(row), replaced
        return facts, head, replaced

    def _first_broken(self, document: TextFacts, row: Mapping[str, Any]) -> tuple[str, float, float] | None:
        for reason, measure, bounds in self._rules:
            value = _measured(reason, measure, document, row)
            bound = bounds.broken_by(value)
            if bound is not None and isfinite(value):
                return reason, value, bound
        return None


def _parsed(head: bytes, score: bytes, tail: bytes) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(b"".join((head, score, tail)))
    return row


def _facts_of(text: str, facts: Facts) -> Facts:
    """The facts of a document whose text was changed."""
    return facts._replace(chars=len(text), words=count_words(text), blank=is_blank(text))


def _head_of(row: Mapping[str, Any]) -> bytes:
    """The bytes of a row before its score, as a producer renders them."""
    return b"".join(
        (
            b'{"text":',
            text_json(row["text"]),
            b',"metadata":',
            escaped(orjson.dumps(row["metadata"])),
            b',"source":',
            escaped(orjson.dumps(row["source"])),
            b',"quality_score":',
        )
    )


def _measured(
    reason: str, measure: Callable[[TextFacts], float], document: TextFacts, row: Mapping[str, Any]
) -> float:
    try:
        return float(measure(document))
    except Exception as error:
        # Whatever the filter of another package raises. A ValueError that passed would be taken for that of a
        # damaged message, which is left out.
        raise _failed(reason, row, error) from error


def _failed(what: str, row: Mapping[str, Any], error: Exception) -> JobFailed:
    return JobFailed(
        FailureCode.FILTER_FAILED,
        f"{what} failed on the document {row.get('document_id')!r}: {type(error).__name__}: {error}",
        hint="mend the filter, or leave it out in a new job",
    )
