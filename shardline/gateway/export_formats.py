"""The file formats of an export. The writers block: call them on threads."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from shardline.gateway.problems import Problem
from shardline_producer.rows import escaped

MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
# A spreadsheet takes a cell that begins with one of these for a formula, and evaluates it. It drops white
# space and invisible characters before them, and takes the full-width forms of an East Asian keyboard, too.
_FORMULA_STARTS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
_CONTROL_STARTS = ("\t", "\r", "\n")
# With the default of 8 KiB, every fourth row is a system call.
_BUFFER = 1 << 20
_CLARA_COLUMNS = ("document_id", "text", "source", "quality_score", "relevance_score")


class ExportWriter(Protocol):
    """Writes the rows of a dataset into one file."""

    def add(self, lines: Sequence[bytes]) -> None:
        """Write rows, each a line of JSON with its line break."""

    def close(self) -> None:
        """Finish the file and close it."""


class JsonLinesExport:
    """Writes the rows as they are, or without their metadata."""

    def __init__(self, file: IO[bytes], *, metadata: bool) -> None:
        self._file = file
        self._metadata = metadata

    def add(self, lines: Sequence[bytes]) -> None:
        """Write rows."""
        self._file.writelines(lines if self._metadata else map(without_metadata, lines))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonExport:
    """Writes one JSON object: the fields of `head`, then the rows as the array `documents`."""

    def __init__(self, file: IO[bytes], head: Mapping[str, Any], *, metadata: bool) -> None:
        self._file = file
        self._metadata = metadata
        self._separator = b"\n"
        file.write(orjson.dumps(head)[:-1] + b',"documents":[')

    def add(self, lines: Sequence[bytes]) -> None:
        """Write rows."""
        for line in lines:
            self._file.write(self._separator)
            self._file.write(line[:-1] if self._metadata else without_metadata(line)[:-1])
            self._separator = b",\n"

    def close(self) -> None:
        """Write the end of the object and close the file."""
        self._file.write(b"\n]}\n")
        self._file.close()


def escaped_cell(value: object) -> object:
    """Return the value of a CSV cell: a text that a spreadsheet would take for a formula begins with `'`.

    Numbers are left as they are: a negative one is no formula.
    """
    if not isinstance(value, str) or not value:
        return value
    if value.startswith(_CONTROL_STARTS):
        return "'" + value
    first = next((char for char in value if char.isprintable() and not char.isspace()), "")
    return "'" + value if first in _FORMULA_STARTS else value


class CsvExport:
    """Writes a CSV table: Clara's columns, then `metadata.<name>` for each metadata column.

    With `escape`, no cell is a formula for a spreadsheet.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[str], *, escape: bool) -> None:
        self._file = file
        self._columns = columns
        self._escape = escape
        self._file.write(csv_line([*_CLARA_COLUMNS, *(f"metadata.{name}" for name in columns)]))

    def add(self, lines: Sequence[bytes]) -> None:
        """Write rows."""
        for line in lines:
            row = orjson.loads(line)
            metadata = row["metadata"]
            cells = [*(row[name] for name in _CLARA_COLUMNS), *(metadata[name] for name in self._columns)]
            self._file.write(csv_line(map(escaped_cell, cells) if self._escape else cells))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetExport:
    """Writes a Parquet file with the dataset's own schema. Metadata is a struct.

    `features` are the pairs (path, type) of the manifest's schema.

    Raises:
        Problem: 501, pyarrow is not installed.
    """

    def __init__(self, path: Path, features: Sequence[Sequence[str]], *, metadata: bool) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
            import pyarrow.parquet as pq  # noqa: PLC0415 - likewise
        except ImportError:
            detail = "Parquet needs pyarrow on the gateway: install Shardline with its extra `parquet`"
            raise Problem(501, detail) from None
        types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
        inner = [
            pa.field(path.removeprefix("metadata."), types[kind])
            for path, kind in features
            if path.startswith("metadata.")
        ]
        fields = [pa.field(path, types[kind]) for path, kind in features if not path.startswith("metadata.")]
        if metadata:
            fields.insert(1, pa.field("metadata", pa.struct(inner)))
        self._pa = pa
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, lines: Sequence[bytes]) -> None:
        """Write rows as one row group."""
        rows = [orjson.loads(line) for line in lines]
        self._writer.write_table(self._pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Write the footer and close the file."""
        self._writer.close()


def open_export(
    name: str, path: Path, manifest: Mapping[str, Any], *, metadata: bool, escape: bool = True
) -> ExportWriter:
    """Create the file and return the writer of a format.

    Args:
        name: a key of MEDIA_TYPES.
        path: the file.
        manifest: the manifest of the dataset.
        metadata: whether rows keep their metadata.
        escape: whether CSV escapes what a spreadsheet takes for a formula.

    Raises:
        Problem: 501, the format needs a library that is not installed.
    """
    if name == "parquet":
        return ParquetExport(path, manifest["schema"]["features"], metadata=metadata)
    file = path.open("wb", buffering=_BUFFER)
    if name == "csv":
        columns = [*manifest["schema"]["columns"], "extra"] if metadata else []
        return CsvExport(file, columns, escape=escape)
    if name == "json":
        job = manifest["job"]
        head = {"dataset_id": job["job_id"], "name": job["name"], "digest": manifest["digest"]}
        return JsonExport(file, head, metadata=metadata)
    return JsonLinesExport(file, metadata=metadata)


def without_metadata(line: bytes) -> bytes:
    """A row without its metadata, which is cut out of the line.

    No text has these bytes: in a JSON text a quotation mark follows a backslash. And as the values of
    metadata are no objects, only its end has a brace before the comma.
    """
    start = line.find(b',"metadata":{')
    end = line.find(b'},"source":', start)
    if start > 0 and end > 0:
        return line[:start] + line[end + 1 :]
    row = orjson.loads(line)
    del row["metadata"]
    return escaped(orjson.dumps(row)) + b"\n"


def csv_line(cells: Iterable[object]) -> bytes:
    """The line that `csv.writer` writes, which looks at each character of a text by itself."""
    return (",".join(map(_csv_cell, cells)) + "\r\n").encode()


def _csv_cell(value: object) -> str:
    text = "" if value is None else str(value)
    if '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return f'"{text}"' if "," in text or "\n" in text or "\r" in text else text
