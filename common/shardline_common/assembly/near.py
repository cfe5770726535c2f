"""Near duplicates: pairs of records with an equal band, and the clusters that they form."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shardline_common.assembly.arrays import arrow_flags
from shardline_common.assembly.engine import Engine
from shardline_common.dataset.decision_rules import NearRules
from shardline_common.errors import FailureCode, JobFailed

_SIGNED_ROWS = 4_096
_VALUE_BYTES = 4
# How often the joins keep the signatures of a part in memory.
_COPIES = 2


def find_pairs(
    engine: Engine, near: NearRules, folder: Path, on_band: Callable[[int], None]
) -> Iterator[Any]:
    """The lines of all pairs of kept rows: each record with the first one that has the same hash in a band.

    Args:
        engine: with `bands`, `kept` and, where pairs are compared, `signatures`.
        near: the rules.
        folder: where pairs that were compared are written.
        on_band: called with the number of bands that are done.
    """
    for band in range(near.bands):
        engine.set(band=band)
        engine.run("band")
        on_band(band + 1)
    if near.needed is not None:
        engine.set(similar_file=[str(_write_similar(engine, near, near.needed, folder / "similar.parquet"))])
        engine.run("similar_edges")
    yield from engine.stream("edges")


def find_components(engine: Engine) -> None:
    """Label each record with an edge by the smallest position of its component, in the table `labels`."""
    engine.run("component_start")
    while True:
        engine.run("component_round")
        if not engine.value("SELECT changes FROM label_changes"):
            return


def check_clusters(engine: Engine) -> None:
    """Check that all records of clusters are kept rows.

    Raises:
        JobFailed: the bands name others (`dataset_damaged`).
    """
    if others := engine.rows("others_in_clusters")[0][0]:
        raise _damaged(f"{others} records with bands are no rows")


def _write_similar(engine: Engine, near: NearRules, needed: int, path: Path) -> Path:
    """Write the pairs whose signatures have enough equal values. In SQL, this takes 20 times as long."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    values = near.bands * near.rows
    engine.run("distinct_pairs")
    pairs = engine.value("SELECT count(*) FROM pairs")
    parts = 1 + pairs * values * _VALUE_BYTES * _COPIES // engine.memory_bytes
    schema = pa.schema([("position", pa.int64()), ("stays", pa.int64())])
    with ParquetWriter(path, schema) as writer:
        for part in range(parts):
            engine.set(part=part, parts=parts)
            engine.run("sign_pairs")
            for batch in engine.stream("signed_pairs", _SIGNED_ROWS):
                pairs -= batch.num_rows
                equal = _values(batch.column("one"), values) == _values(batch.column("other"), values)
                is_similar = arrow_flags(equal.sum(axis=1) >= needed)
                writer.write_batch(batch.select(["position", "stays"]).filter(is_similar))
    if pairs:
        raise _damaged(f"{pairs} pairs of near duplicates do not have one signature for each record")
    return path


def _values(signatures: Any, values: int) -> Any:
    """The values of signatures, a row for each."""
    import numpy as np

    offsets = np.frombuffer(signatures.buffers()[1], np.int32)[signatures.offset :][: len(signatures) + 1]
    data = np.frombuffer(signatures.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    if (np.diff(offsets) != _VALUE_BYTES * values).any():
        raise _damaged(f"a signature does not have {values} values")
    return data.view("<u4").reshape(len(signatures), values)


def _damaged(what: str) -> JobFailed:
    return JobFailed(
        FailureCode.DATASET_DAMAGED, f"the sidecars do not fit each other: {what}", hint="submit a new job"
    )
