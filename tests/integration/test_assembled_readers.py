"""Equal shards, as Hugging Face datasets divides them among ranks: as many rows each, from own files."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

from shardline.services.sample import write_sample
from shardline_common.job.names import Layout
from shardline_common.storage.directory import DirectoryStore
from tests.make import job
from tests.support.embedded import run_embedded

OPENED: list[str] = []


def rows_of(shards: list[str]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        OPENED.append(shard)
        with open(shard, "rb") as lines:  # noqa: PTH123 - as a reader of many files does
            for line in lines:
                row = orjson.loads(line)
                yield {"document_id": row["document_id"], "text": row["text"]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The train shards of a dataset of 600 documents: a multiple of 8, with equal numbers of rows."""
    folder = tmp_path_factory.mktemp("ranks")
    write_sample(folder / "sample.jsonl", 600)
    spec = job(
        source={"type": "files", "paths": ["sample.jsonl"]},
        quality={"min_score": 0},
        output={
            "shards": {"multiple_of": 8, "equal": True},
            "shard_bytes": 1 << 18,
            "splits": {"train": 0.9, "validation": 0.1},
        },
    )
    view = asyncio.run(run_embedded(spec, DirectoryStore(folder / "out"), folder))
    assert view.state.state == "completed", view.to_json()
    return sorted(map(str, Path(folder / "out" / Layout.of(spec).root).glob("data/train/*.jsonl")))


def dataset(shards: list[str]) -> IterableDataset:
    return IterableDataset.from_generator(rows_of, gen_kwargs={"shards": shards})


def ids(rows: IterableDataset) -> list[str]:
    return [row["document_id"] for row in rows]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_each_rank_has_as_many_rows_from_files_of_its_own(shards: list[str], ranks: int) -> None:
    everything = ids(dataset(shards))
    assert len(shards) % 8 == 0
    found, opened = Counter[str](), []
    for rank in range(ranks):
        OPENED.clear()
        own = split_dataset_by_node(dataset(shards), rank=rank, world_size=ranks)
        first = ids(own)
        assert len(first) == len(everything) // ranks
        assert len(OPENED) == len(shards) // ranks
        opened += OPENED
        # The next epoch.
        assert ids(own) == first
        found.update(first)
    assert sorted(opened) == shards
    assert found == Counter(everything)


def test_a_rank_resumes_behind_its_last_row(shards: list[str]) -> None:
    own = split_dataset_by_node(dataset(shards), rank=1, world_size=4)
    whole, seen = ids(own), []
    for row in own:
        seen.append(row["document_id"])
        if len(seen) == len(whole) // 3:
            break
    state = own.state_dict()
    again = split_dataset_by_node(dataset(shards), rank=1, world_size=4)
    again.load_state_dict(state)
    assert seen + ids(again) == whole
