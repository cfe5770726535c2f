"""Text files: a file is a document."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from shardline_common.job.field_mapping import HASH, LINE
from shardline_producer.sources.documents import (
    DeadLetterReason,
    FieldNames,
    document_of,
    invalid_document,
    text_id,
)
from shardline_producer.sources.files.file_names import is_named_text
from shardline_producer.sources.files.lines import BOM, Line, RecordBuffer
from shardline_producer.sources.source import Document, InvalidDocument


class TextSplitter:
    """Implements `Splitter` for a text that is one record. Without characters it is a record too."""

    def __init__(self, max_bytes: int, number: int, offset: int) -> None:
        self._done = number > 0
        self._offset = offset
        self._buffer = RecordBuffer(max_bytes)

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Nothing: the record ends with the text."""
        if not self._done:
            self._buffer.add(chunk)
            self._offset += len(chunk)
        return iter(())

    def finish(self) -> Iterator[Line]:
        """The record."""
        if not self._done:
            yield self._buffer.take(1, self._offset)


def parse_text(
    options: Mapping[str, Any], names: FieldNames, raw: bytes, key: str
) -> Document | InvalidDocument:
    """The document of a whole text, as it stands in the file. Its id is in the options, unless it is made."""
    try:
        text = raw.removeprefix(BOM).decode()
    except UnicodeDecodeError:
        return invalid_document(key, DeadLetterReason.INVALID_UTF8, raw)
    generated = names.mapped.generated if names.mapped else ""
    made = {HASH: partial(text_id, text), LINE: partial(names.line_id, key)}
    identity = made[generated]() if generated else options["id"]
    return document_of({"document_id": identity, "content": text}, key, raw)


def is_text(path: str, text: bytes) -> bool:
    """Whether a file whose text begins with `text`, which is no JSON and no CSV, is one document."""
    return is_named_text(path) or bool(text.strip())
