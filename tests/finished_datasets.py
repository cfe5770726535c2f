"""Small finished datasets for tests of what reads them."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from shardline.services.sample import write_sample
from shardline_common.dataset.success import SuccessMarker, hash_of
from shardline_common.job.names import Layout
from shardline_common.storage.directory import DirectoryStore
from tests.make import job
from tests.support.embedded import run_embedded

SPLITS = {"train": 0.9, "validation": 0.1}


def make_dataset(folder: Path, compression: str = "none") -> Path:
    """The folder of an assembled dataset of 600 documents, with 6 shards in each split."""
    write_sample(folder / "sample.jsonl", 600)
    spec = job(
        job_id=compression,
        source={"type": "files", "paths": ["sample.jsonl"]},
        quality={"min_score": 0},
        output={"compression": compression, "shards": {"count": 6}, "shard_bytes": 1 << 18, "splits": SPLITS},
    )
    view = asyncio.run(run_embedded(spec, DirectoryStore(folder / "datasets"), folder))
    assert view.state.state == "completed", view.to_json()
    return folder / "datasets" / Layout.of(spec).root


def rows_in(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a dataset without compression, in its order."""
    shards = sorted(folder.glob(f"data/{split}/*.jsonl"))
    return [orjson.loads(line) for shard in shards for line in shard.read_bytes().splitlines()]


def change_manifest(folder: Path, changed: dict[str, Any]) -> None:
    """Replace the manifest of a dataset, and name it in `_SUCCESS`: who can write could do it."""
    body = orjson.dumps(changed)
    marker = SuccessMarker.decode((folder / "_SUCCESS").read_bytes())
    (folder / "manifest.json").write_bytes(body)
    hashes = {**marker.hashes, "manifest.json": hash_of(body)}
    (folder / "_SUCCESS").write_bytes(SuccessMarker(marker.digest, hashes).encode())
