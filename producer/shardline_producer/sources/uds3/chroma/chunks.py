"""The chunks of documents in ChromaDB: the document of a record, and the whole text of a document."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline_producer.sources.uds3.tombstones import id_text

CHUNK_SEPARATOR = "::chunk::"
_CHUNK = re.compile(rf"(?s)(.+){CHUNK_SEPARATOR}(\d{{1,18}})")
_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.0*)?", re.ASCII)
_SUFFIX = re.compile(r"(?is)[^0-9a-z]*(?:chunk)?[^0-9a-z]*(\d{1,18})", re.ASCII)
_TOTALS = ("total_chunks", "chunk_count")


def whole_number(value: object) -> int | None:
    """The integer that a metadata value is: an integer, a number without a fraction, or their text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    return None


def id_parts(record_id: str) -> tuple[str, int | None]:
    """The document and the number of an id `<document>::chunk::<n>`; of another id, itself and None."""
    match = _CHUNK.fullmatch(record_id)
    return (match[1], int(match[2])) if match else (record_id, None)


def document_of(record_id: str, metadata: Mapping[str, Any] | None) -> str:
    """The document id of a record: metadata.document_id, else the text before `::chunk::<n>`, else its id.

    Listing, ranking, texts, filters and tombstones all use this rule.
    """
    return id_text((metadata or {}).get("document_id")) or id_parts(record_id)[0]


def chunk_number(record_id: str, metadata: Mapping[str, Any] | None = None) -> int | None:
    """The number of a record in its document: metadata.chunk_index, else the number in its id, else None.

    A number in the id stands behind `::chunk::`, or, where the metadata name the document, behind the
    document's id, as in `<document>_chunk_0007`.
    """
    fields = metadata or {}
    if (number := whole_number(fields.get("chunk_index"))) is not None:
        return number
    if (number := id_parts(record_id)[1]) is not None:
        return number
    document = document_of(record_id, fields)
    if record_id.startswith(document) and (match := _SUFFIX.fullmatch(record_id, len(document))):
        return int(match[1])
    return None


def chunk_order(record_id: str, metadata: Mapping[str, Any] | None = None) -> tuple[int, str]:
    """The sort key of a record in its document: the chunk's number (-1 without one), then its id."""
    number = chunk_number(record_id, metadata)
    return (-1 if number is None else number, record_id)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A record of a document. Its text is the record's document, else metadata.content."""

    record: str
    document_text: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The text, or None."""
        text = self.fields.get("content") if self.document_text is None else self.document_text
        return text if isinstance(text, str) else None


def may_count_from_one(chunks: Sequence[Chunk]) -> bool:
    """Whether the lowest number is 1 by metadata alone. UDS3 counts the chunks in its ids from 0."""
    numbers = ((chunk_number(chunk.record, chunk.fields), id_parts(chunk.record)[1]) for chunk in chunks)
    known = [(number, in_id) for number, in_id in numbers if number is not None]
    return bool(known) and min(number for number, _ in known) == 1 and (1, 1) not in known


def whole_text(document: str, chunks: Sequence[Chunk], *, from_one: bool) -> list[Chunk] | None:
    """The chunks whose texts, joined, are the text of the document; None if a part of it is missing.

    1. Two records of one number are one chunk if their texts are equal.
    2. The record that has the document's own id and no number is the whole text if it contains all others.
       Otherwise its text, if it has one, comes first.
    3. Every other record needs a number, unless it is the only one. No number is left out, from 0 on, or
       from 1 if `from_one`.
    4. There are as many chunks as `total_chunks` or `chunk_count` say, and each has a text.
    """
    numbered: dict[int, Chunk] = {}
    others: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.record):
        number = chunk_number(chunk.record, chunk.fields)
        if number is None:
            others.append(chunk)
        elif numbered.setdefault(number, chunk).text != chunk.text:
            return None
    ordered = [numbered[number] for number in sorted(numbered)]
    if not ordered:
        alone = len(others) == 1 and others[0].text is not None
        return others if alone and _total_is({1}, others) else None

    own, known = [], [chunk.text for chunk in ordered if chunk.text is not None]
    for chunk in others:
        if chunk.record != document:
            return None
        if chunk.text is not None:
            own = [chunk]
            if len(known) == len(ordered) and all(text in chunk.text for text in known):
                return own
    lowest, highest = min(numbered), max(numbered)
    begins = lowest <= (1 if from_one else 0)
    if not begins or highest - lowest + 1 != len(numbered) or len(known) != len(ordered):
        return None
    # A chunk of a negative number, such as a summary, may be counted or not.
    counts = {len(numbered), sum(number >= 0 for number in numbered)}
    return [*own, *ordered] if _total_is(counts, chunks) else None


def _total_is(counts: Collection[int], chunks: Sequence[Chunk]) -> bool:
    totals = (whole_number(chunk.fields.get(name)) for chunk in chunks for name in _TOTALS)
    return len({total for total in totals if total is not None and total > 0}.difference(counts)) == 0
