"""The difference of the rows of two datasets, by document id: out of core, in a bounded amount of memory."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import orjson

from shardline_common.assembly.engine import Engine
from shardline_common.assembly.extra import assembly_extra

Side = Literal["old", "new"]
KINDS = ("added", "removed", "changed", "moved", "same")
_HASH_BYTES = 8


class RowDiff:
    """Compares two datasets. First add the rows of both, then ask for the result; `close` removes all files.

    Its calls block.

    Args:
        folder: a folder of its own for temporary files.
        memory_bytes: how much memory DuckDB may take.
        threads: how many threads it may use.

    Raises:
        UsageError: the extra `assembly` is missing.
    """

    def __init__(self, folder: Path, memory_bytes: int, threads: int) -> None:
        with assembly_extra():
            import pyarrow as pa
            from pyarrow.parquet import ParquetWriter
        self._pa = pa
        self._engine = Engine(folder, memory_bytes, threads)
        schema = pa.schema([("id", pa.string()), ("hash", pa.uint64()), ("split", pa.string())])
        self._paths = {side: folder / f"{side}.parquet" for side in ("old", "new")}
        self._files: dict[str, Any] = {
            side: ParquetWriter(path, schema, compression="zstd") for side, path in self._paths.items()
        }

    def add(self, side: Side, split: str, lines: Sequence[bytes]) -> None:
        """Add rows of a split of one dataset, as lines."""
        ids = [orjson.loads(line)["document_id"] for line in lines]
        hashes = [int.from_bytes(sha256(line).digest()[:_HASH_BYTES], "big") for line in lines]
        file = self._files[side]
        columns = [ids, self._pa.array(hashes, self._pa.uint64()), [split] * len(ids)]
        file.write_batch(self._pa.record_batch(columns, schema=file.schema))

    def compare(self) -> dict[str, int]:
        """How many documents, which are the rows of one id, there are of each of KINDS."""
        for side, file in self._files.items():
            file.close()
            self._engine.set(files=[str(self._paths[side])])
            self._engine.run(f"{side}_rows")
        self._engine.run("diff_rows")
        counts = dict(self._engine.rows("SELECT kind, count(*) FROM compared GROUP BY kind"))
        return {kind: counts.get(kind, 0) for kind in KINDS}

    def first(self, kind: str, number: int) -> list[str]:
        """The first ids of a kind, sorted."""
        if kind not in KINDS:
            raise ValueError(kind)
        query = f"SELECT id FROM compared WHERE kind = '{kind}' ORDER BY id LIMIT {int(number)}"  # noqa: S608 - one of KINDS
        return [row[0] for row in self._engine.rows(query)]

    def close(self) -> None:
        """Remove all files."""
        for file in self._files.values():
            file.close()
        self._engine.close()
