"""Text files: a file is a document."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from shardline_common.job.field_mapping import HASH, LINE
from shardline_producer.sources.documents import (
    DeadLetterReason,
    FieldNames,
    document_of,
    invalid_document,
    text_id,
)
from shardline_producer.sources.files.lines import BOM, Line, RecordBuffer
from shardline_producer.sources.source import Document, InvalidDocument

_TEXT_NAMES = (".txt", ".text", ".md", ".markdown", ".mdown", ".rst", ".adoc", ".asciidoc", ".org", ".tex")
_JSONL_NAMES = (".jsonl", ".ndjson", ".jsonlines", ".json")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"
# A character that the end of the first bytes may have cut.
_CUT_CHARACTER = 3


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
    """Whether a file whose text begins with `text`, which is no JSON, is one document.

    A name of JSONL says that it is not. Behind another name may be JSONL: of a name of text, at least half of
    the lines are JSON then; of a name that says nothing, one of them, be it damaged.
    """
    name = path.lower().removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2").removesuffix(".xz")
    if name.endswith(_JSONL_NAMES):
        return False
    lines = [line for line in text.removeprefix(BOM).split(b"\n") if line.strip()]
    found = sum(map(_is_json_line, lines))
    if name.endswith(_TEXT_NAMES):
        return not found or found * 2 < len(lines)
    return bool(lines) and not found and _is_sound(text)


def _is_sound(text: bytes) -> bool:
    try:
        text[:-_CUT_CHARACTER].decode()
    except UnicodeDecodeError as error:
        if error.start < len(text) - 2 * _CUT_CHARACTER:
            return False
    return not text.translate(None, delete=bytes(set(range(256)) - set(_CONTROLS)))


def _is_json_line(line: bytes) -> bool:
    if line.lstrip().startswith(b'{"'):
        return True
    try:
        return isinstance(orjson.loads(line), dict | list)
    except orjson.JSONDecodeError:
        return False
