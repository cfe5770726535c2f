"""From a document to its row without the quality score, or to a dead letter when the row is too large."""

from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

import orjson

from shardline_common.job.blank import is_blank
from shardline_common.job.clara_score import count_present
from shardline_common.job.columns import Columns, Conformer
from shardline_common.job.messages import MAX_ORIGINAL_BYTES, DeadLetter, Facts
from shardline_common.job.plan import RULES
from shardline_common.job.row_text import count_words, escaped, text_json
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.documents import DeadLetterReason
from shardline_producer.sources.source import Document

__all__ = [
    "RenderedRow",
    "RowRenderer",
    "behind_metadata",
    "count_words",
    "escaped",
    "text_json",
    "too_large_row",
    "with_limit",
]


class RenderedRow(NamedTuple):
    """A row without its quality score: the row is `head + score + tail`. A filter decides by `facts`."""

    facts: Facts
    head: bytes
    tail: bytes


class RowRenderer:
    """Renders the rows of one job. The keys have the order of Clara's training line.

    `rules` are those of the job's plan. Without `words`, those of a document are not counted, and are 0 in
    its facts: the score does not need them, and counting takes as long as all the rest of a short document.
    """

    def __init__(self, spec: JobSpec, columns: Columns, rules: int = RULES, *, words: bool = True) -> None:
        self._conform = Conformer(columns)
        self._rules = rules
        self._words = words
        self._behind_metadata = behind_metadata(spec)
        self._decimals = spec.relevance_decimals
        self._max_bytes = spec.max_document_bytes
        self._relevance, self._rounded = 0.0, b"0.0"

    def render(self, document: Document) -> RenderedRow:
        """The row of a document. It may be sent only if `check_size` returns None."""
        facts, head, tail = self.parts(document)
        return RenderedRow(Facts(*facts), head, tail)

    def parts(self, document: Document) -> tuple[tuple[int, int, int, bool, float], bytes, bytes]:
        """As `render`, in plain tuples: to make the others takes a tenth of the time of a row."""
        text, metadata, relevance = document.text, document.metadata, document.relevance
        columns = self._conform.to_json(metadata)
        if not columns.isascii():
            columns = escaped(columns)
        name = orjson.dumps(document.id)
        if not name.isascii():
            name = escaped(name)
        if relevance != self._relevance:
            # Most documents of a source without a search have the same.
            self._relevance = relevance
            self._rounded = orjson.dumps(round(relevance, self._decimals) + 0.0)
        head = b"".join((b'{"text":', text_json(text), b',"metadata":', columns, self._behind_metadata))
        tail = b"".join((b',"document_id":', name, b',"relevance_score":', self._rounded, b"}\n"))
        words = count_words(text) if self._words else 0
        # For version 1 of the rules, a text is blank that has no words.
        blank = not text or text.isspace() if self._rules == 1 else is_blank(text)
        return (len(text), words, count_present(metadata), blank, relevance), head, tail

    def check_size(self, rendered: RenderedRow, key: str) -> DeadLetter | None:
        """The dead letter (`too_large`) of a row over max_document_bytes; None for any other row.

        `key` names the document in the message.
        """
        if len(rendered.head) + len(rendered.tail) <= self._max_bytes:
            return None
        return too_large_row(rendered.head + rendered.tail, key, self._max_bytes)


def too_large_row(row: bytes, key: str, max_bytes: int) -> DeadLetter:
    """The dead letter of a row, without its quality score, over max_document_bytes."""
    hint = f"{key}: the row has {_over(len(row), max_bytes)}"
    reason, digest = DeadLetterReason.TOO_LARGE.value, sha256(row).hexdigest()
    return DeadLetter(reason, hint, digest, len(row), row[:MAX_ORIGINAL_BYTES])


def behind_metadata(spec: JobSpec) -> bytes:
    """The bytes of a row between its metadata and its score."""
    return b',"source":' + escaped(orjson.dumps(spec.source_label)) + b',"quality_score":'


def with_limit(dead_letter: DeadLetter, key: str, max_bytes: int) -> DeadLetter:
    """A dead letter `too_large` of a source, with its size and the limit in its hint; any other as it is."""
    if dead_letter.reason != DeadLetterReason.TOO_LARGE:
        return dead_letter
    # Of the body of some stores only the start was read, so its size is not known.
    known = dead_letter.size > max_bytes
    about = _over(dead_letter.size, max_bytes) if known else f"more than max_document_bytes, {max_bytes:,}"
    return replace(dead_letter, hint=f"{key}: the document has {about}")


def _over(size: int, max_bytes: int) -> str:
    return f"{size:,} bytes; max_document_bytes is {max_bytes:,}"
