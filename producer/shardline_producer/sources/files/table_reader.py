"""Reads the items of one Parquet or Arrow file: a copy of it is read row by row."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.documents import (
    DeadLetterReason,
    document_of,
    invalid_document,
    too_large,
)
from shardline_producer.sources.field_values import NotFinite
from shardline_producer.sources.files.arrow_values import (
    Convert,
    converter,
    distinct_names,
    json_bytes,
    to_json,
    unsupported_type,
)
from shardline_producer.sources.files.file_errors import source_invalid
from shardline_producer.sources.files.file_format import format_of
from shardline_producer.sources.files.file_reader import Cursor, Reading, Stream, batches_of
from shardline_producer.sources.files.table_copies import TableCopies
from shardline_producer.sources.files.table_formats import check_installed
from shardline_producer.sources.files.table_rows import (
    TableBatch,
    has_samples,
    sample_batches,
    table_batches,
    table_errors,
)
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.source import AnyItem, Document, InvalidDocument, SourceItem

# Rows are converted so many bytes at a time: as objects of Python they take several times the memory.
_PIECE_BYTES = 1 << 22


class TableReader:
    """Reads the items of one file from a cursor on. `Cursor.line` is the number of a row."""

    # Offsets are in bytes of the file.
    expansion = 1.0
    ignored = 0

    def __init__(self, file: Mapping[str, Any], start: Cursor, reading: Reading, copies: TableCopies) -> None:
        self._file = file
        self._path: str = file["path"]
        self._reading = reading
        self._start = start
        self._ordinal = start.ordinal
        self._copies = copies
        self._records = format_of(file).records
        self._names = reading.names.in_file(self._path, file.get("name", self._path))
        check_installed(self._path, self._records)
        self._columns: tuple[Any, list[str], list[Convert]] | None = None

    async def batches(self, stream: Stream) -> AsyncGenerator[list[AnyItem], None]:
        """Batches of items; each is read and converted on a thread. `stream` opens the file at an offset.

        Raises:
            JobFailed: the file is damaged, or has something that is not read (`source_invalid`), or as
                `FileLocation.stream`.
            SourceUnavailable: as `FileLocation.stream`, and `TableCopies.copy`.
        """
        # The bytes are compared with those of the plan while they are copied. Random access to the file
        # itself would read bytes that changed since.
        async with self._copies.copy(self._path, self._file["size"], stream(0)) as copy:
            items = self._items(partial(table_batches, self._records, copy, self._start.line))
            async with aclosing(batches_of(items)) as batches:
                async for batch in batches:
                    yield batch

    async def sample(
        self, stream: Stream, opened: Callable[[], Awaitable[BinaryIO | None]]
    ) -> AsyncGenerator[list[AnyItem], None]:
        """The same without a copy, where that is possible: the caller takes only the first of them.

        `opened` opens the file for random access. No change of it is noticed. Raises as `batches`.
        """
        file = await opened() if has_samples(self._records) else None
        if file is None:
            async with aclosing(self.batches(stream)) as batches:
                async for batch in batches:
                    yield batch
            return
        with file:
            items = self._items(partial(sample_batches, file))
            async with aclosing(batches_of(items)) as batches:
                async for batch in batches:
                    yield batch

    def _items(self, batches: Callable[[], Iterator[TableBatch]]) -> Iterator[AnyItem]:
        with table_errors(self._path):
            for found in batches():
                number = found.first
                for piece in _small_pieces(found.batch):
                    for fields in self._rows(piece):
                        item = self._item(fields, number, found.stretch.offset(number))
                        if item is not None:
                            yield item
                        number += 1
                    del piece
                # Before the next batch is decompressed.
                del found

    def _rows(self, batch: Any) -> Iterator[dict[str, Any]]:
        if self._columns is None or self._columns[0] is not batch.schema:
            self._columns = (batch.schema, *self._converters(batch.schema))
        _, names, converters = self._columns
        if not names:
            yield from ({} for _ in range(batch.num_rows))
            return
        columns = [convert(column) for convert, column in zip(converters, batch.columns, strict=True)]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))

    def _converters(self, schema: Any) -> tuple[list[str], list[Convert]]:
        for column in schema:
            if (kind := unsupported_type(column.type)) is not None:
                raise source_invalid(
                    f"the column '{column.name}' of {shown_path(self._path)} has a type that is not read: "
                    f"{kind}",
                    "write the file again without this column, or with another type",
                )
        return distinct_names(schema.names), [converter(column.type) for column in schema]

    def _item(self, fields: dict[str, Any], number: int, offset: int) -> AnyItem | None:
        key = f"{self._path}:{number}"
        content, size = self._content(fields, key)
        filters, render = self._reading.filters, self._reading.render
        if filters and isinstance(content, Document) and not passes(content, filters):
            return None
        self._ordinal += 1
        position = (self._start.file, number, offset, self._ordinal)
        if render is not None and isinstance(content, Document):
            return render(position, size, content)
        return SourceItem(position, content, size)

    def _content(self, fields: dict[str, Any], key: str) -> tuple[Document | InvalidDocument, int]:
        original, broken = json_bytes(fields)
        size = len(original)
        if size > self._reading.max_record_bytes:
            return too_large(key, original, sha256(original).hexdigest(), size), size
        if broken:
            return invalid_document(key, DeadLetterReason.INVALID_UTF8, original), size
        content = document_of(fields, key, original, self._names)
        if isinstance(content, Document):
            for name, value in content.metadata.items():
                if type(value) in (bytes, list, dict, NotFinite):
                    content.metadata[name] = to_json(value)
        return content, size


def _small_pieces(batch: Any) -> Iterator[Any]:
    """The rows of a batch in pieces of about 4 MiB; one row may be larger."""
    if batch.num_rows <= 1 or _size(batch) <= _PIECE_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _small_pieces(batch.slice(0, half))
    yield from _small_pieces(batch.slice(half))


def _size(batch: Any) -> int:
    """About the bytes of the rows of a batch."""
    return sum(_column_size(column) for column in batch.columns)


def _column_size(column: Any) -> int:
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    # Views count the memory of all rows that they share it with, or nothing.
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    elif pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    try:
        return int(column.nbytes)
    except pa.ArrowException:
        return int(column.get_total_buffer_size())
