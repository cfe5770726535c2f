"""Near duplicates: pairs of records with an equal band, and the clusters that they form."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shardline_common.assembly.engine import Engine
from shardline_common.dataset.decision_rules import NearRules

_SIGNED_ROWS = 4_096


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
        engine.set(similar_file=[str(_write_similar(engine, near.needed, folder / "similar.parquet"))])
        engine.run("similar_edges")
    yield from engine.stream("edges")


def find_components(engine: Engine) -> None:
    """Label each record with an edge by the smallest position of its component, in the table `labels`."""
    engine.run("component_start")
    while True:
        engine.run("component_round")
        if not engine.value("SELECT changes FROM label_changes"):
            return


def _write_similar(engine: Engine, needed: int, path: Path) -> Path:
    """Write the pairs whose signatures have enough equal values. In SQL, this takes 20 times as long."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([("position", pa.int64()), ("stays", pa.int64())])
    with ParquetWriter(path, schema) as writer:
        for batch in engine.stream("signed_edges", _SIGNED_ROWS):
            equal = (_values(batch.column("one")) == _values(batch.column("other"))).sum(axis=1)
            writer.write_batch(batch.select(["position", "stays"]).filter(pa.array(equal >= needed)))
    return path


def _values(signatures: Any) -> Any:
    """The values of signatures of one length, a row for each."""
    import numpy as np

    offsets = np.frombuffer(signatures.buffers()[1], np.int32)[signatures.offset :][: len(signatures) + 1]
    data = np.frombuffer(signatures.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.view("<u4").reshape(len(signatures), -1)
