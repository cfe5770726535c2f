"""The contents that an assembled dataset holds, from its sidecars and drop lists instead of its rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shardline_common.assembly.engine import Engine


class HeldContents:
    """Reads one sidecar after the other, on one thread.

    Args:
        folder: a folder of its own for temporary files; removed by `close`.
        memory_bytes: how much memory DuckDB may take.
        threads: how many threads it may use.
    """

    def __init__(self, folder: Path, memory_bytes: int, threads: int) -> None:
        self._engine = Engine(folder, memory_bytes, threads)
        self._engine.run("shard_setup")
        self.rows = 0

    def add_drops(self, paths: Sequence[Path]) -> None:
        """The rows of these drop lists are not held."""
        self._engine.set(drops_file=[str(path) for path in paths])
        self._engine.run("load_drops")

    def contents(self, sidecar: Path) -> Iterator[list[list[bytes]]]:
        """The contents of the rows of a sidecar of records that are in no drop list, as chunks of CONTENTS.

        `rows` counts them. All drop lists must have been added.
        """
        self._engine.set(records_files=[str(sidecar)])
        self._engine.define("records", "SELECT * FROM read_parquet(getvariable('records_files'))")
        for batch in self._engine.stream("held_contents"):
            self.rows += batch.num_rows
            column: Any = batch.column("content")
            yield [column.to_pylist()]

    def close(self) -> None:
        """Remove the temporary files."""
        self._engine.close()
