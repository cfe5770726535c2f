"""What reading Parquet and Arrow costs, beside JSONL and pyarrow: `python -m tests.benchmarks.tables`."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from shardline_common.runtime.threads import set_thread_pool
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.benchmarks.common import WORDS, usage
from tests.make import job, memory_pages

FORMS = {
    "data.jsonl": "JSONL",
    "data.parquet": "Parquet, one row group",
    "zstd.parquet": "Parquet, one row group, zstd",
    "data.arrow": "Arrow, one record batch",
    "lz4.arrow": "Arrow, lz4, batches of 65,536 rows",
}


def write_files(folder: Path, count: int) -> None:
    """The same rows of 2 KB in all forms."""
    rows = pa.table(
        {
            "document_id": [f"d/{number}" for number in range(count)],
            "content": [f"{number}: " + WORDS * 20 for number in range(count)],
            "score": [number / count for number in range(count)],
        }
    ).combine_chunks()
    with (folder / "data.jsonl").open("wb") as out:
        out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows.to_pylist())
    plain = {"compression": "none", "use_dictionary": False}
    pa.parquet.write_table(rows, folder / "data.parquet", row_group_size=count, **plain)
    pa.parquet.write_table(rows, folder / "zstd.parquet", row_group_size=count, compression="zstd")
    pa.feather.write_feather(rows, str(folder / "data.arrow"), compression="uncompressed", chunksize=count)
    pa.feather.write_feather(rows, str(folder / "lz4.arrow"))


async def read_by_shardline(path: Path) -> None:
    """All rows of a file as documents, proven and resumable."""
    set_thread_pool()
    spec = job(source={"type": "files", "paths": [path.name]})
    source = FileDocuments(spec, LocalFiles(path.parent), None, memory_pages())
    async for _ in source.read(await source.freeze(), None):
        pass


def read_by_pyarrow(path: Path) -> None:
    """All rows of a file as Python objects."""
    if path.suffix == ".parquet":
        for batch in pa.parquet.ParquetFile(path).iter_batches(256, use_threads=False):
            batch.to_pylist()
    elif path.suffix == ".arrow":
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for at in range(0, batch.num_rows, 256):
                batch.slice(at, 256).to_pylist()


def measure(path: Path, by: str) -> tuple[float, float]:
    """CPU-seconds and peak MiB of reading a file, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.tables", "--read", str(path), "--by", by]
    cpu, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(cpu), float(peak)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tables")
    parser.add_argument("--documents", type=int, default=160_000, help="of 2 KB each")
    parser.add_argument("--read", type=Path)
    parser.add_argument("--by")
    given = parser.parse_args()
    if given.read:
        started = time.process_time()
        if given.by == "pyarrow":
            read_by_pyarrow(given.read)
        else:
            asyncio.run(read_by_shardline(given.read))
        sys.stdout.write(f"{time.process_time() - started} {usage(os.getpid())[1]}\n")
        return
    count = given.documents
    table = Table(title=f"{count:,} rows of 2 KB: CPU-seconds per million rows, and peak RSS in MiB")
    for column in ("file", "MB", "shardline", "pyarrow to_pylist", "peak of shardline", "of pyarrow"):
        table.add_column(column, justify="left" if column == "file" else "right")
    with tempfile.TemporaryDirectory(prefix="shardline-tables-") as name:
        folder = Path(name)
        write_files(folder, count)
        for file, form in FORMS.items():
            path = folder / file
            cpu, peak = measure(path, "shardline")
            row = [form, f"{path.stat().st_size / 1e6:.0f}", f"{cpu / count * 1e6:.1f}"]
            if path.suffix == ".jsonl":
                table.add_row(*row, "", f"{peak:.0f}", "")
                continue
            other, its_peak = measure(path, "pyarrow")
            table.add_row(*row, f"{other / count * 1e6:.1f}", f"{peak:.0f}", f"{its_peak:.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
