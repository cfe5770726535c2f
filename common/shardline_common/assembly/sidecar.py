"""Sidecars: what a decision needs to know of each record of a segment, as Parquet.

A segment has up to three. `RECORDS` has a line for each record: rows, rejections and dead letters. `BANDS`
has a line for each band of the signature of a row; records that are no rows have none. `SIGNATURES` has the
signatures themselves, where pairs are compared by them.

The bytes of a Parquet file depend on the library that wrote it. Two sidecars are therefore compared by the
sha256 of their values, `values-v1`: the sha256 over the digests of the streams of all columns, in their
order. Each column has three streams, which may be empty:

1. where the column may be null: one byte for each line, 1 for a value and 0 for null;
2. numbers and bytes of one length: the values, little-endian, with zeros for null. Text and bytes of any
   length: the lengths as int32;
3. text and bytes of any length: all bytes, text as UTF-8.

JSON lines were tried first, and took 3 CPU-seconds for a million lines; `BANDS` has 14 lines for a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from shardline_common.assembly.extra import assembly_extra
from shardline_common.errors import FailureCode, JobFailed


class Status(IntEnum):
    """What became of a record when it was landed."""

    ROW = 0
    REJECTED = 1
    DEAD_LETTER = 2


@dataclass(frozen=True, slots=True)
class SidecarKind:
    """A kind of sidecar: names and Arrow types of its columns; a type with `?` may be null.

    A reader holds a row group of a column in memory, so `group_rows` is small where values are long.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    group_rows: int = 65_536


# Lines rise by (order, position). A reader of a shard's rows takes the row groups of its range from every
# segment of a partition: with few lines in each, it reads half as much of a hundred segments.
RECORDS = SidecarKind(
    "records",
    (
        ("position", "int64"),
        ("id", "string"),
        ("status", "int8"),
        ("reason", "string?"),
        ("value", "float64?"),
        ("threshold", "float64?"),
        ("order", "uint64"),
        ("content", "binary16?"),
        ("group", "uint64"),
        ("sample", "uint64?"),
        ("id_hash", "uint64"),
        ("words", "int64?"),
        ("score", "int64?"),
        ("offset", "int64?"),
        ("size", "int64?"),
        ("row_hash", "uint64?"),
    ),
    8_192,
)
# Lines rise by (band, hash, position).
BANDS = SidecarKind("bands", (("band", "int16"), ("hash", "uint64"), ("position", "int64")))
# Lines rise by position. A signature is its components as little-endian uint32.
SIGNATURES = SidecarKind("signatures", (("position", "int64"), ("signature", "binary")), 4_096)

# Columns in which a value comes often; a dictionary of any other grows until the writer gives it up.
_OFTEN_EQUAL = ("status", "reason", "threshold", "band")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The content of a sidecar: the number of its lines, and the sha256 of its values (`values-v1`)."""

    lines: int
    sha256: str


def write_sidecar(path: Path, kind: SidecarKind, chunks: Iterable[Sequence[Sequence[Any]]]) -> Sidecar:
    """Write a sidecar to a local file.

    Args:
        path: the file; replaced when it exists.
        kind: the kind of sidecar.
        chunks: its lines in their order, by columns: for each column of `kind` a list, an `array.array`, a
            NumPy array or an Arrow array of its type. Arrays of the column's own width are the fastest; null
            is None in a list. A chunk may have any number of lines.

    Raises:
        UsageError: pyarrow is not installed.
    """
    with assembly_extra():
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    schema, content = _schema(kind), _Content(kind)
    often = [name for name, _ in kind.columns if name in _OFTEN_EQUAL]
    # By the statistics of row groups, readers skip what they do not need: other orders, positions or bands.
    options = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": often,
        "write_statistics": True,
    }
    with ParquetWriter(path, schema, **options) as writer:
        for chunk in chunks:
            for start in range(0, len(chunk[0]), kind.group_rows):
                columns = (column[start : start + kind.group_rows] for column in chunk)
                arrays = [_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                content.add(batch)
                writer.write_batch(batch, row_group_size=kind.group_rows)
    return content.result()


def read_sidecar(path: Path, kind: SidecarKind) -> Sidecar:
    """Read a sidecar, and hash its values.

    Raises:
        JobFailed: the file is no sidecar of this kind (`dataset_damaged`).
        UsageError: pyarrow is not installed.
    """
    content = _Content(kind)
    for batch in sidecar_batches(path, kind):
        content.add(batch)
    return content.result()


def prove_sidecar(path: Path, kind: SidecarKind, expected: Sidecar) -> None:
    """Check that a file holds exactly the lines that were written.

    Raises:
        JobFailed: it does not (`dataset_damaged`).
        UsageError: pyarrow is not installed.
    """
    found = read_sidecar(path, kind)
    if found != expected:
        raise damaged_sidecar(path, kind, f"it holds {_shown(found)}, and {_shown(expected)} were written")


def sidecar_batches(path: Path, kind: SidecarKind) -> Iterator[Any]:
    """The lines of a sidecar in their order, as Arrow batches of at most `group_rows`.

    Raises:
        JobFailed: the file is no sidecar of this kind (`dataset_damaged`).
        UsageError: pyarrow is not installed.
    """
    with assembly_extra():
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    try:
        # Not pre-buffered: memory would hold the whole file.
        with ParquetFile(path, pre_buffer=False) as file:
            if not file.schema_arrow.equals(_schema(kind), check_metadata=False):
                raise damaged_sidecar(path, kind, f"its columns are {', '.join(file.schema_arrow.names)}")
            yield from file.iter_batches(kind.group_rows)
    except (pa.ArrowException, OSError) as error:
        raise damaged_sidecar(path, kind, str(error)) from None


class _Content:
    """Counts lines, and hashes their values as the module says."""

    def __init__(self, kind: SidecarKind) -> None:
        self._lines = 0
        self._nullable = [written.endswith("?") for _, written in kind.columns]
        self._streams = [(sha256(), sha256(), sha256()) for _ in kind.columns]

    def add(self, batch: Any) -> None:
        """Add the lines of an Arrow batch."""
        import pyarrow as pa
        from pyarrow.compute import binary_length

        if not batch.num_rows:
            return
        self._lines += batch.num_rows
        for column, nullable, streams in zip(batch.columns, self._nullable, self._streams, strict=True):
            nulls, values, texts = streams
            valid = _value_bytes(column.is_valid().cast(pa.uint8()))
            if nullable:
                nulls.update(valid)
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                values.update(_without_nulls(binary_length(column), valid))
                texts.update(_text_bytes(column.drop_null() if column.null_count else column))
            else:
                values.update(_without_nulls(column, valid))

    def result(self) -> Sidecar:
        """What was added."""
        digest = sha256()
        for streams in self._streams:
            for stream in streams:
                digest.update(stream.digest())
        return Sidecar(self._lines, digest.hexdigest())


def _value_bytes(array: Any) -> memoryview:
    """The values of an array without nulls, as they are in memory: little-endian, one behind the other."""
    width = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _without_nulls(array: Any, valid: memoryview) -> memoryview:
    """The values as in `_value_bytes`, with zeros for null. Arrow leaves the bytes of a null undefined."""
    import numpy as np

    found = _value_bytes(array)
    if not array.null_count:
        return found
    items = np.frombuffer(found, "u1").reshape(len(array), -1)
    return memoryview((items * np.frombuffer(valid, "u1")[:, np.newaxis]).data).cast("B")


def _text_bytes(array: Any) -> memoryview:
    offsets = memoryview(array.buffers()[1]).cast("i")
    data = array.buffers()[2]
    # An array of empty texts may have no buffer at all.
    return memoryview(b"" if data is None else data)[
        offsets[array.offset] : offsets[array.offset + len(array)]
    ]


def _array(values: Sequence[Any], of_type: Any) -> Any:
    """An Arrow array of the values; an array of numbers of the same width is not copied."""
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    if pa.types.is_integer(of_type) and not isinstance(values, list):
        numbers = memoryview(values)  # type: ignore[arg-type]  # array.array and NumPy's have buffers
        wanted = ("u" if pa.types.is_unsigned_integer(of_type) else "i", of_type.bit_width // 8)
        has = ("u" if numbers.format.isupper() else "i", numbers.itemsize)
        if numbers.c_contiguous and has == wanted:
            return pa.Array.from_buffers(of_type, len(values), [None, pa.py_buffer(numbers)])
        values = numbers.tolist()
    return pa.array(values, of_type)


def damaged_sidecar(path: Path, kind: SidecarKind, what: str) -> JobFailed:
    """The error of a file that is not the sidecar that was written."""
    return JobFailed(
        FailureCode.DATASET_DAMAGED,
        f"{path.name} is not the sidecar `{kind.name}` that was written: {what}",
        hint="restore this object from a backup, or submit a new job",
    )


def _shown(content: Sidecar) -> str:
    return f"{content.lines} lines with sha256 {content.sha256}"


def arrow_type(written: str) -> Any:
    """The Arrow type of a column by its name in a `SidecarKind`."""
    import pyarrow as pa

    types = {"binary16": pa.binary(16), "binary": pa.binary(), "string": pa.string()}
    name = written.rstrip("?")
    return types.get(name) or getattr(pa, name)()


@cache
def _schema(kind: SidecarKind) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, arrow_type(written), nullable=written.endswith("?"))
            for name, written in kind.columns
        ]
    )
