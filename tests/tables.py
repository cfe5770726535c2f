"""Tables for tests: a sample in each form and by each writer, and a source that reads one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.messages import Position
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from shardline_producer.sources.files.table_copies import TableCopies
from shardline_producer.sources.source import SourceItem
from tests.make import job, memory_pages

ROWS = 700
DAMAGED = ["snappy.parquet", "zstd.parquet", "zstd.arrow", "plain.arrow", "stream.arrows"]
Write = Callable[[pa.Table, Path], None]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def write_polars(table: pa.Table, path: Path) -> None:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=300)
    else:
        frame.write_ipc(path)


def write_duckdb(table: pa.Table, path: Path) -> None:
    import duckdb

    duckdb.from_arrow(table).write_parquet(str(path), row_group_size=300)


def write_parquet(**options: Any) -> Write:
    return lambda table, path: pa.parquet.write_table(table, path, row_group_size=300, **options)


def write_feather(**options: Any) -> Write:
    return lambda table, path: pa.feather.write_feather(table, str(path), **options)


WRITERS: dict[str, Write] = {
    "snappy.parquet": write_parquet(),
    "gzip.parquet": write_parquet(compression="gzip", data_page_version="2.0", data_page_size=1000),
    "zstd.parquet": write_parquet(compression="zstd", use_dictionary=False, write_page_checksum=True),
    "brotli.parquet": write_parquet(compression="brotli", store_schema=False),
    "lz4.parquet": write_parquet(compression="lz4", version="1.0"),
    "none.parquet": write_parquet(compression="none", use_byte_stream_split=["number"], use_dictionary=False),
    "polars.parquet": write_polars,
    "duckdb.parquet": write_duckdb,
    "a.feather": write_feather(),
    "zstd.arrow": write_feather(compression="zstd", chunksize=300),
    "plain.arrow": write_feather(compression="uncompressed", chunksize=300),
    "polars.arrow": write_polars,
    "stream.arrows": write_stream,
}


def table(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "document_id": [f"d{number}" for number in range(rows)],
            "content": [f"Text {number} ä" for number in range(rows)],
            "score": [number / rows for number in range(rows)],
            "number": [number * 1.5 for number in range(rows)],
            "count": pa.array([None if number % 7 else number for number in range(rows)], pa.int64()),
            "tags": [["a", f"b{number}"][: number % 3] for number in range(rows)],
            "law": [{"name": "BauO", "year": number} for number in range(rows)],
        }
    )


def one_row(**columns: pa.Array) -> pa.Table:
    return pa.table({"document_id": ["d0"], "content": ["text"], **columns})


def source(
    folder: Path,
    *names: str,
    copies: TableCopies | None = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> FileDocuments:
    spec = job(source={"type": "files", "paths": list(names), **(options or {})}, **changes)
    return FileDocuments(spec, LocalFiles(folder), None, memory_pages(), copies)


async def items(found: FileDocuments, after: Position | None = None) -> list[SourceItem]:
    frozen = await found.freeze()
    return [item async for batch in found.read(frozen, after) for item in batch]


async def fails(found: FileDocuments) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        await items(found)
    assert failed.value.code is FailureCode.SOURCE_INVALID
    return failed.value
