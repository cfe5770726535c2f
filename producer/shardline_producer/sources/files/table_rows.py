"""The rows of Parquet and Arrow files as record batches, from any row on, with every count checked."""

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from shardline_common.runtime.paths import shown_path
from shardline_producer.sources.files.file_errors import REPLACE_DAMAGED, source_invalid
from shardline_producer.sources.files.file_format import Records
from shardline_producer.sources.files.table_formats import encrypted

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 20
_RELEASE_BATCHES = 32
_BUFFER = 1 << 16
_VALIDATED_ROWS = 4096
# An Arrow stream ends with so many bytes.
_END_MARKER = 8
_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows in `size` bytes of a file from `begin` on: row number `before` + 1, and those behind it."""

    before: int
    rows: int
    begin: int
    size: int

    def offset(self, number: int) -> int:
        """About where in the file a row ends. It depends on the file alone."""
        return self.begin + self.size * (number - self.before) // self.rows


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Rows of a table: `first` is the number of the first one, from 1."""

    first: int
    batch: Any
    stretch: Stretch


class TableDamaged(Exception):
    """The file has other rows than it says."""


class _Mapped:
    """A file as memory, of which the system loads what is used: a page or a batch may be larger than memory.

    The last batch that refers to it frees it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._used = 0
        self.size = len(self._memory)

    def source(self) -> Any:
        """A file of pyarrow over the memory."""
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

        return pa.BufferReader(pa.py_buffer(self._memory))

    def release(self, batches: int = 1) -> None:
        """Let the system drop what was loaded, now and then. What is used again is loaded again."""
        self._used += batches
        if self._used >= _RELEASE_BATCHES and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_DONTNEED)
            self._used = 0


def has_samples(records: Records) -> bool:
    """Whether the first rows of a file of this form are read in bounded memory without a copy of it."""
    return records == "parquet"


def sample_batches(file: BinaryIO) -> Iterator[TableBatch]:
    """The rows of a Parquet file that may change meanwhile. Blocks. Call it within `table_errors`."""
    return _parquet(file, os.fstat(file.fileno()).st_size, 0)


def table_batches(records: Records, file: BinaryIO, after: int) -> Iterator[TableBatch]:
    """The rows of a file behind row number `after`. Blocks. Call it within `table_errors`.

    `file` is a private copy, which does not change: it is mapped into memory, and a file that
    becomes shorter then would end the process.
    """
    memory = _Mapped(file)
    if records == "parquet":
        return _parquet(memory.source(), memory.size, after, memory.release)
    return _arrow_file(memory, after) if records == "arrow" else _arrow_stream(memory, after)


@contextmanager
def table_errors(path: str) -> Iterator[None]:
    """Translates the errors of pyarrow.

    Raises:
        JobFailed: the file is damaged, encrypted, or has something that pyarrow does not read
            (`source_invalid`).
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    try:
        yield
    except TableDamaged as error:
        raise source_invalid(f"{shown_path(path)} is damaged: {error}", REPLACE_DAMAGED) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_MAX_REASON]
        lower = reason.lower()
        if "encrypt" in lower or "decrypt" in lower:
            raise encrypted(path) from None
        if isinstance(error, NotImplementedError) or "codec" in lower or "not supported" in lower:
            raise source_invalid(
                f"{shown_path(path)} has something that pyarrow {pa.__version__} does not read: {reason}",
                "write it again with another compression or other types",
            ) from None
        raise source_invalid(f"{shown_path(path)} is damaged: {reason}", REPLACE_DAMAGED) from None


def _parquet(
    source: Any, file_size: int, after: int, release: Callable[[], None] = lambda: None
) -> Iterator[TableBatch]:
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - likewise

    # Without its default, which reads all columns of a row group at once.
    # INT96 has a range beyond 64 bits of nanoseconds, where they would wrap around in silence.
    table = ParquetFile(
        source,
        pre_buffer=False,
        # Without it, a column of a row group is read in one piece, unless it is in memory.
        buffer_size=0 if isinstance(source, pa.BufferReader) else _BUFFER,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit="us",
        arrow_extensions_enabled=True,
    )
    first, total = 0, table.metadata.num_rows
    stretch = Stretch(0, total, 0, file_size)
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != total or any(group.num_rows < 0 for group in groups):
        raise TableDamaged(f"its row groups have other rows than the {total:,} of the file")
    for number, group in enumerate(groups):
        end = first + group.num_rows
        if end > after and group.num_rows:
            row = max(1, group.total_byte_size // group.num_rows)
            size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row))
            begin = first
            for batch in table.iter_batches(size, row_groups=[number], use_threads=False):
                first += batch.num_rows
                if first > end:
                    break
                if first > after:
                    yield _behind(after, first, batch, stretch)
                release()
            if first != end:
                found = f"{first - begin:,} of the {group.num_rows:,} rows of row group {number}"
                raise TableDamaged(f"{found} were read")
        first = end


def _arrow_file(memory: _Mapped, after: int) -> Iterator[TableBatch]:
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    reader = pa.ipc.open_file(memory.source())
    first, count = 0, reader.num_record_batches
    for number in range(count):
        batch = _validated(reader.get_batch(number), memory)
        begin, end = memory.size * number // count, memory.size * (number + 1) // count
        yield from _pieces(batch, Stretch(first, batch.num_rows, begin, end - begin), after, memory)
        first += batch.num_rows
        # Before the next one is decompressed.
        del batch


def _arrow_stream(memory: _Mapped, after: int) -> Iterator[TableBatch]:
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    source = memory.source()
    reader = pa.ipc.open_stream(source)
    first, begin, read = 0, 0, source.tell()
    while True:
        try:
            batch = _validated(reader.read_next_batch(), memory)
        except StopIteration:
            break
        end = min(memory.size, source.tell() + _END_MARKER)
        yield from _pieces(batch, Stretch(first, batch.num_rows, begin, end - begin), after, memory)
        first, begin, read = first + batch.num_rows, end, source.tell()
        del batch
    # A stream that was cut between two batches has no marker of its end.
    if source.tell() == read:
        raise TableDamaged(f"it ends after {first:,} rows without the marker of its end")


def _validated(batch: Any, memory: _Mapped) -> Any:
    """A batch of which every offset is inside of its values: others would end the process when it is used."""
    for at in range(0, batch.num_rows, _VALIDATED_ROWS):
        for column in batch.slice(at, _VALIDATED_ROWS).columns:
            _validate(column)
        memory.release(_VALIDATED_ROWS // _BATCH_ROWS)
    return batch


def _validate(column: Any) -> None:
    """Validate a column. Text that is not valid UTF-8 is no damage of the file, but of the row."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            column.view(_as_binary(column.type)).validate(full=True)
        elif "Dictionary indices" in str(error) and pa.types.is_nested(column.type):
            # Inside of nulls an index may be any number; flattening leaves them out. It is safe: the offsets
            # of a column are validated before what is inside of it.
            for child in _children(column):
                _validate(child)
        else:
            raise


def _children(column: Any) -> list[Any]:
    """The values inside of the values of a nested column."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    if pa.types.is_struct(column.type):
        return list(column.flatten())
    if pa.types.is_map(column.type):
        lists = pa.ListArray.from_arrays
        return [lists(column.offsets, part).flatten() for part in (column.keys, column.items)]
    return [column.flatten()]


def _as_binary(kind: Any) -> Any:
    """The type with binary in place of each text."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import

    types = pa.types
    leaves = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    if isinstance(kind, pa.BaseExtensionType):
        kind = _as_binary(kind.storage_type)
    elif types.is_struct(kind):
        kind = pa.struct([field.with_type(_as_binary(field.type)) for field in kind.fields])
    elif types.is_map(kind):
        kind = pa.map_(_as_binary(kind.key_type), _as_binary(kind.item_type))
    elif types.is_list(kind):
        kind = pa.list_(_as_binary(kind.value_type))
    elif types.is_large_list(kind):
        kind = pa.large_list(_as_binary(kind.value_type))
    return leaves.get(kind, kind)


def _pieces(batch: Any, stretch: Stretch, after: int, memory: _Mapped) -> Iterator[TableBatch]:
    for at in range(0, batch.num_rows, _BATCH_ROWS):
        piece = batch.slice(at, _BATCH_ROWS)
        end = stretch.before + at + piece.num_rows
        if end > after:
            yield _behind(after, end, piece, stretch)
            memory.release()


def _behind(after: int, end: int, batch: Any, stretch: Stretch) -> TableBatch:
    """The rows of a batch behind row number `after`; `end` is the number of its last row."""
    left = min(batch.num_rows, end - after)
    return TableBatch(end - left + 1, batch.slice(batch.num_rows - left), stretch)
