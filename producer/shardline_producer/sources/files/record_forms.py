"""The forms of records: how the text of a file is cut into records, and how each becomes a document."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from shardline_common.job.spec import FilesSource
from shardline_producer.sources.documents import FieldNames, parse_document
from shardline_producer.sources.files.csv_dialect import detect_csv
from shardline_producer.sources.files.csv_records import CsvSplitter, Dialect, parse_row
from shardline_producer.sources.files.file_format import Records
from shardline_producer.sources.files.json_arrays import (
    JsonSplitter,
    detect_json,
    is_json_lines,
    json_options,
)
from shardline_producer.sources.files.lines import Line, LineSplitter
from shardline_producer.sources.files.text_files import TextSplitter, is_text, parse_text
from shardline_producer.sources.source import Document, InvalidDocument


class Splitter(Protocol):
    """Cuts a text in UTF-8, which is passed in chunks, into records. They do not depend on the chunks."""

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The records that this chunk completes."""

    def finish(self) -> Iterator[Line]:
        """The records that the end of the text completes."""


Parse = Callable[[bytes, str], Document | InvalidDocument]
"""Makes a document of the text of a record. The second argument is the key of a dead letter."""


@dataclass(frozen=True, slots=True)
class RecordForm:
    """A form of records.

    `splitter` is called with the limit of bytes of a record, the number of the last record before the start,
    the offset of the start in the text, and the format's options. `parser` is called with the options and
    with the fields of id and text.
    """

    splitter: Callable[[int, int, int, Mapping[str, Any]], Splitter]
    parser: Callable[[Mapping[str, Any], FieldNames], Parse]


def _lines(max_bytes: int, number: int, offset: int, options: Mapping[str, Any]) -> Splitter:  # noqa: ARG001
    return LineSplitter(max_bytes, number, offset)


def _json_parser(options: Mapping[str, Any], names: FieldNames) -> Parse:  # noqa: ARG001
    # Called directly, because the call of a partial costs one document in fifty.
    return parse_document if names == FieldNames() else partial(parse_document, names=names)


def _json_values(max_bytes: int, number: int, offset: int, options: Mapping[str, Any]) -> Splitter:
    return JsonSplitter(max_bytes, number, offset, array=options["array"])


def _text(max_bytes: int, number: int, offset: int, options: Mapping[str, Any]) -> Splitter:  # noqa: ARG001
    return TextSplitter(max_bytes, number, offset)


def _text_parser(options: Mapping[str, Any], names: FieldNames) -> Parse:
    return partial(parse_text, options, names)


def _csv(max_bytes: int, number: int, offset: int, options: Mapping[str, Any]) -> Splitter:
    return CsvSplitter(max_bytes, number, offset, Dialect.of(options))


def _csv_parser(options: Mapping[str, Any], names: FieldNames) -> Parse:
    return partial(parse_row, Dialect.of(options), names)


FORMS: Mapping[Records, RecordForm] = {
    "jsonl": RecordForm(_lines, _json_parser),
    "json": RecordForm(_json_values, _json_parser),
    "csv": RecordForm(_csv, _csv_parser),
    "text": RecordForm(_text, _text_parser),
}


def detect_records(path: str, text: bytes, source: FilesSource) -> tuple[Records, Mapping[str, Any]]:
    """The form of the records of a file whose text begins with `text`, and the options of the form.

    Raises:
        JobFailed: the form is none that can be read (`source_invalid`).
    """
    if source.format == "json":
        return "json", json_options(text)
    if source.format in ("jsonl", "text"):
        return source.format, {}
    if source.format is None:
        if (found := detect_json(path, text, source)) is not None:
            return "json", found
        if is_json_lines(path, text):
            return "jsonl", {}
    if (dialect := detect_csv(path, text, source)) is not None:
        return "csv", dialect.to_json()
    return "text" if source.format is None and is_text(path, text) else "jsonl", {}
