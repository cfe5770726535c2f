"""The formats of an export: each takes lines of rows and writes one file. Blocking: call on threads."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from shardline.gateway.problems import Problem
from shardline_producer.rows import escaped

ENDING = {"jsonl": "jsonl", "json": "json", "csv": "csv", "parquet": "parquet"}
MEDIA = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_PLAIN = ("document_id", "text", "source", "quality_score", "relevance_score")


class Format(Protocol):
    """Writes one file."""

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows, each a line of JSON with its end."""

    def close(self) -> None:
        """Finish the file."""


class JsonLines:
    """The rows as they are, or without their metadata."""

    def __init__(self, file: IO[bytes], *, metadata: bool) -> None:
        self._file = file
        self._metadata = metadata

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows."""
        for line in lines:
            self._file.write(line if self._metadata else _bare(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonArray:
    """One object: the dataset's id and name, and its rows under `documents`."""

    def __init__(self, file: IO[bytes], head: Mapping[str, Any], *, metadata: bool) -> None:
        self._file = file
        self._metadata = metadata
        self._between = b"\n"
        file.write(orjson.dumps(head)[:-1] + b',"documents":[')

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows."""
        for line in lines:
            self._file.write(self._between + (line[:-1] if self._metadata else _bare(line)))
            self._between = b",\n"

    def close(self) -> None:
        """End the object."""
        self._file.write(b"\n]}\n")
        self._file.close()


class Csv:
    """A table: Clara's columns, then one for each metadata column."""

    def __init__(self, file: IO[bytes], columns: Sequence[str]) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._columns = columns
        self._writer = csv.writer(self._file)
        self._writer.writerow([*_PLAIN, *(f"metadata.{name}" for name in columns)])

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows."""
        for line in lines:
            row = orjson.loads(line)
            metadata = row["metadata"]
            self._writer.writerow(
                [*(row[name] for name in _PLAIN), *(metadata[name] for name in self._columns)]
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Parquet:
    """A Parquet file with the dataset's own schema; metadata is a struct."""

    def __init__(self, path: Path, features: Sequence[Sequence[str]], *, metadata: bool) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
            import pyarrow.parquet as pq  # noqa: PLC0415 - likewise
        except ImportError:
            hint = "Parquet needs pyarrow on the gateway: install Shardline with its extra `parquet`"
            raise Problem(501, hint) from None
        kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
        inner = [
            pa.field(path.removeprefix("metadata."), kinds[kind])
            for path, kind in features
            if path.startswith("metadata.")
        ]
        fields = [pa.field(path, kinds[kind]) for path, kind in features if not path.startswith("metadata.")]
        if metadata:
            fields.insert(1, pa.field("metadata", pa.struct(inner)))
        self._pa = pa
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, lines: Sequence[bytes]) -> None:
        """Add rows as one row group."""
        rows = [orjson.loads(line) for line in lines]
        self._writer.write_table(self._pa.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def open_format(name: str, path: Path, manifest: Mapping[str, Any], *, metadata: bool) -> Format:
    """The writer of a format.

    Raises:
        Problem: the format needs a library that is not installed.
    """
    if name == "parquet":
        return Parquet(path, manifest["schema"]["features"], metadata=metadata)
    file = path.open("wb")
    if name == "csv":
        return Csv(file, [*manifest["schema"]["columns"], "extra"] if metadata else [])
    if name == "json":
        job = manifest["job"]
        head = {"dataset_id": job["job_id"], "name": job["name"], "digest": manifest["digest"]}
        return JsonArray(file, head, metadata=metadata)
    return JsonLines(file, metadata=metadata)


def _bare(line: bytes) -> bytes:
    row = orjson.loads(line)
    del row["metadata"]
    return escaped(orjson.dumps(row))
